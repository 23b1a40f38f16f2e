"""Canvases that are sent together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from .faults import is_of_transport

if TYPE_CHECKING:
    from .canvas import Canvas
    from .faults import BrokerDown
    from .producer import SteadyProducer
    from .transports import BatchSender


class Batch:
    """Canvases that are sent with as few waits for the broker as its transport allows.

    Attributes:
        taken: The numbers of the canvases that the broker has taken. The others are for
            :meth:`Publisher.publish`, which finds out whose fault an error is.
        broker_down: Why the broker takes no message at the moment, if it does not.
    """

    def __init__(
        self,
        send: Callable[[Canvas, SteadyProducer], None],
        producer: SteadyProducer | None,
        sender: BatchSender | None,
    ) -> None:
        self.taken: list[int] = []
        self.broker_down: BrokerDown | None = None
        self._send = send
        self._producer = producer
        self._sender = sender
        # The numbers of the messages of each canvas.
        self._canvases: list[range | None] = []

    def add(self, canvas: Canvas) -> None:
        """Add a canvas."""
        producer, sender = self._producer, self._sender
        if producer is None or sender is None:
            return
        first = sender.count + 1
        try:
            self._send(canvas, producer)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            if is_of_transport(error, producer.connection):
                raise
            self._canvases.append(None)
        else:
            self._canvases.append(range(first, sender.count + 1))

    def finish(self) -> None:
        """Wait until the broker has taken the canvases, or not."""
        if self._sender is None:
            return
        refused = self._sender.finish()
        self.taken = [
            number
            for number, messages in enumerate(self._canvases)
            if messages is not None and refused.isdisjoint(messages)
        ]
