"""How a Celery application sends what belongs together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

from celery import Celery, _state
from celery.signals import after_task_publish, before_task_publish


class _Sending(local):
    """What a thread sends through at the moment; nothing of its own, mostly."""

    producer: Any = None
    backend: Any = None


class SendingCelery(Celery):
    """A Celery application that can send several messages through one producer.

    Attributes:
        limited_backends: Result backends of its own, by how many seconds they wait.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sending = _Sending()
        self.limited_backends: dict[float, Any] = {}
        super().__init__(*args, **options)

    @contextmanager
    def sending(self, producer: Any = None, backend: Any = None) -> Iterator[None]:
        """Have this thread send everything inside through one producer.

        Celery hands a producer on to some tasks of a canvas. For others it takes one
        more from the pool: it would wait for ever if there is none left, or if the
        broker is down.

        Args:
            producer: The ``kombu.Producer``, or what is one.
            backend: What is the result backend meanwhile.
        """
        sending = self._sending
        before = sending.producer, sending.backend
        sending.producer, sending.backend = producer, backend
        try:
            yield
        finally:
            sending.producer, sending.backend = before

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context with a producer; inside :meth:`sending`, with that one."""
        context = super().producer_or_acquire(producer or self._sending.producer)
        if before_task_publish.receivers or after_task_publish.receivers:
            return self._as_current(context)
        return context

    @contextmanager
    def _as_current(self, context: Any) -> Iterator[Any]:
        """Be the current application of Celery, inside a context with a producer.

        The receivers of Celery's signals about sending get the name of a task, and
        look it up there: those of OpenTelemetry, for one.
        """
        thread = _state._tls  # noqa: SLF001 get_current_app() would make one
        before, thread.current_app = thread.current_app, self
        try:
            with context as producer:
                yield producer
        finally:
            thread.current_app = before

    @property
    def backend(self) -> Any:
        """The result backend; inside :meth:`sending`, that one."""
        return self._sending.backend or self._backend or super().backend
