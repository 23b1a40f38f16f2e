"""A message that a delivery keeps until the transaction commits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .canvas import as_signature, copy, fix_ids, is_canvas, leaves, nodes
from .immediate import route
from .result_backends import QuietBackend
from .results import DeferredResult, deferred_result, freeze

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import ResultBase

    from ..application import PyramidCelery
    from .canvas import Canvas, Node


class Message:
    """A task, chain, group or chord that is sent later.

    Args:
        app: The Celery application that sends.
        signature: The prepared call. This class fixes its ids, and its points in time.

    Attributes:
        signature: The call as it will be sent.
        id: The id of the result.
        sent: Whether it has been sent.
        dropped: Whether it will never be sent, as its transaction was aborted.

    Raises:
        NotImplementedError: The result backend cannot count the tasks of a chord.
        ValueError: The soft time limit of a task is longer than its time limit.
    """

    def __init__(self, app: PyramidCelery, signature: Signature) -> None:
        self.sent = False
        self.dropped = False
        self.signature = signature
        self._app = app
        parent = app.current_worker_task
        if parent and app.conf.task_inherit_parent_priority:
            _fix_priorities(app, parent.request, signature)
        for node in nodes(signature):
            if node.signature.get("subtask_type") == "chord":
                QuietBackend(app).ensure_chords_allowed()
            _check_limits(app, node)
            if node.is_first:
                _fix_times(app, node)
            # Celery looks for the parent when it sends, and that is outside the task.
            if parent:
                _fix_ancestors(parent.request, signature["options"], node)
        fix_ids(signature)
        if not is_canvas(signature):
            _fix_options(app, signature)
        self.result = self._result()
        self.id: str = self.result.id

    def drop(self) -> None:
        """Take note that the transaction did not commit."""
        self.dropped = True

    def add_to_parent(self) -> None:
        """Tell the task that defers of its child, as Celery does where that sends."""
        parent = self._app.current_worker_task
        if parent and self.signature["options"].get("add_to_parent", True):
            first = self.result
            while first.parent is not None:
                first = first.parent
            parent.add_trail(first)

    def _result(self) -> ResultBase:
        signature = self.signature
        if not is_canvas(signature):
            options = signature["options"]
            result = DeferredResult(options["task_id"], app=self._app)
            result.ignored = options.get("ignore_result")
            result.message = self
            return result
        # A copy, as Celery writes the body of a chord into each task of its header.
        # JSON would have the body as often as that.
        frozen = as_signature(copy(signature), self._app)
        with self._app.sending(backend=QuietBackend(self._app)):
            result = freeze(frozen, signature["options"].get("task_id"))
        return deferred_result(result, self)


def _check_limits(app: PyramidCelery, node: Node) -> None:
    """Refuse now what ``Task.apply_async`` refuses when it sends."""
    task: Any = app.tasks.get(node.signature["task"])
    soft = getattr(task, "soft_time_limit", None)
    hard = getattr(task, "time_limit", None)
    if soft and hard and soft > hard:
        raise ValueError(
            f"{task.name}: soft_time_limit must be less than or equal to time_limit"
        )


def _fix_times(app: PyramidCelery, node: Node) -> None:
    """Let times count from the moment of deferring, and not from the commit."""
    options: dict[str, Any] = node.signature["options"]
    now = datetime.now(UTC)
    if countdown := options.pop("countdown", None):
        options["eta"] = now + timedelta(seconds=countdown)
    expires = options.get("expires")
    if "expires" not in options and node.is_task:
        # The task as it is registered may say so.
        expires = getattr(app.tasks.get(node.signature["task"]), "expires", None)
    if isinstance(expires, (int, float)):
        options["expires"] = now + timedelta(seconds=expires)


def _fix_priorities(app: PyramidCelery, parent: Any, signature: Canvas) -> None:
    """Give tasks the priority of the task that defers them, where Celery would.

    Args:
        parent: The message of the task that defers.
    """
    priority = (parent.delivery_info or {}).get("priority")
    if priority is None:
        return
    for node in leaves(signature):
        call, options = node.signature, node.signature["options"]
        given = {**signature["options"], **options}
        if not node.is_first or (given.get("root_id") and given.get("parent_id")):
            continue
        own = getattr(app.tasks.get(call["task"]), "priority", None)
        if own is None and given.get("priority") is None:
            routed = route(app, call["task"], call["args"], call["kwargs"], options)
            if routed.get("priority") is None:
                options["priority"] = priority


def _fix_ancestors(parent: Any, whole: dict[str, Any], node: Node) -> None:
    """Name the task that defers, where neither the canvas nor the node names another.

    Args:
        parent: The message of the task that defers.
        whole: The options of the canvas.
    """
    options = node.signature["options"]
    given = {**whole, **options}
    options["root_id"] = given.get("root_id") or parent.root_id or parent.id
    if node.is_first:
        options["parent_id"] = given.get("parent_id") or parent.id


#: The options of a call that a task may have for all calls.
_TASK_OPTIONS = (
    *("queue", "exchange", "routing_key", "priority", "delivery_mode"),
    *("serializer", "compression", "time_limit", "soft_time_limit", "ignore_result"),
)


def _fix_options(app: PyramidCelery, call: Canvas) -> None:
    """Give a call the options of its task, which whoever sends it may not know."""
    task, options = app.tasks.get(call["task"]), call["options"]
    if task is None:
        return
    for name in _TASK_OPTIONS:
        if name not in options and (value := getattr(task, name, None)) is not None:
            options[name] = value
    if "shadow" not in options:
        shadow = task.shadow_name(call["args"], call["kwargs"], options)
        if shadow is not None:
            options["shadow"] = shadow
