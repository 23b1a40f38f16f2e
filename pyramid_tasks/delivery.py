"""How a deferred task reaches the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .exceptions import SettingError

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult
    from pyramid.request import Request

    from .registry import Tasks

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


def choose_delivery(tasks: Tasks, name: str | None) -> Delivery:
    """Return the delivery of a name, or that of the application.

    Raises:
        SettingError: There is no delivery of that name.
    """
    name = name or tasks.delivery
    try:
        return tasks.deliveries[name]
    except KeyError:
        known = ", ".join(sorted(tasks.deliveries))
        hint = (
            ' Call config.include("pyramid_tasks.contrib.pyramid_tm").'
            if name in {"commit", "outbox"}
            else ""
        )
        raise SettingError(
            "pyramid_tasks.delivery",
            f"= {name} is none of those known: {known}.{hint}",
        ) from None
