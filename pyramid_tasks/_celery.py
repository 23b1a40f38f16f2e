"""The names of Celery that its documentation does not have.

Nothing else in the package uses a private name of Celery. Each name says why it is
needed. They were tried on Celery 5.3 to 5.7; ``tests/test_private_names.py`` fails when
a new version changes one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from celery import _state
from celery.app import base

# Celery reads the setting names of Celery 3 too, and only this table has them.
from celery.app.defaults import _TO_NEW_KEY as NEW_SETTING_NAMES
from celery.app.defaults import NAMESPACES, flatten
from celery.backends.base import Backend
from celery.utils.functional import arity_greater

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.canvas import Signature

__all__ = ["NEW_SETTING_NAMES", "SETTING_TYPES"]

# Celery's own documentation gives these types that its table does not.
_MISDECLARED = {
    "broker_use_ssl": "bool or dict",
    "cassandra_auth_kwargs": "dict",
    "cassandra_port": "int",
    "task_default_delivery_mode": "any",
    "task_default_priority": "int",
    "worker_concurrency": "int or auto",
}


def _type_name(declared: object) -> str:
    # One of Celery's types is a class, and one is "str" where the rest say "string".
    name = declared.__name__ if isinstance(declared, type) else str(declared)
    return {"str": "string"}.get(name, name)


#: The type of each setting, as Celery names the type.
SETTING_TYPES = {
    name: _MISDECLARED.get(name, _type_name(option.type))
    for name, option in flatten(NAMESPACES)
}


def has_daemon_options() -> bool:
    """Whether Celery reads settings such as ``worker_logfile``; older ones do not."""
    from celery.bin import base  # slow, for a web process

    return hasattr(base, "DaemonOption")


@contextmanager
def as_current_app(app: Celery) -> Iterator[None]:
    """Make an application the current one of this thread.

    ``app.set_current()`` cannot be undone: ``get_current_app()`` makes an application
    if there was none before.
    """
    thread = _state._tls
    before, thread.current_app = thread.current_app, app
    try:
        yield
    finally:
        thread.current_app = before


@contextmanager
def keeping_state() -> Iterator[None]:
    """Undo what a worker in a thread changes in the state of the process."""
    from unittest import mock  # only tests need it, and it imports asyncio

    with ExitStack() as stack:
        for owner, name in (
            (_state, "default_app"),
            (_state, "_task_join_will_block"),
            (_state._tls, "current_app"),
        ):
            kept = mock.patch.object(owner, name, getattr(owner, name))
            stack.enter_context(kept)
        yield


def active_apps() -> list[Celery]:
    """Return the applications of this process, in no order."""
    return list(_state._get_active_apps())


def new_backend(app: Celery) -> Any:
    """Return a new result backend; the users of ``app.backend`` share one."""
    return app._get_backend()


def own_backend(app: Celery) -> Any:
    """Return the result backend that an application has made, or ``None``.

    Celery asks for ``app.backend`` several times for each task. This is the shortest
    way to it.
    """
    return app._backend


def set_transport_options(backend: Any, options: dict[str, Any]) -> None:
    """Give a result backend of Redis other options than its application has.

    Celery takes the options for sentinels from there and from nowhere else.
    """
    backend._transport_options = options


def renew_backend(app: Celery) -> list[Any]:
    """Make an application of a process that was forked set up its result backend anew.

    Celery does so only where multiprocessing forks, and not for Redis. A result that
    the parent has deferred unsubscribes when it is freed, through the old backend: so
    that has no connection either.

    Returns:
        The objects that have the connections of the parent.
    """
    backend = app._backend
    inherited = [backend, app._local]
    if hasattr(backend, "result_consumer"):
        inherited += [backend.result_consumer, backend.__dict__.pop("client", None)]
        backend.result_consumer = backend.ResultConsumer(
            backend,
            app,
            backend.accept,
            backend._pending_results,
            backend._pending_messages,
        )
    app._backend_cache, app._local = None, threading.local()
    # rpc:// has a queue for the results of each process, named after this.
    app.__dict__.pop("oid", None)
    return inherited


def set_app(signature: Signature, app: Celery) -> None:
    """Make a signature send through an application.

    ``Signature.clone(app=...)`` would copy the signature, and not reach those inside.
    """
    signature._app = app


def is_celerys(apply_async: Callable[..., Any]) -> bool:
    """Whether an ``apply_async`` is Celery's own, which calls ``send_task``.

    A base class can have another, and tracers wrap Celery's.
    """
    is_own = apply_async.__module__ == "celery.app.task"
    return is_own and not hasattr(apply_async, "__wrapped__")


def dump_models(
    task: Task | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with dictionaries in place of their pydantic models.

    Celery 5.7 does so when it sends a task. Earlier versions have no such function.
    """
    dump = getattr(task, "_dump_pydantic_arguments", None)
    return dump(args, kwargs) if dump else (args, kwargs)


def dump_result(
    task: Task, func: Callable[..., Any], result: Any, options: dict[str, Any]
) -> Any:
    """Return what Celery makes of a return value: with ``pydantic=True``, no model.

    Celery does so outside of the function that it was given. Earlier versions than 5.5
    do not.

    Args:
        func: The function as it was registered, which has the annotation of the value.
    """
    wrap = getattr(base, "pydantic_wrapper", None)
    if wrap is None or options.get("pydantic") is not True:
        return result

    def returned(value: Any) -> Any:
        return value

    try:
        hints = get_type_hints(func)
    except (NameError, TypeError):  # as for Celery: the annotation as it stands
        hints = getattr(func, "__annotations__", {})
    returned.__annotations__ = {"return": hints.get("return")}
    dump_kwargs = options.get("pydantic_dump_kwargs")
    return wrap(task.app, returned, task.name, dump_kwargs=dump_kwargs)(result)


def takes_error(task: Task, errback: Signature) -> bool:
    """Whether Celery calls a ``link_error`` with the request, the error, the traceback.

    If not, Celery sends it with the id of the task that failed, as it always does for a
    bound task.
    """
    header = getattr(task, "__header__", None)
    if header is None or isinstance(header, partial):
        return False
    # Celery 5.7 counts the arguments that the signature does not have yet.
    count = getattr(Backend, "_errback_arity_greater", None)
    return bool(count(None, errback, 1) if count else arity_greater(header, 1))


@contextmanager
def without_caches(app: Celery) -> Iterator[None]:
    """Make an application set up its pools and its result backend anew, for a while.

    Celery sets them up once from the settings, and has no way to do so again.
    """
    from unittest import mock  # only tests need it, and it imports asyncio

    with ExitStack() as stack:
        for owner, name, value in (
            (app, "_pool", None),
            (app.amqp, "_producer_pool", None),
            (app, "_backend_cache", None),
            (app, "_local", threading.local()),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
