"""A producer for many messages, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .transports import share_client

if TYPE_CHECKING:
    from kombu.messaging import Producer


class SteadyProducer:
    """A producer that declares each queue once on a connection.

    For each message, kombu asks again whether its queue has been declared, and that
    takes a quarter of the time.

    Args:
        producer: A producer of a pool.
        declared: The entities declared on the producer's connection before.
        options: The options of ``publish`` that win over the options of a call.
    """

    def __init__(
        self,
        producer: Producer,
        declared: dict[int, Any] | None = None,
        **options: Any,
    ) -> None:
        self._producer = producer
        self._options = options
        # By their identity, as comparing entities takes long.
        self._declared = {} if declared is None else declared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, *args: Any, declare: Any = None, **options: Any) -> Any:
        """Publish a message, as a ``kombu.Producer`` does."""
        producer, declared = self._producer, self._declared
        if not producer.connection.declared_entities:
            # It is a new connection, or has entities that kombu declares each time.
            declared.clear()
        new = {id(each): each for each in declare or () if id(each) not in declared}
        given = {**options, **self._options, "declare": list(new.values())}
        result = producer.publish(*args, **given)
        if new:
            declared.update(new)
            share_client(producer.connection)
        return result
