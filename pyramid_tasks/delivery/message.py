"""What is deferred in a transaction, as it will be sent."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from .canvas import nodes
from .result_backends import QuietBackend
from .results import deferred

if TYPE_CHECKING:
    from celery.canvas import Signature

    from ..application import PyramidCelery


class Message:
    """A task, chain, group or chord as it will be sent.

    Independent of what the caller keeps: everything that can be wrong with it is found
    when this is made, in the code that defers it.

    Attributes:
        signature: What is sent: with the arguments as a worker will get them, points in
            time in place of delays, and ids.
        result: What the caller gets.
        sent: Whether it has been sent.
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
        # As Celery does when it sends, which a relay does outside the task.
        if parent := app.current_worker_task:
            ids["root_id"] = parent.request.root_id or parent.request.id
            ids["parent_id"] = parent.request.id
        with app.sending(backend=backend):
            result = signature.freeze(signature.options.get("task_id"), **ids)
        self.result = deferred(result, self)


def _fix_times(options: dict[str, Any]) -> None:
    """Count from now, not from the commit."""
    now = datetime.now(timezone.utc)
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), (int, float)):
        options["expires"] = now + timedelta(seconds=expires)
