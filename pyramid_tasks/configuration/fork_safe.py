"""``config.add_fork_safe``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import ForkSafetyError
from ..worker.forking import KEY, engines_of
from .load import reporting_directive

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from sqlalchemy import Engine


@reporting_directive
def add_fork_safe(
    config: Configurator, dispose: Callable[[Registry], Any] | Engine | str
) -> None:
    """Have something done in each forked child, before it does anything else.

    Connections that were opened before the fork belong to the parent, and a child that
    used them too would garble both. SQLAlchemy engines that the registry holds need no
    help. Engines elsewhere are handed over here, and so is a function for anything
    else::

        config.add_fork_safe(myapp.db.engine)
        config.add_fork_safe(forget_sockets)

    Args:
        dispose: A function, called with the registry in each child, that forgets what
            is the parent's without closing it; or an engine, or a sessionmaker with
            one. A dotted name is allowed.

    Raises:
        ForkSafetyError: It is none of these.
    """
    found: Any = config.maybe_dotted(dispose)
    # engine.dispose as such would close the connections, even those of the parent.
    owner = getattr(found, "__self__", None)
    if any(engines_of(owner)):
        found = owner
    if not callable(found) and not any(engines_of(found)):
        raise ForkSafetyError(
            f"config.add_fork_safe() takes a function or an engine, not {found!r}"
        )

    def register() -> None:
        config.registry.setdefault(KEY, []).append(found)

    title = config.object_description(found)
    introspectable = config.introspectable("fork safe", found, title, "fork safe")
    introspectable.update(dispose=found)
    config.action(("fork safe", found), register, introspectables=(introspectable,))
