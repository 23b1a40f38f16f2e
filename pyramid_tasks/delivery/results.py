"""The results of tasks that are sent later."""

from __future__ import annotations

from typing import Any, Protocol

from celery.canvas import Signature, chord, group
from celery.result import AsyncResult, GroupResult, ResultBase
from vine import barrier

from ..exceptions import ResultNotReady


class Sendable(Protocol):
    """A message that is sent when a transaction commits, or dropped."""

    sent: bool
    dropped: bool


class DeferredResult(AsyncResult):
    """The result of a task that is sent when the transaction commits."""

    message: Sendable | None = None

    @property
    def sent(self) -> bool:
        """Whether the task has been sent."""
        return self.message is None or self.message.sent

    @property
    def dropped(self) -> bool:
        """Whether the task will never be sent, as its transaction was aborted."""
        return self.message is not None and self.message.dropped

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the result, as in Celery.

        Raises:
            ResultNotReady: The task has not been sent.
        """
        # Celery waits for no result that is ignored.
        if not (self.sent or self.ignored):
            raise ResultNotReady(self.id, aborted=self.dropped)
        return super().get(*args, **kwargs)

    wait = get

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.sent and bool(super().ready())


class DeferredGroupResult(GroupResult):
    """The results of tasks that may be sent when the transaction commits."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 as in GroupResult
        results: list[ResultBase] | None = None,
        parent: ResultBase | None = None,
        **options: Any,
    ) -> None:
        # GroupResult would subscribe to each result now, and wait for the backend.
        self._barrier = barrier()
        super().__init__(id, results, parent, ready_barrier=self._barrier, **options)

    @property
    def sent(self) -> bool:
        """Whether all tasks have been sent."""
        return all(getattr(result, "sent", True) for result in self.results)

    @property
    def dropped(self) -> bool:
        """Whether a task will never be sent, as its transaction was aborted."""
        return any(getattr(result, "dropped", False) for result in self.results)

    def join(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the results, as in Celery.

        Raises:
            ResultNotReady: A task has not been sent.
        """
        self._subscribe()
        return super().join(*args, **kwargs)

    def join_native(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the results in the own way of the result backend."""
        self._subscribe()
        return super().join_native(*args, **kwargs)

    def iter_native(self, *args: Any, **kwargs: Any) -> Any:
        """Iterate over the results as they come."""
        self._subscribe()
        return super().iter_native(*args, **kwargs)

    def then(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function when the results are there."""
        self._subscribe(even_if_not_sent=True)
        return super().then(*args, **kwargs)

    def _subscribe(self, *, even_if_not_sent: bool = False) -> None:
        if not (self.sent or even_if_not_sent):
            raise ResultNotReady(self.id, aborted=self.dropped)
        if not self._barrier.finalized:
            for result in self.results:
                self._barrier.add(result)
            self._barrier.finalize()


def freeze(signature: Signature, task_id: str | None = None) -> Any:
    """Fix the ids of a canvas, and return the result that sending it would return."""
    result = signature.freeze(task_id)
    if isinstance(signature, group):
        # group(a | group(b, c)) has two results, the results of b and c.
        if len(result) == 1 and isinstance(result[0], GroupResult):
            return result[0]
    elif isinstance(signature, chord):
        # The parent is the header, also if the body is a chain.
        header = result
        while header.parent is not None:
            header = header.parent
        if header is not result:
            result.parent = header
    return result


def deferred_result(result: ResultBase | None, message: Sendable) -> Any:
    """Return a result, and all in it, that knows whether its message has been sent."""
    if result is None:
        return None
    parent = deferred_result(result.parent, message)
    if isinstance(result, GroupResult):
        results = [deferred_result(each, message) for each in result.results]
        return DeferredGroupResult(result.id, results, parent, app=result.app)
    own = DeferredResult(result.id, app=result.app, parent=parent)
    own.message = message
    return own
