"""``request.defer_task`` and the other methods this package adds to a request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast, overload

from celery.utils import uuid
from kombu.exceptions import EncodeError

from .._kombu import raise_limit
from ..delivery.canvas import copy, nodes
from ..delivery.results import DeferredGroupResult
from ..exceptions import DeferError
from ..registry import get_tasks
from ..worker.contexts import context_headers
from .call import announce, check_call, check_values, choose_delivery, prepare
from .canvases import defer_canvas

if TYPE_CHECKING:
    from typing import Concatenate, Unpack

    from celery.result import AsyncResult, GroupResult
    from pyramid.request import Request

    from ..typing import (
        AnyRequest,
        AnyTask,
        CallOptions,
        P,
        R,
        RequestT,
        TaskLike,
        TaskT,
    )


@overload
def defer_task(
    request: AnyRequest,
    func_or_name: Callable[Concatenate[RequestT, P], Coroutine[Any, Any, R]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> AsyncResult[R]: ...
@overload
def defer_task(
    request: AnyRequest,
    func_or_name: Callable[Concatenate[TaskT, RequestT, P], Coroutine[Any, Any, R]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> AsyncResult[R]: ...
@overload
def defer_task(
    request: AnyRequest,
    func_or_name: Callable[Concatenate[RequestT, P], R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> AsyncResult[R]: ...
@overload
def defer_task(
    request: AnyRequest,
    func_or_name: Callable[Concatenate[TaskT, RequestT, P], R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> AsyncResult[R]: ...
@overload
def defer_task(
    request: AnyRequest, func_or_name: str | AnyTask, /, *args: Any, **kwargs: Any
) -> AsyncResult[Any]: ...
def defer_task(
    request: AnyRequest, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
) -> AsyncResult[Any]:
    """Queue a task.

    The method is ``request.defer_task(...)``. The function
    ``pyramid_tasks.defer_task(request, ...)`` does the same, and type checkers check
    its arguments also if the request is not annotated with
    :class:`~pyramid_tasks.typing.RequestWithTasks`.

    Args:
        func_or_name: The function of the task, its dotted name, the registered name
            of the task, or the Celery task.
        args: The positional arguments of the task, after the request.
        kwargs: The keyword arguments of the task.

    Returns:
        The result. :func:`get_task_result` finds it by its ``id``.

    Raises:
        TaskNotRegistered: The application has no such task.
        AmbiguousTask: The function is registered under several names.
        TypeError: The task does not take these arguments. It is a :class:`.DeferError`
            if the serializer does not, where the task waits for a commit.
        kombu.exceptions.EncodeError: The serializer does not take the arguments, where
            the task is sent at once.
        kombu.exceptions.OperationalError: The broker cannot be reached.
    """
    return defer_task_with_options(request, func_or_name, args, kwargs)


def defer_task_with_options(
    request: Request,
    func_or_name: TaskLike,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[CallOptions],
) -> AsyncResult:
    """Queue a task with options such as ``countdown``, ``queue`` or ``priority``.

    Args:
        func_or_name: The task, as for :func:`defer_task`.
        args: The positional arguments of the task, after the request.
        kwargs: The keyword arguments of the task.
        options: The options of `Task.apply_async
            <https://docs.celeryq.dev/en/stable/reference/celery.app.task.html>`_,
            and ``delivery``: ``immediate``, or with
            ``pyramid_tasks.contrib.pyramid_tm`` ``commit`` or ``outbox``.

    Raises:
        DeferError: An option is misspelt or its value cannot be used, the call cannot
            be kept until the commit, or its linked tasks cannot be called.
        Exception: The errors of :func:`defer_task`.
    """
    tasks = get_tasks(request.registry)
    task = tasks.find(func_or_name)
    if "link" in options or "link_error" in options:
        signature = task.signature(tuple(args), dict(kwargs or {}), **options)
        return defer_canvas(request, signature)
    call = {"args": tuple(args), "kwargs": dict(kwargs or {}), "options": options}
    announce(request, task, call, context_headers(tasks.contexts, request))
    delivery = tasks.get_delivery(options.pop("delivery", None))
    if delivery.is_direct(request):
        try:
            return task.apply_async(call["args"], call["kwargs"], **options)
        except EncodeError as error:
            raise_limit(error)
            raise
    signature = task.signature(call["args"], call["kwargs"], **options)
    check_call(next(nodes(signature)), task, tasks)
    return delivery.deliver(request, [signature])[0]


def defer_tasks(
    request: Request,
    func_or_name: TaskLike,
    iterable: Iterable[tuple[Any, ...] | Mapping[str, Any]],
    **options: Unpack[CallOptions],
) -> GroupResult:
    """Queue many calls of one task at once.

    The calls are sent in order, through one connection to the broker. The delivery
    ``outbox`` stores up to 1,000 calls by one INSERT, except in SQLite and MySQL.

    Args:
        func_or_name: The task, as for :func:`defer_task`.
        iterable: For each call, a tuple of positional arguments or a dictionary of
            keyword arguments.
        options: The options of each call, as for :func:`defer_task_with_options`.

    Returns:
        The results, in the order of the calls.

    Raises:
        DeferError: The task cannot be called with an item. Nothing is queued.
        Exception: The errors of :func:`defer_task`.
    """
    tasks = get_tasks(request.registry)
    task = tasks.find(func_or_name)
    check_values(task.name, cast("dict[str, Any]", options))
    name = options.pop("delivery", None)
    headers = context_headers(tasks.contexts, request)
    deliveries: set[str] = set()
    signatures = []
    for number, item in enumerate(iterable):
        if isinstance(item, tuple):
            args, kwargs = item, {}
        elif isinstance(item, Mapping):
            args, kwargs = (), dict(item)
        else:
            raise DeferError(
                f"Item {number} for {task.name} must be a tuple of positional "
                f"arguments, such as ({item!r},), or a dictionary of keyword arguments"
            )
        signature = task.signature(args, kwargs, **copy(options))
        try:
            deliveries |= prepare(request, tasks, signature, headers)
        except TypeError as error:
            raise DeferError(f"Item {number} for {task.name}: {error}") from error
        signatures.append(signature)
    delivery = choose_delivery(tasks, deliveries, name)
    results = delivery.deliver(request, signatures)
    return DeferredGroupResult(uuid(), results, app=tasks.app)


def get_task_result(request: Request, task_id: str) -> AsyncResult:
    """Return the result of a task by the id of the task.

    Args:
        task_id: The ``id`` of the result that :func:`defer_task` returned.

    Returns:
        An `AsyncResult
        <https://docs.celeryq.dev/en/stable/reference/celery.result.html>`_, which asks
        the result backend. An id that the backend does not know is ``PENDING``.
    """
    return get_tasks(request.registry).app.AsyncResult(task_id)
