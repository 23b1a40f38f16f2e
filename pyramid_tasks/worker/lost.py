"""Messages whose tasks fail because their processes were lost too often."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import WorkerLostError
from celery.utils.saferepr import saferepr
from celery.worker.request import Request
from celery.worker.state import task_ready


class InboxRequest(Request):
    """The message of a task with an inbox, in the parent process of a worker."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """Acknowledge the message of a task that raises ``WorkerLostError`` itself.

        Celery would take the ``WorkerLostError`` of a task for the death of its
        process, and put the message back into the queue.
        """
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        # Only for an error that the process has told of.
        is_told = options.get("return_ok", False)
        if not is_told or not isinstance(error, WorkerLostError):
            return super().on_failure(exc_info, *args, **options)
        task_ready(self)
        self.acknowledge()
        exception, traceback = saferepr(error), exc_info.traceback
        self.send_event("task-failed", exception=exception, traceback=traceback)
        return None
