"""How a Celery application sends what belongs together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

from celery import Celery


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
        return super().producer_or_acquire(producer or self._sending.producer)

    @property
    def backend(self) -> Any:
        """The result backend; inside :meth:`sending`, that one."""
        return self._sending.backend or super().backend
