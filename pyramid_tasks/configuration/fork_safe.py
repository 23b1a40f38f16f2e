"""``config.add_fork_safe``: what a forked child must not share with its parent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import ForkSafetyError
from ..worker.forking import KEY, engines_of
from .functions import check_callback
from .importable import maybe_dotted
from .load import reporting_directive

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from sqlalchemy import Engine


@reporting_directive
def add_fork_safe(
    config: Configurator, dispose: Callable[[Registry], Any] | Engine | str
) -> None:
    """Name something that each forked child has to forget first.

    Connections that were opened before the fork belong to the parent. If a child used
    them too, both would read garbage. SQLAlchemy engines on the registry are handled
    already. Hand over engines that are elsewhere, and a function for anything else::

        config.add_fork_safe(myapp.db.engine)
        config.add_fork_safe(forget_sockets)

    Args:
        dispose: An engine, a sessionmaker with an engine, or a function. The function
            is called with the registry in each child, whoever forks it. It must forget
            the connections of the parent without closing them. A dotted name is
            allowed.

    Raises:
        ForkSafetyError: ``dispose`` is something else.
        pyramid.exceptions.ConfigurationError: The function cannot be called so, or is
            async.
    """
    found: Any = maybe_dotted(config, dispose)
    # A bare engine.dispose would close the connections that the parent uses.
    owner = getattr(found, "__self__", None)
    if any(engines_of(owner)):
        found = owner
    if not any(engines_of(found)):
        if not callable(found):
            raise ForkSafetyError(
                f"config.add_fork_safe() takes a function or an engine, not {found!r}"
            )
        check_callback("The function of config.add_fork_safe()", found, "registry")

    def register() -> None:
        config.registry.setdefault(KEY, []).append(found)

    title = config.object_description(found)
    introspectable = config.introspectable("fork safe", found, title, "fork safe")
    introspectable.update(dispose=found)
    config.action(("fork safe", found), register, introspectables=(introspectable,))
