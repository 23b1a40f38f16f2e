"""What each task goes through when it is deferred, alone or in a canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..delivery.canvas import check_call, fix_arguments, nodes
from ..events import BeforeDeferTask, has_subscribers
from ..exceptions import DeferError

if TYPE_CHECKING:
    from celery import Task
    from pyramid.request import Request

    from ..delivery.canvas import Canvas
    from ..registry import Tasks


def notify(
    request: Request,
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tell subscribers of a call, and return its arguments as they leave them."""
    event = BeforeDeferTask(request, task, args, kwargs, options)
    request.registry.notify(event)
    return event.args, event.kwargs


def add_headers(options: dict[str, Any], headers: dict[str, str]) -> None:
    """Add headers to those that the options have, which win."""
    if headers:
        options["headers"] = {**headers, **(options.get("headers") or {})}


def prepare(
    request: Request, tasks: Tasks, canvas: Canvas, headers: dict[str, str]
) -> set[str]:
    """Prepare a canvas to be sent: each task in it, and each that is linked.

    Args:
        headers: Those of the context, which each task gets.

    Returns:
        The deliveries that its options ask for.

    Raises:
        TaskNotRegistered: The application has no such task.
        TypeError: A task cannot be called so.
    """
    deliveries = set()
    is_awaited = has_subscribers(request.registry, BeforeDeferTask)
    for node in nodes(canvas):
        signature = node.signature
        options = signature["options"]
        if node.is_task:
            task = tasks.find(signature["task"])
            add_headers(options, headers)
            if is_awaited:
                args = tuple(signature["args"])
                signature["args"], signature["kwargs"] = notify(
                    request, task, args, signature["kwargs"], options
                )
            check_call(node, task, tasks)
            fix_arguments(tasks.app, node)
        elif options.get("headers"):
            # Celery has them take the place of those of the tasks.
            add_headers(options, headers)
        if delivery := options.pop("delivery", None):
            deliveries.add(delivery)
    return deliveries


def one_delivery(deliveries: set[str], default: str | None) -> str | None:
    """Return the delivery of what goes out as a whole.

    Raises:
        DeferError: Several are asked for.
    """
    if len(deliveries) > 1:
        raise DeferError(
            f"What is deferred as a whole has one delivery, not several: "
            f"{', '.join(sorted(deliveries))}. Defer its tasks one by one, or with one "
            "delivery"
        )
    return deliveries.pop() if deliveries else default
