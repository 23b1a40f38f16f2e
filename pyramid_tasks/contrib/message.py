"""A task deferred in a transaction: the call as it will be sent, and its result."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from celery.result import AsyncResult
from celery.utils import uuid
from kombu.serialization import dumps, loads

from ..exceptions import ResultNotReady
from ..registry import check_arguments, get_tasks

if TYPE_CHECKING:
    from celery import Task
    from pyramid.request import Request


class PendingResult(AsyncResult):
    """The result of a task that is sent when the transaction commits."""

    sent = False

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the result; as in Celery, once the task has been sent.

        Raises:
            ResultNotReady: The transaction has not committed.
        """
        if not self.sent:
            raise ResultNotReady(self.id)
        return super().get(*args, **kwargs)

    wait = get

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.sent and bool(super().ready())


class Message:
    """A call as it will be sent: checked, and independent of what the caller keeps.

    Everything that can be wrong with the call is found when this is made, in the code
    that defers the task.

    Attributes:
        task: The Celery task.
        args: Its positional arguments, as a worker will get them.
        kwargs: Its keyword arguments, the same.
        options: The options of ``Task.apply_async``, with points in time in place of
            delays, and a ``task_id``.
        result: What the caller gets.
    """

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        check_arguments(task, args, kwargs)
        # Celery 5.7 and later send pydantic models as dictionaries.
        if dump := getattr(task, "_dump_pydantic_arguments", None):
            args, kwargs = dump(args, kwargs)
        serializer = options.get("serializer") or task.serializer
        content_type, encoding, body = dumps((args, kwargs), serializer)
        self.args, self.kwargs = loads(
            body, content_type, encoding, accept={content_type}
        )
        self.task = task
        self.options = {"task_id": uuid(), **as_of_now(options)}
        self.result = PendingResult(
            self.options["task_id"],
            app=get_tasks(request.registry).app,
            task_name=task.name,
        )


def as_of_now(options: dict[str, Any]) -> dict[str, Any]:
    """Return options whose times are counted from now, not from the commit."""
    now = datetime.now(timezone.utc)
    options = dict(options)
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), (int, float)):
        options["expires"] = now + timedelta(seconds=expires)
    return options
