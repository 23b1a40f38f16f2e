"""``request.defer_task`` and the other names this package adds to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

from celery.canvas import Signature
from celery.utils import uuid

from ..delivery.canvas import Node, as_signature, copy
from ..delivery.results import DeferredGroupResult
from ..exceptions import DeferError
from ..registry import get_tasks
from ..worker.contexts import context_headers
from .call import announce, check_call, choose_delivery, prepare

if TYPE_CHECKING:
    from typing import Concatenate

    from celery.result import AsyncResult, GroupResult, ResultBase
    from pyramid.request import Request

    from ..typing import AnyRequest, AnyTask, P, R, RequestT, TaskLike, TaskT


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

    The method ``request.defer_task``, and ``pyramid_tasks.defer_task(request, ...)``
    for those who want type checkers to check the arguments without annotating the
    request with :class:`~pyramid_tasks.typing.RequestWithTasks`.

    Args:
        func_or_name: The task: its function, dotted name, registered name or the
            Celery task.
        args: The positional arguments of the task, after the request.
        kwargs: The keyword arguments of the task.

    Returns:
        The result, whose ``id`` names it to :func:`get_task_result`.

    Raises:
        TaskNotRegistered: The application has no such task.
        AmbiguousTask: The function is registered under several names.
        TypeError: The arguments are not those of the task.
        kombu.exceptions.OperationalError: The broker cannot be reached.
    """
    return defer_task_with_options(request, func_or_name, args, kwargs)


def defer_task_with_options(
    request: Request,
    func_or_name: TaskLike,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
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

    Returns and raises what :func:`defer_task` does.
    """
    tasks = get_tasks(request.registry)
    task = tasks.find(func_or_name)
    if "link" in options or "link_error" in options:
        delivery = options.pop("delivery", None)
        signature = task.signature(tuple(args), dict(kwargs or {}), **options)
        return defer_canvas(request, signature, delivery=delivery)
    call = {"args": tuple(args), "kwargs": dict(kwargs or {}), "options": options}
    announce(request, task, call, context_headers(tasks.contexts, request))
    delivery = tasks.get_delivery(options.pop("delivery", None))
    if delivery.is_direct(request):
        return task.apply_async(call["args"], call["kwargs"], **options)
    signature = task.signature(call["args"], call["kwargs"], **options)
    check_call(Node(signature, is_first=True), task, tasks)
    return delivery.deliver(request, [signature])[0]


def defer_tasks(
    request: Request,
    func_or_name: TaskLike,
    iterable: Iterable[tuple[Any, ...] | Mapping[str, Any]],
    **options: Any,
) -> GroupResult:
    """Queue many calls of one task at once.

    They go through one connection to the broker, one after the other. By ``outbox``
    they are one INSERT, where SQLAlchemy can do that: not for SQLite.

    Args:
        func_or_name: The task, as for :func:`defer_task`.
        iterable: For each call, a tuple of positional arguments or a dictionary of
            keyword arguments.
        options: Those of each call, as for :func:`defer_task_with_options`.

    Returns:
        The results, in the order of the calls.

    Raises:
        TypeError: An item is not such, or has other arguments than the task; nothing is
            queued. What else :func:`defer_task` raises, this does too.
    """
    tasks = get_tasks(request.registry)
    task = tasks.find(func_or_name)
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


def defer_canvas(request: Request, canvas: Signature, **options: Any) -> ResultBase:
    """Queue a chain, a group, a chord or a signature, as a whole.

    Subscribers of :class:`~pyramid_tasks.BeforeDeferTask` are told of each task in it,
    and each task knows the context of this request, also those that workers send later.

    All of it is sent by one ``delivery``; by ``commit`` and ``outbox`` all or nothing.
    The ids of its tasks are fixed then, before the commit. That of a group inside a
    chain is not, as Celery makes a new one when it sends the chain; those of the tasks
    in that group are.

    A ``link_error`` is called with the id of the task that failed; where that is one of
    the header of a chord, with the id of its body.

    Args:
        canvas: What :func:`task_signature` returns, or was made of it; see `Canvas
            <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_. It stays as
            it is and can be queued again.
        options: As for :func:`defer_task_with_options`; what they mean for a canvas,
            Celery says. What a task in it has as ``delivery``, or is given by a
            subscriber, counts for the whole.

    Returns:
        What ``canvas.apply_async()`` returns: for a chain and a chord the result of the
        last task, for a group a ``GroupResult``.

    Raises:
        TypeError: It is no canvas, or a task in it cannot be called so, with the result
            of the task before as its first argument. What else :func:`defer_task`
            raises, this does too.
    """
    if not isinstance(canvas, Signature):
        raise DeferError(
            f"{canvas!r} is no canvas: give a signature, as request.task_signature() "
            "returns, or a chain, group or chord of such"
        )
    tasks = get_tasks(request.registry)
    name = options.pop("delivery", None)
    whole = copy(canvas)
    whole["options"].update(copy(options))
    deliveries = prepare(
        request, tasks, whole, context_headers(tasks.contexts, request)
    )
    delivery = choose_delivery(tasks, deliveries, name)
    return delivery.deliver(request, [as_signature(whole, tasks.app)])[0]


def task_signature(
    request: Request, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
) -> Signature:
    """Return a task with arguments, to make a chain, group or chord of.

    :func:`defer_canvas` queues it. See `Signatures
    <https://docs.celeryq.dev/en/stable/userguide/canvas.html#signatures>`_.

    Args:
        func_or_name: The task, as for :func:`defer_task`.
        args: Positional arguments of the task, after the request and, in a chain, after
            the result of the task before; all or some.
        kwargs: Keyword arguments of the task.

    Returns:
        What Celery's ``task.s()`` returns; ``.set(immutable=True)`` makes it what
        ``task.si()`` returns.

    Raises:
        TaskNotRegistered: The application has no such task.
        AmbiguousTask: The function is registered under several names.
    """
    return get_tasks(request.registry).find(func_or_name).s(*args, **kwargs)


def get_task_result(request: Request, task_id: str) -> AsyncResult:
    """Return the result of a task by its id, from the result backend.

    See `AsyncResult
    <https://docs.celeryq.dev/en/stable/reference/celery.result.html>`_.
    """
    return get_tasks(request.registry).app.AsyncResult(task_id)
