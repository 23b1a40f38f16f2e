"""A message that a delivery keeps until the transaction commits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .canvas import nodes
from .result_backends import QuietBackend
from .results import deferred_result, freeze

if TYPE_CHECKING:
    from celery.canvas import Signature

    from ..application import PyramidCelery


class Message:
    """A task, chain, group or chord that is sent later.

    Args:
        app: The Celery application that sends.
        signature: The prepared call. This class fixes its ids, and its points in time.

    Attributes:
        signature: The call as it will be sent.
        result: The result for the caller.
        sent: Whether it has been sent.

    Raises:
        NotImplementedError: The result backend cannot count the tasks of a chord.
    """

    def __init__(self, app: PyramidCelery, signature: Signature) -> None:
        self.sent = False
        self.signature = signature
        backend = QuietBackend(app)
        for node in nodes(signature):
            if node.signature.get("subtask_type") == "chord":
                backend.ensure_chords_allowed()
            if node.is_first:
                _fix_times(node.signature["options"])
        ids = {}
        # Celery looks for the parent when it sends, and a relay sends outside the task.
        if parent := app.current_worker_task:
            ids["root_id"] = parent.request.root_id or parent.request.id
            ids["parent_id"] = parent.request.id
        with app.sending(backend=backend):
            result = freeze(signature, signature.options.get("task_id"), **ids)
        self.result = deferred_result(result, self)


def _fix_times(options: dict[str, Any]) -> None:
    """Make times that count from now of times that would count from the commit."""
    now = datetime.now(UTC)
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), (int, float)):
        options["expires"] = now + timedelta(seconds=expires)
