"""The results of tasks that are not sent yet."""

from __future__ import annotations

from typing import Any, Protocol

from celery.result import AsyncResult, GroupResult, ResultBase

from .exceptions import ResultNotReady


class Sendable(Protocol):
    """Something that is sent when a transaction commits."""

    sent: bool


class DeferredResult(AsyncResult):
    """The result of a task that is sent when the transaction commits."""

    message: Sendable | None = None

    @property
    def sent(self) -> bool:
        """Whether the task has been sent."""
        return self.message is None or self.message.sent

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


class DeferredGroupResult(GroupResult):
    """The results of tasks that may be sent when the transaction commits."""

    def join(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the results; as in Celery, once the tasks have been sent.

        Raises:
            ResultNotReady: The transaction has not committed.
        """
        self._check_sent()
        return super().join(*args, **kwargs)

    def join_native(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`join`, where the result backend has a better way."""
        self._check_sent()
        return super().join_native(*args, **kwargs)

    def _check_sent(self) -> None:
        for result in self.results:
            if not getattr(result, "sent", True):
                raise ResultNotReady(result.id)


def deferred(result: ResultBase | None, message: Sendable) -> Any:
    """Return a result that knows whether its message has been sent."""
    if result is None:
        return None
    parent = deferred(result.parent, message)
    if isinstance(result, GroupResult):
        results = [deferred(each, message) for each in result.results]
        return DeferredGroupResult(result.id, results, parent, app=result.app)
    own = DeferredResult(result.id, app=result.app, parent=parent)
    own.message = message
    return own
