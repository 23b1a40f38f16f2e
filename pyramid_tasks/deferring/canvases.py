"""``request.task_signature`` and ``request.defer_canvas``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas import Signature

from ..delivery.canvas import as_signature, copy
from ..exceptions import DeferError
from ..registry import get_tasks
from ..worker.contexts import context_headers
from .call import choose_delivery, prepare

if TYPE_CHECKING:
    from typing import Unpack

    from celery.result import ResultBase
    from pyramid.request import Request

    from ..typing import CallOptions, TaskLike


def defer_canvas(
    request: Request, canvas: Signature, **options: Unpack[CallOptions]
) -> ResultBase:
    """Queue a chain, a group, a chord or a signature, as a whole.

    Each task in the canvas has a :class:`~pyramid_tasks.BeforeDeferTask` event, and
    knows the context of this request, also if a worker sends the task later.

    One ``delivery`` sends the whole canvas. ``commit`` and ``outbox`` send all of it or
    nothing. They fix the ids of its tasks before the commit. They cannot fix the id of
    a group inside a chain: Celery makes a new one when it sends the chain.

    Celery runs a ``link_error`` with the id of the task that failed, or with what
    failed, as its signature says. If that task is in the header of a chord, the id is
    the id of the body.

    Args:
        canvas: A `canvas
            <https://docs.celeryq.dev/en/stable/userguide/canvas.html>`_ made of the
            results of :func:`task_signature`, or one of these results. It does not
            change, and can be queued again.
        options: As for :func:`.defer_task_with_options`, with the meaning that Celery
            gives them for a canvas. The option ``delivery`` of a task in the canvas
            counts for the whole, also if a subscriber sets it.

    Returns:
        The result of ``canvas.apply_async()``: for a chain and a chord the result of
        the last task, for a group a ``GroupResult``.

    Raises:
        DeferError: The argument is not a canvas, or the tasks in it name several
            deliveries.
        TypeError: A task in the canvas does not take its arguments, or does not take
            the result of the task before as its first one.
        Exception: The errors of :func:`.defer_task`.
    """
    if not isinstance(canvas, Signature):
        raise DeferError(
            f"{canvas!r} is not a canvas: give the result of request.task_signature(), "
            "or a chain, group or chord of them"
        )
    tasks = get_tasks(request.registry)
    name = options.pop("delivery", None)
    whole = copy(canvas)
    whole["options"].update(copy(options))
    headers = context_headers(tasks.contexts, request)
    deliveries = prepare(request, tasks, whole, headers)
    delivery = choose_delivery(tasks, deliveries, name)
    return delivery.deliver(request, [as_signature(whole, tasks.app)])[0]


def task_signature(
    request: Request, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
) -> Signature:
    """Return a task with arguments, as a part of a chain, group or chord.

    :func:`defer_canvas` queues the signature. See `Signatures
    <https://docs.celeryq.dev/en/stable/userguide/canvas.html#signatures>`_.

    Args:
        func_or_name: The task, as for :func:`.defer_task`.
        args: Positional arguments of the task, after the request. In a chain the result
            of the task before comes first.
        kwargs: Keyword arguments of the task.

    Returns:
        The signature, as Celery's ``task.s()`` makes it. ``.set(immutable=True)`` makes
        it as ``task.si()`` does.

    Raises:
        Exception: The errors of :func:`.defer_task` about the name of a task.
    """
    return get_tasks(request.registry).find(func_or_name).s(*args, **kwargs)
