"""What is deferred in a transaction, as it will be sent."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from kombu.serialization import dumps, loads

from ..canvas import leaves
from ..results import deferred

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature


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

    def __init__(self, app: Celery, signature: Signature) -> None:
        self.sent = False
        self.signature = signature
        for leaf in leaves(signature):
            _fix_arguments(app, leaf.signature)
            if leaf.is_first:
                _fix_times(leaf.signature["options"])
        _fix_times(signature.options)
        ids = {}
        # As Celery does when it sends, which a relay does outside the task.
        if parent := app.current_worker_task:
            ids["root_id"] = parent.request.root_id or parent.request.id
            ids["parent_id"] = parent.request.id
        self.result = deferred(signature.freeze(**ids), self)


def _fix_arguments(app: Celery, signature: dict[str, Any]) -> None:
    task = app.tasks[signature["task"]]
    args, kwargs = tuple(signature["args"]), signature["kwargs"]
    # Celery 5.7 and later send pydantic models as dictionaries.
    if dump := getattr(task, "_dump_pydantic_arguments", None):
        args, kwargs = dump(args, kwargs)
    serializer = signature["options"].get("serializer") or task.serializer
    content_type, encoding, body = dumps((args, kwargs), serializer)
    signature["args"], signature["kwargs"] = loads(
        body, content_type, encoding, accept={content_type}
    )


def _fix_times(options: dict[str, Any]) -> None:
    """Count from now, not from the commit."""
    now = datetime.now(timezone.utc)
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), (int, float)):
        options["expires"] = now + timedelta(seconds=expires)
