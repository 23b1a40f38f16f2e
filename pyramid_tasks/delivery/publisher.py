"""Sending to the broker within a time limit, through the connections of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded
from kombu import pools
from kombu.exceptions import LimitExceeded

from ..registry import check_arguments
from .canvas import as_signature, is_canvas
from .faults import in_words, is_of_transport, is_state, names_content
from .producer import SteadyProducer
from .result_backends import BrokerDown, SendingBackend, SendingFailed

if TYPE_CHECKING:
    from kombu.connection import Connection
    from kombu.messaging import Producer

    from ..application import PyramidCelery
    from .canvas import Canvas

_AMQP = {"amqp", "amqps", "pyamqp"}
_REDIS = {"redis", "rediss", "sentinel"}


class Publisher:
    """Sends canvases with a time limit for each wait for the broker.

    Celery itself would wait much longer for a broker, or a result backend, that is
    down.

    Args:
        app: The Celery application that sends.
        timeout: The number of seconds that each wait may take.
    """

    def __init__(self, app: PyramidCelery, timeout: float) -> None:
        self.app = app
        self.timeout = timeout
        self._pools: dict[tuple[Any, ...], Any] = {}

    def acquire(self) -> SteadyProducer | None:
        """Return a producer of the pool, whose connection is alive.

        Whoever acquires a producer has to release it. If the application runs its tasks
        eagerly, there is none.

        Raises:
            BrokerDown: The broker cannot be reached, or all connections are in use.
        """
        if self.app.conf.task_always_eager:
            return None
        try:
            pooled = self._pool().acquire(block=True, timeout=self.timeout)
        except LimitExceeded as error:
            raise BrokerDown(
                "all connections of broker_pool_limit are in use"
            ) from error
        try:
            self._connect(pooled)
        except BaseException:
            pooled.release()
            raise
        # Celery would send its option ``retry`` to the workers, in the body of a chord.
        return SteadyProducer(pooled, retry=False)

    @contextmanager
    def producer(self) -> Iterator[SteadyProducer | None]:
        """Acquire a producer, and release it afterwards; see :meth:`acquire`."""
        producer = self.acquire()
        try:
            yield producer
        finally:
            if producer is not None:
                producer.release()

    def publish(self, canvas: Canvas, producer: SteadyProducer | None) -> None:
        """Send a canvas once.

        A connection can die at any time. Then the canvas is sent again on a new one,
        once, as Celery would do.

        Args:
            canvas: The task, chain, group or chord.
            producer: What :meth:`acquire` returned.

        Raises:
            BrokerDown: The broker cannot be reached, or takes no message.
            SendingFailed: The broker may be the cause, and the message may be.
            Exception: Any other error is about this message.
        """
        if producer is None:
            as_signature(canvas, self.app).apply_async()
            return
        connection = producer.connection
        for is_last in (False, True):
            try:
                self._send(canvas, producer)
            except Exception as error:
                # After an error RabbitMQ closes at least the channel.
                connection.collect()
                if not is_of_transport(error, connection):
                    raise
                if is_state(error):
                    raise BrokerDown(in_words(error)) from error
                if is_last and names_content(error):
                    raise
                if is_last:
                    raise SendingFailed(in_words(error)) from error
                self._connect(producer)
            else:
                return

    def _send(self, canvas: Canvas, producer: SteadyProducer) -> None:
        app = self.app
        backend = SendingBackend(app, self.timeout)
        with app.sending(producer, backend):
            if is_canvas(canvas) or _fits(app, canvas):
                as_signature(canvas, app).apply_async()
                return
            # The process that deferred the task has checked the call, and knows another
            # version of the task.
            name, args, kwargs = canvas["task"], canvas["args"], canvas["kwargs"]
            app.send_task(name, args, kwargs, **canvas["options"])

    def _pool(self) -> Any:
        app = self.app
        # A forked process has pools of its own, and a test has settings of its own.
        key = os.getpid(), app.conf.broker_write_url, app.conf.broker_transport
        try:
            return self._pools[key]
        except KeyError:
            pass
        # Another application of the process may have another limit, and be using it.
        pools.set_limit(app.conf.broker_pool_limit, ignore_errors=True)
        connection = app.connection_for_write(connect_timeout=self.timeout)
        options = connection.transport_options
        options.update(_transport_options(connection.transport_cls, self.timeout))
        if connection.transport_cls == "sentinel":
            given = options.get("sentinel_kwargs") or {}
            options["sentinel_kwargs"] = _sentinel_options(self.timeout) | given
        self._pools = {key: pools.producers[connection]}
        return self._pools[key]

    def _connect(self, producer: Producer | SteadyProducer) -> None:
        """Make the connection of a producer alive, in one attempt for each host."""
        connection = producer.connection
        others = max(len(connection.alt) - 1, 0)
        try:
            if connection.connected and not _is_alive(connection):
                connection.collect()
            if not connection.connected:
                connection.ensure_connection(
                    max_retries=others,
                    interval_start=0,
                    interval_step=0,
                    timeout=self.timeout,
                )
                producer.revive(connection)
            if connection.transport_cls in _REDIS:
                # The client looks at a connection as it takes it from its own pool.
                _look_at_redis(connection.default_channel.client.connection_pool)
        except SoftTimeLimitExceeded:
            raise
        # Whatever goes wrong here, such as a setting that the client of the broker does
        # not understand, no message is the cause.
        except Exception as error:
            connection.collect()
            raise BrokerDown(in_words(error)) from error


def _fits(app: PyramidCelery, call: Canvas) -> bool:
    """Whether this process knows a task, and the task takes the arguments."""
    task = app.tasks.get(call["task"])
    try:
        if task is not None:
            check_arguments(task, tuple(call["args"]), call["kwargs"])
    except TypeError:
        return False
    return task is not None


def _transport_options(driver: Any, timeout: float) -> dict[str, Any]:
    """Return the options that limit the waits of a transport, and confirm messages."""
    if driver in _AMQP:
        # Without confirmation, a message that RabbitMQ has not read is lost if it dies.
        return {
            "confirm_publish": True,
            "read_timeout": timeout,
            "write_timeout": timeout,
        }
    if driver in _REDIS:
        return {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return {}


def _sentinel_options(timeout: float) -> dict[str, Any]:
    """Return the options that limit the waits for a sentinel.

    The client would ask a sentinel that does not answer ten times.
    """
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }


def _is_alive(connection: Connection) -> bool:
    """Whether the socket of a connection is open, as far as this side can know."""
    if connection.transport_cls not in _AMQP:
        return True
    # RabbitMQ says goodbye before it hangs up, and that may wait to be read.
    try:
        while True:
            connection.drain_events(timeout=0)
    except TimeoutError:
        return True
    except (OSError, *connection.connection_errors, *connection.channel_errors):
        return False


def _look_at_redis(clients: Any) -> None:
    """Take a connection from a pool of the client, which replaces a dead one."""
    try:
        client = clients.get_connection()
    except TypeError:  # before redis 5.3
        client = clients.get_connection("PING")
    clients.release(client)
