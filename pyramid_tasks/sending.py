"""How a Celery application sends what belongs together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

from celery import Celery


class SendingCelery(Celery):
    """A Celery application that can send several messages through one producer.

    Attributes:
        limited_backends: Result backends of its own, by how many seconds they wait.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sending = local()
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
        before = dict(vars(self._sending))
        vars(self._sending).update(producer=producer, backend=backend)
        try:
            yield
        finally:
            vars(self._sending).clear()
            vars(self._sending).update(before)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context with a producer; inside :meth:`sending`, with that one."""
        own = getattr(self._sending, "producer", None)
        return super().producer_or_acquire(own if producer is None else producer)

    @property
    def backend(self) -> Any:
        """The result backend; inside :meth:`sending`, that one."""
        own = getattr(self._sending, "backend", None)
        return super().backend if own is None else own
