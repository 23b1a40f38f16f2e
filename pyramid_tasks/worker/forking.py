"""What a forked process must not share with its parent: the connections of engines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine, Pool

logger = logging.getLogger(__name__)

#: The key of the registry that has what ``config.add_fork_safe`` was given.
KEY = "pyramid_tasks.fork_safe"


def leave_to_parent(registry: Registry) -> list[Pool]:
    """Make a forked process forget the connections that it inherited.

    Returns:
        The pools of these connections, to be kept for as long as the process lives. A
        driver may close a connection that nobody refers to any more, and the parent
        suffers: asyncpg takes it off the selector that both processes share.
    """
    inherited = []
    for engine in dict.fromkeys(_engines_on(registry)):
        if engine.dialect.name == "sqlite" and not engine.url.database:
            continue  # a database in memory was copied by the fork
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
    yield from _engines_in(registry.values())
    yield from _engines_in(vars(registry).values())
    yield from _engines_in((registry.settings or {}).values())
    yield from _engines_in(item.component for item in registry.registeredUtilities())


def _engines_in(values: Iterable[Any]) -> Iterator[Engine]:
    for value in values:
        yield from engines_of(value)
        # The engines of an application with several databases.
        if isinstance(value, dict):
            value = value.values()  # noqa: PLW2901 what is in it
        elif not isinstance(value, (list, tuple)):
            continue
        for item in value:
            yield from engines_of(item)


def engines_of(value: Any) -> Iterator[Any]:
    """Return the engines that a value is, or is bound to."""
    if _is_a(value, "sqlalchemy.engine", "Engine"):
        yield value
    elif _is_a(value, "sqlalchemy.ext.asyncio", "AsyncEngine"):
        yield value.sync_engine
    elif _is_a(value, "sqlalchemy.orm", "scoped_session") or _is_a(
        value, "sqlalchemy.ext.asyncio", "async_scoped_session"
    ):
        yield from engines_of(value.session_factory)
    elif _is_a(value, "sqlalchemy.orm", "sessionmaker") or _is_a(
        value, "sqlalchemy.ext.asyncio", "async_sessionmaker"
    ):
        for bind in value.kw.get("bind"), *(value.kw.get("binds") or {}).values():
            yield from engines_of(bind)


def _is_a(value: object, module: str, name: str) -> bool:
    """Whether a value is an instance of a class, without importing its module."""
    found = getattr(sys.modules.get(module), name, None)
    return found is not None and issubclass(type(value), found)
