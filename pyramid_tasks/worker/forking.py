"""A forked process must not share connections with its parent, whoever forks it.

And a fork waits for threads that do what the child could not complete.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .._celery import active_apps, renew_backend
from .._kombu import renew_pools
from ..application import PyramidCelery

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine, Pool

logger = logging.getLogger(__name__)

#: The key of the registry that has the arguments of ``config.add_fork_safe``.
KEY = "pyramid_tasks.fork_safe"


@cache
def watch_forks() -> None:
    """Make the children of this process leave its connections to it."""
    os.register_at_fork(before=_before_fork, after_in_child=_leave_all_to_parent)
    # By itself, so that an error of the other hooks does not keep the locks.
    os.register_at_fork(
        before=_acquire_locks,
        after_in_parent=_release_locks,
        after_in_child=_release_locks,
    )
    # Only a process of uWSGI has this module. uWSGI forks without Python's hooks.
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None:
        _watch_uwsgi(uwsgi)


def _before_fork() -> None:
    """Warn of connections in use, as the child cannot: the locks of pools are dead."""
    import ctypes  # noqa: F401 for the child, which imports nothing

    for app in _own_apps():
        for engine in _engines_to_leave(app.registry):
            pool: Any = engine.pool
            in_use = pool.checkedout() if hasattr(pool, "checkedout") else 0
            if in_use:
                logger.warning(
                    "%d connections of %r are in use while this process is forked. "
                    "The child shares them with its parent if it uses them: return "
                    "them to the engine before the fork.",
                    in_use,
                    engine,
                )


def _watch_uwsgi(uwsgi: Any) -> None:
    import ctypes  # noqa: F401 as before other forks

    before = getattr(uwsgi, "post_fork_hook", lambda: None)

    def after_fork() -> None:
        _leave_all_to_parent()
        before()

    try:
        # The application may import this module later, which replaces the hook.
        postfork = import_module("uwsgidecorators").postfork
    except Exception:  # noqa: BLE001 not installed, or uWSGI has no master process
        uwsgi.post_fork_hook = after_fork
    else:
        is_kept = uwsgi.post_fork_hook is before
        postfork(_leave_all_to_parent if is_kept else after_fork)


def _own_apps() -> list[PyramidCelery]:
    # Celery has weak references to them.
    return [app for app in active_apps() if isinstance(app, PyramidCelery)]


def _leave_all_to_parent() -> None:
    """Make a forked process forget all connections that it inherited.

    No lock is acquired, as the thread that has it may not be in this process, and
    nothing is imported. Python prints an error of this function, and goes on.
    """
    inherited = renew_pools()
    for app in _own_apps():
        app.fork_error = None
        inherited += app.limited_backends.values()
        app.limited_backends.clear()
        try:
            inherited += renew_backend(app)
            inherited += leave_to_parent(app.registry)
        except Exception as error:
            app.fork_error = error
            logger.critical(
                "Leaving connections to the parent process failed", exc_info=True
            )
    # At its end, the process must not free them either. A driver may close a connection
    # that nobody refers to any more, and the parent suffers: mysqlclient says goodbye
    # to the server, and asyncpg takes it off the selector that both processes share.
    ctypes = sys.modules["ctypes"]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def leave_to_parent(registry: Registry) -> list[Pool]:
    """Make a forked process forget the connections of an application.

    Returns:
        The pools of these connections.
    """
    inherited = []
    for engine in _engines_to_leave(registry):
        inherited.append(engine.pool)
        engine.dispose(close=False)
    for dispose in registry.get(KEY, ()):
        if not any(engines_of(dispose)):
            dispose(registry)
    return inherited


def _engines_to_leave(registry: Registry) -> list[Engine]:
    return [
        engine
        for engine in dict.fromkeys(_engines_on(registry))
        # A fork copies a database in memory.
        if engine.dialect.name != "sqlite" or engine.url.database
    ]


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
            for item in list(inside):
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


class ForkLock:
    """A lock that a process waits for before it forks.

    A thread has it while it does what a fork must not interrupt: a module that the
    thread is importing, for example, would never be complete in the child. The thread
    that has the lock may fork all the same.

    Args:
        timeout: For how many seconds a fork waits.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.RLock()
        self._process = os.getpid()
        _fork_locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire_to_fork(self) -> bool:
        """Wait for the lock, and return whether it is to be released after the fork."""
        # A fork copies a lock, but not the thread that has it.
        is_own = self._process == os.getpid()
        return is_own and self._lock.acquire(timeout=self._timeout)


_fork_locks: WeakSet[ForkLock] = WeakSet()
_acquired: list[ForkLock] = []


def _acquire_locks() -> None:
    _acquired.extend(lock for lock in list(_fork_locks) if lock.acquire_to_fork())


def _release_locks() -> None:
    while _acquired:
        _acquired.pop().__exit__()
