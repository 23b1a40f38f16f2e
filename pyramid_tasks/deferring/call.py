"""Preparing a call: its headers, ``BeforeDeferTask``, the checks, its delivery."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature
from kombu.serialization import dumps, loads

from .._celery import dump_models, takes_error
from .._kombu import raise_limit
from ..configuration.call_options import (
    CALL_OPTIONS,
    check_options,
    misspelt_options,
)
from ..delivery.canvas import nodes
from ..events import BeforeDeferTask, has_subscribers
from ..exceptions import DeferError
from ..registry import check_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery, Task
    from pyramid.request import Request

    from ..delivery.canvas import Canvas, Node
    from ..registry import Delivery, Tasks

#: Tasks of Celery that call another task for each item, and how.
_MAPS = {"celery.map": lambda item: (item,), "celery.starmap": tuple}

_SCALARS = {str, float, bool, NoneType}
_HUGE = 2**63


def prepare(
    request: Request, tasks: Tasks, canvas: Canvas, headers: dict[str, str]
) -> set[str]:
    """Prepare the calls of a canvas, and of the tasks that are linked to it.

    Args:
        canvas: The canvas, which this changes in place.
        headers: The message headers with the context, for each task.

    Returns:
        The deliveries that the options of the canvas and its tasks name.

    Raises:
        TaskNotRegistered: The application has no such task.
        TypeError: A task does not take its arguments.
        DeferError: A serializer cannot hold the arguments, or an option cannot be used.
    """
    deliveries = set()
    for node in nodes(canvas):
        options = node.signature["options"]
        if node.is_task:
            task = tasks.find(node.signature["task"])
            announce(request, task, node.signature, headers)
            check_call(node, task, tasks)
        else:
            check_values(node.signature["task"], options)
            if options.get("headers"):
                # Celery puts these in the place of the headers of the tasks.
                options["headers"] = {**headers, **options["headers"]}
            own = next(nodes({**node.signature, "kwargs": {}}))
            serialize_arguments(tasks.app, own)  # a chord gives them to its header
            node.signature["args"] = own.signature["args"]
        if delivery := options.pop("delivery", None):
            deliveries.add(delivery)
    return deliveries


def announce(
    request: Request, task: Task, call: Canvas, headers: dict[str, str]
) -> None:
    """Add the headers to the options of a call, and notify subscribers of the call.

    Raises:
        DeferError: An option is misspelt, or its value cannot be used.
    """
    options = call["options"]
    if options:
        check_values(task.name, options)
    if headers:
        options["headers"] = {**headers, **(options.get("headers") or {})}
    if has_subscribers(request.registry, BeforeDeferTask):
        args = tuple(call["args"])
        event = BeforeDeferTask(request, task, args, call["kwargs"], options)
        request.registry.notify(event)
        call["args"], call["kwargs"] = event.args, event.kwargs
        check_values(task.name, options)
    if not options.keys() <= CALL_OPTIONS:
        _check_names(task, options)


def check_values(name: str, options: dict[str, Any]) -> None:
    """Check the values of the options of a call, before anything is sent or stored.

    Raises:
        DeferError: Celery cannot use a value.
    """
    try:
        check_options(options)
    except ValueError as error:
        raise DeferError(
            f"{name} was deferred with an option that Celery cannot use: {error}"
        ) from None


def _check_names(task: Task, options: dict[str, Any]) -> None:
    """Check the options that are none of Celery's.

    A router of the application can read options of its own, and a stamp is one.

    Raises:
        DeferError: An option is misspelt.
    """
    from celery.app.routes import MapRoute  # slow, for a web process

    if all(isinstance(router, MapRoute) for router in task.app.amqp.routes):
        stamps = options.get("stamped_headers") or ()
        for option, near in misspelt_options(options.keys() - {*stamps}):
            raise DeferError(
                f"{task.name} was deferred with the option {option!r}, which nobody "
                f"reads. Did you mean {near!r}?"
            )


def check_call(node: Node, task: Task, tasks: Tasks) -> None:
    """Check the arguments of a call as far as they are known, and serialize them.

    Celery does so for a task that it sends at once, and not for the others.

    Raises:
        TaskNotRegistered: The call maps a task that the application does not have.
        TypeError: The task does not take the arguments.
        DeferError: The serializer of the task cannot hold the arguments.
    """
    call = node.signature
    if task.name in _MAPS:
        mapped = tasks.find(call["kwargs"]["task"]["task"])
        for item in call["kwargs"]["it"]:
            check_arguments(mapped, _MAPS[task.name](item), {})
        # As map.apply_async() does, for the routes of the task.
        call["options"].setdefault("route_name", mapped.name)
    else:
        before = node.results_before
        if before and node.is_errback:
            errback = Signature.from_dict(call, app=tasks.app)
            before = (None,) * (3 if takes_error(task, errback) else 1)
        check_arguments(task, (*before, *call["args"]), call["kwargs"])
    serialize_arguments(tasks.app, node)


def serialize_arguments(app: Celery, node: Node) -> None:
    """Give a call its arguments as a worker gets them: independent of the caller's.

    Raises:
        DeferError: The serializer of the task cannot hold the arguments.
    """
    call, before = node.signature, node.results_before
    name = call["task"]
    task = app.tasks.get(name)
    args, kwargs = dump_models(task, (*before, *call["args"]), call["kwargs"])
    default = app.conf.task_serializer if task is None else task.serializer
    serializer = call["options"].get("serializer") or default
    own = list(args)[len(before) :]
    if serializer == "json" and _is_flat(own, kwargs):
        call["args"], call["kwargs"] = own, dict(kwargs)
        return
    try:
        content_type, encoding, body = dumps((own, kwargs), serializer)
        call["args"], call["kwargs"] = loads(
            body, content_type, encoding, accept={content_type}
        )
    except Exception as error:
        raise_limit(error)  # of the task that defers
        raise DeferError(
            f"The arguments of {name} cannot be sent as {serializer}: {error}"
        ) from error


def _is_flat(args: list[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether JSON gives arguments back as they are, which needs no trial."""
    are_names = all(type(key) is str for key in kwargs)
    return are_names and all(map(_is_scalar, (*args, *kwargs.values())))


def _is_scalar(value: Any) -> bool:
    # Python refuses to write an integer with very many digits.
    return type(value) in _SCALARS or (type(value) is int and abs(value) < _HUGE)


def choose_delivery(tasks: Tasks, names: set[str], default: str | None) -> Delivery:
    """Return the delivery of calls that are deferred together.

    Args:
        names: The deliveries that the calls name.
        default: The name of the delivery if they name none.

    Raises:
        DeferError: The calls name several.
        SettingError: There is no delivery of that name.
    """
    if len(names) > 1:
        raise DeferError(
            "Tasks that are deferred together have one delivery, not several: "
            f"{', '.join(sorted(names))}. Defer them one by one, or with one delivery"
        )
    return tasks.get_delivery(names.pop() if names else default)
