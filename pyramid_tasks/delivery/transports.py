"""Redis and RabbitMQ as kombu has them: limits, living connections, many messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from kombu.exceptions import OperationalError

from ..configuration.connections import retry_at_once

if TYPE_CHECKING:
    from typing import Self

    from kombu.connection import Connection

_AMQP = {"amqp", "amqps", "pyamqp"}
_REDIS = {"redis", "rediss", "sentinel"}


class MessageNacked(OperationalError):  # noqa: N818 as py-amqp has it
    """RabbitMQ has no room for a message; py-amqp's error has the same name."""


class BatchSender(Protocol):
    """Messages that are sent together, while this is the context of a ``with``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    @property
    def count(self) -> int:
        """The number of the latest message. Only differences of numbers count."""

    def finish(self) -> set[int]:
        """Wait for the broker, and return the numbers of what it did not take."""


def limit_waits(connection: Connection, timeout: float) -> None:
    """Limit a connection's waits, in seconds, and have RabbitMQ confirm messages."""
    driver: Any = connection.transport_cls
    options: Any = connection.transport_options
    # All hosts are silent in the worst case, and they are tried in turn.
    share = timeout / max(len(connection.alt), 1)
    connection.connect_timeout = share  # type: ignore[assignment] # seconds, as float
    if driver in _AMQP:
        # Without confirmation, a message that RabbitMQ has not read is lost if it dies.
        options.update(
            confirm_publish=True, read_timeout=timeout, write_timeout=timeout
        )
    elif driver == "sentinel":
        # Of the time, the sentinels have one half, and the master the other one.
        options.update(_limits(timeout / 2))
        options.update(limit_sentinels(options, share / 2))
    elif driver in _REDIS:
        options.update(_limits(share))


def limit_sentinels(options: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return options of a transport with limits to the way to the sentinels.

    Args:
        options: The options as the configuration has them.
        timeout: The number of seconds for each sentinel.
    """
    given = options.get("sentinel_kwargs") or {}
    # The client would ask a sentinel that does not answer ten times.
    once = {"retry": retry_at_once(0)}
    return {**options, "sentinel_kwargs": given | _limits(timeout) | once}


def _limits(timeout: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def prepare_connection(connection: Connection, timeout: float) -> None:
    """Prepare a new connection for :func:`batch_sender`."""
    if connection.transport_cls in _AMQP:
        _Confirms(connection.default_channel, timeout)


def is_alive(connection: Connection) -> bool:
    """Whether the socket of a prepared connection is open, as far as is known."""
    if connection.transport_cls not in _AMQP:
        return True
    if not isinstance(batch_sender(connection), _Confirms):
        return False
    # RabbitMQ says goodbye before it hangs up, and that may wait to be read.
    try:
        while True:
            connection.drain_events(timeout=0)
    except TimeoutError:
        return True
    except (OSError, *connection.connection_errors, *connection.channel_errors):
        return False


def replace_dead(connection: Connection) -> None:
    """Take a connection of the client of Redis, which replaces a dead one."""
    shared = share_client(connection)
    if shared is None:
        return
    clients = shared.client.connection_pool
    try:
        client = clients.get_connection()
    except TypeError:  # before redis 5.3
        client = clients.get_connection("PING")
    clients.release(client)


def share_client(connection: Connection) -> _SharedClient | None:
    """Let a connection to Redis use one client for all messages, and return it.

    kombu makes a client for each message, and that takes a third of the time.
    """
    if connection.transport_cls not in _REDIS:
        return None
    channel: Any = connection.default_channel
    shared = channel.conn_or_acquire
    if not isinstance(shared, _SharedClient):
        shared = channel.conn_or_acquire = _SharedClient(channel)
    return shared


def batch_sender(connection: Connection) -> BatchSender | None:
    """Return what sends messages together, if the transport can."""
    if shared := share_client(connection):
        return _Pipeline(shared)
    channel: Any = connection.default_channel
    confirms = getattr(channel.basic_publish, "__self__", None)
    return confirms if isinstance(confirms, _Confirms) else None


class _SharedClient:
    """Takes the place of ``conn_or_acquire`` of a channel."""

    def __init__(self, channel: Any) -> None:
        with channel.conn_or_acquire() as client:
            self.client = client
        self.used = client

    @contextmanager
    def __call__(self, client: Any = None) -> Iterator[Any]:
        yield client or self.used


class _Pipeline:
    """A client of Redis that keeps what it is to push, and sends all at once."""

    def __init__(self, shared: _SharedClient) -> None:
        self._shared = shared
        self._pipeline = shared.client.pipeline(transaction=False)

    def __enter__(self) -> Self:
        self._shared.used = self
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.used = self._shared.client
        self._pipeline.reset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.client, name)

    def lpush(self, *args: Any) -> Any:
        """Keep a message."""
        return self._pipeline.lpush(*args)

    @property
    def count(self) -> int:
        return len(self._pipeline)

    def finish(self) -> set[int]:
        outcomes = self._pipeline.execute(raise_on_error=False)
        return {
            number
            for number, outcome in enumerate(outcomes, start=1)
            if isinstance(outcome, Exception)
        }


class _Confirms:
    """Publishes on a channel of RabbitMQ, and waits for what RabbitMQ has to confirm.

    py-amqp can wait as well, but after each message.
    """

    def __init__(self, channel: Any, timeout: float) -> None:
        self.count = 0
        self._channel = channel
        self._timeout = timeout
        self._waits = True
        self._open: set[int] = set()
        self._refused: set[int] = set()
        # The channel as it is has a method that waits.
        self._publish = type(channel).basic_publish.__get__(channel)
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.confirm_select()
        channel.basic_publish = self.publish

    def __enter__(self) -> Self:
        self._waits = False
        return self

    def __exit__(self, *_: object) -> None:
        self._waits = True

    def publish(self, *args: Any, confirm_timeout: Any = None, **options: Any) -> None:
        """Publish a message, as a channel does."""
        self._publish(*args, **options)
        self.count += 1
        self._open.add(self.count)
        if self._waits and self.finish(confirm_timeout):
            raise MessageNacked("RabbitMQ refused a message")

    def finish(self, timeout: float | None = None) -> set[int]:
        deadline = time.monotonic() + (timeout or self._timeout)
        while self._open:
            left = max(deadline - time.monotonic(), 0.001)
            self._channel.connection.drain_events(timeout=left)
        refused, self._refused = self._refused, set()
        return refused

    def _on_ack(self, number: int, multiple: bool) -> None:  # noqa: FBT001 by py-amqp
        self._open -= self._meant(number, multiple=multiple)

    def _on_nack(self, number: int, multiple: bool) -> None:  # noqa: FBT001 by py-amqp
        meant = self._meant(number, multiple=multiple)
        self._open -= meant
        self._refused |= meant

    def _meant(self, number: int, *, multiple: bool) -> set[int]:
        if not multiple:
            return {number}
        return {each for each in self._open if each <= number}
