"""How a deferred task reaches the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult
    from pyramid.request import Request

#: ``deliver(request, task, args, kwargs, options)`` queues a task, now or later.
Delivery = Callable[
    ["Request", "Task", tuple[Any, ...], dict[str, Any], dict[str, Any]], "AsyncResult"
]


def deliver_immediately(
    _request: Request,
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> AsyncResult:
    """Queue a task at once."""
    return task.apply_async(args, kwargs, **options)
