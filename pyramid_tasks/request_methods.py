"""``request.defer_task`` and the other names this package adds to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .events import BeforeDeferTask
from .registry import get_tasks
from .worker import TASK_ENVIRON_KEY

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery import Task
    from celery.result import AsyncResult
    from pyramid.request import Request

    TaskLike: TypeAlias = Callable[..., Any] | str | Task


def defer_task(
    request: Request, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
) -> AsyncResult:
    """Queue a task.

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

    Raises:
        As :func:`defer_task`.
    """
    tasks = get_tasks(request.registry)
    task = tasks.find(func_or_name)
    event = BeforeDeferTask(request, task, tuple(args), dict(kwargs or {}), options)
    request.registry.notify(event)
    deliver = tasks.get_delivery(options.pop("delivery", None))
    return deliver(request, task, event.args, event.kwargs, options)


def get_task_result(request: Request, task_id: str) -> AsyncResult:
    """Return the result of a task by its id, from the result backend.

    See `AsyncResult
    <https://docs.celeryq.dev/en/stable/reference/celery.result.html>`_.
    """
    return get_tasks(request.registry).app.AsyncResult(task_id)


def current_task(request: Request) -> Task | None:
    """Return the running task, or ``None`` in a view.

    The Celery task has the message as ``.request`` (``.request.id``,
    ``.request.retries``) and the methods ``.retry()`` and ``.update_state()``.
    """
    return request.environ.get(TASK_ENVIRON_KEY)
