"""A forked process must not share the connections of engines with its parent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine, Pool

logger = logging.getLogger(__name__)

#: The key of the registry that has the arguments of ``config.add_fork_safe``.
KEY = "pyramid_tasks.fork_safe"


def leave_to_parent(registry: Registry) -> list[Pool]:
    """Make a forked process forget the connections that it inherited.

    Returns:
        The pools of these connections. Keep them for as long as the process lives: a
        driver may close a connection that nobody refers to any more, and the parent
        suffers. asyncpg takes it off the selector that both processes share.
    """
    inherited = []
    for engine in dict.fromkeys(_engines_on(registry)):
        if engine.dialect.name == "sqlite" and not engine.url.database:
            continue  # the fork copied a database in memory
        in_use = engine.pool.checkedout() if hasattr(engine.pool, "checkedout") else 0
        if in_use:
            logger.warning(
                "%d connections of %r were in use when this process was forked. It "
                "shares them with its parent if it uses them: return them to the "
                "engine before the worker starts.",
                in_use,
                engine,
            )
        inherited.append(engine.pool)
        engine.dispose(close=False)
    for dispose in registry.get(KEY, ()):
        if not any(engines_of(dispose)):
            dispose(registry)
    return inherited


def _engines_on(registry: Registry) -> Iterator[Engine]:
    for value in (
        *registry.values(),
        *vars(registry).values(),
        *(registry.settings or {}).values(),
        *(item.component for item in registry.registeredUtilities()),
    ):
        yield from engines_of(value)
        # An application with several databases may keep its engines together.
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, (dict, list, tuple)):
            for item in inside:
                yield from engines_of(item)


def engines_of(value: Any) -> Iterator[Any]:
    """Return the engines that a value is, or is bound to.

    SQLAlchemy is not imported for that: without it, no value is an engine.
    """
    kinds = {
        cls.__name__
        for cls in type(value).__mro__
        # Interfaces, which a registry holds too, have a slot of this name.
        if str(cls.__module__).startswith("sqlalchemy.")
    }
    if "Engine" in kinds:
        yield value
    elif "AsyncEngine" in kinds:
        yield value.sync_engine
    elif kinds & {"scoped_session", "async_scoped_session"}:
        yield from engines_of(value.session_factory)
    elif kinds & {"sessionmaker", "async_sessionmaker"}:
        for bind in value.kw.get("bind"), *(value.kw.get("binds") or {}).values():
            yield from engines_of(bind)
