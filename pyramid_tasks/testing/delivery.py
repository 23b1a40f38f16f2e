"""The delivery that keeps tasks, and the tasks as a worker would get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import chain as make_chain
from celery.canvas import maybe_signature
from kombu.utils.functional import reprcall
from kombu.utils.json import loads

from ..deferring.call import serialize_arguments
from ..delivery.canvas import as_signature, copy, fix_ids, is_canvas, leaves
from ..delivery.results import deferred_result, freeze
from ..exceptions import CaptureError
from ..worker.contexts import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.request import Request

    from ..application import PyramidCelery
    from ..delivery.canvas import Canvas


# The options of Celery.send_task that say nothing about the task.
_OF_THE_SENDER = {
    *("add_to_parent", "connection", "producer", "publisher", "reply_to"),
    *("result_cls", "router", "task_type"),
}


@dataclass(frozen=True, eq=False, repr=False)
class CapturedTask:
    """A task that was deferred.

    Attributes:
        name: The name of the task.
        args: Its positional arguments, as they come out of the serializer again.
        kwargs: Its keyword arguments, likewise.
        options: The options that the task was deferred with, such as ``countdown``.
        headers: The headers of its message.
        id: The id of the task, which its result has too.
        canvas: The chain, group or chord that the task is a part of, or its own
            signature.
        func: The function that is registered under the name, or ``None``.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    headers: dict[str, Any]
    id: str
    canvas: Signature
    func: Callable[..., Any] | None

    @property
    def context(self) -> dict[str, Any]:
        """The values that the request hands to the task, by the name of the context."""
        return dict(loads(self.headers.get(HEADER, "{}")))

    def __repr__(self) -> str:
        return str(reprcall(self.name, self.args, self.kwargs))


class Captured:
    """A task, chain, group or chord, as a delivery got it.

    Attributes:
        result: The result for the caller.
        tasks: The tasks in it, in order, without the tasks that are linked to them.
        committed: Whether a worker would have got it.
        started: Whether it has been run.
        sent: Whether its result is there: it ran without an error.
        dropped: Whether its transaction was aborted.
    """

    def __init__(self, app: PyramidCelery, signature: Signature) -> None:
        self.signature = signature
        self.committed = False
        self.started = False
        self.sent = False
        self.dropped = False
        tasks = fix_ids(signature)
        # A copy, as Celery adds things to a frozen canvas that must not run here.
        result = freeze(as_signature(copy(signature), app))
        self.result = deferred_result(result, self)
        if not is_canvas(signature):
            # As Celery does: nobody waits for a result that is ignored.
            task = app.tasks.get(signature.task)
            default = getattr(task, "ignore_result", None)
            self.result.ignored = signature["options"].get("ignore_result", default)
        self.tasks = [_captured_task(app, task, signature) for task in tasks]

    def drop(self) -> None:
        """Take note that the transaction did not commit."""
        self.dropped = True


def _captured_task(app: PyramidCelery, task: Canvas, canvas: Signature) -> CapturedTask:
    name, options = task["task"], task["options"].copy()
    introspectable = app.registry.introspector.get("tasks", name)
    return CapturedTask(
        name=name,
        args=tuple(task["args"]),
        kwargs=task["kwargs"],
        id=options.pop("task_id"),
        headers=options.pop("headers", None) or {},
        options=options,
        canvas=canvas,
        func=introspectable["func"] if introspectable is not None else None,
    )


class CapturingDelivery:
    """Adds the tasks that it gets to a list."""

    is_transactional = False

    def __init__(self, app: PyramidCelery, captured: list[Captured]) -> None:
        self.app = app
        self.captured = captured

    def is_direct(self, _request: Request) -> bool:
        return False

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        captured = [Captured(self.app, each) for each in signatures]
        self.captured += captured
        self.keep(request, captured)
        return [each.result for each in captured]

    def keep(self, _request: Request, captured: list[Captured]) -> None:
        """Mark the tasks that have been committed."""
        for each in captured:
            each.committed = True

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        chain: Sequence[Any] | None = None,
        **options: Any,
    ) -> Any:
        """Capture a task in the place of ``Celery.send_task``."""
        if options.get("chord"):
            raise CaptureError(
                f"The chord with {name} in it, which Celery sends by itself, cannot be "
                "captured, as only a result backend knows when its body may run. Defer "
                "it with request.defer_canvas(), or test it with a worker."
            )
        own = {
            key: value
            for key, value in options.items()
            if value is not None and key not in _OF_THE_SENDER
        }
        signature = self.app.signature(
            name, tuple(args or ()), dict(kwargs or {}), **own
        )
        if chain:  # the rest of it, the next one last
            rest = [maybe_signature(each, app=self.app) for each in reversed(chain)]
            signature = make_chain(signature, *rest, app=self.app)
        for leaf in leaves(signature):
            serialize_arguments(self.app, leaf)
        return self.deliver(None, [signature])[0]
