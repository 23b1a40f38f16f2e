"""Sending a message to the broker within a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu import pools
from kombu.exceptions import KombuError, LimitExceeded, OperationalError

from ..exceptions import TaskNotRegistered
from .canvas import as_signature, leaves
from .result_backends import BrokerDown, SendingBackend

if TYPE_CHECKING:
    from kombu.connection import Connection
    from kombu.messaging import Producer

    from ..application import PyramidCelery
    from .canvas import Canvas

# Answers of Redis about its own state, whatever the message.
_REDIS_STATES = {"BusyLoadingError", "OutOfMemoryError", "ReadOnlyError"}
_REDIS_WORDS = ("LOADING", "MISCONF", "NOREPLICAS", "OOM", "READONLY")


def publish(app: PyramidCelery, canvas: Canvas, timeout: float) -> None:
    """Send a canvas once.

    Celery would wait much longer for a broker, or a result backend, that is down.

    Args:
        app: The Celery application that sends.
        canvas: The task, chain, group or chord.
        timeout: The number of seconds that each wait for the broker may take.

    Raises:
        BrokerDown: The broker cannot be reached, or takes no message.
        Exception: Any other error is about this message.
    """
    _check_tasks(app, canvas)
    signature = as_signature(canvas, app)
    if app.conf.task_always_eager:
        signature.apply_async()
        return
    backend = SendingBackend(app, timeout)
    # A connection of the pool may have died since its last use. Then try a new one: an
    # error on that is about the message.
    for renew in (False, True):
        with _producer(app, timeout) as producer:
            connection = producer.connection
            if renew:
                connection.collect()
            is_new = not connection.connected
            _connect(connection, timeout)
            try:
                with app.sending(_WithoutRetry(producer), backend):
                    signature.apply_async()
            except Exception as error:
                # After an error RabbitMQ closes at least the channel.
                connection.collect()
                if not _is_of_transport(error, connection):
                    raise
                if _is_state(error):
                    raise BrokerDown(_in_words(error)) from error
                if is_new:
                    raise
            else:
                return


def _check_tasks(app: PyramidCelery, canvas: Canvas) -> None:
    for leaf in leaves(canvas):
        if leaf.signature["task"] not in app.tasks:
            raise TaskNotRegistered(leaf.signature["task"])


class _WithoutRetry:
    """A producer that tries once.

    Celery would send its option ``retry`` to the workers, in the body of a chord.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, *args: Any, **options: Any) -> Any:
        return self._producer.publish(*args, **{**options, "retry": False})


@contextmanager
def _producer(app: PyramidCelery, timeout: float) -> Iterator[Producer]:
    # Another application of the process may have another limit, and be using it.
    pools.set_limit(app.conf.broker_pool_limit, ignore_errors=True)
    connection = app.connection_for_write(connect_timeout=timeout)
    driver = connection.transport_cls
    connection.transport_options.update(_transport_options(driver, timeout))
    pool = pools.producers[connection]
    try:
        producer = pool.acquire(block=True, timeout=timeout)
    except LimitExceeded as error:
        raise BrokerDown("all connections of broker_pool_limit are in use") from error
    try:
        yield producer
    finally:
        producer.release()


def _transport_options(driver: Any, timeout: float) -> dict[str, Any]:
    """Return the options that limit the waits of a transport, and confirm messages."""
    if driver in {"amqp", "amqps", "pyamqp"}:
        # Without confirmation, a message that RabbitMQ has not read is lost if it dies.
        return {
            "confirm_publish": True,
            "read_timeout": timeout,
            "write_timeout": timeout,
        }
    if driver in {"redis", "rediss", "sentinel"}:
        return {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return {}


def _connect(connection: Connection, timeout: float) -> None:
    # Try each host of the URL once.
    others = max(len(connection.alt) - 1, 0)
    try:
        connection.ensure_connection(
            max_retries=others, interval_start=0, interval_step=0, timeout=timeout
        )
    # The errors of the transport come as they are if kombu calls them irrecoverable.
    except (KombuError, OSError, *connection.connection_errors) as error:
        raise BrokerDown(_in_words(error)) from error


def _is_of_transport(error: Exception, connection: Connection) -> bool:
    kinds = (OperationalError, OSError)
    kinds += connection.connection_errors + connection.channel_errors
    return isinstance(error, kinds)


def _is_state(error: BaseException | None) -> bool:
    """Whether an error is about the state of a broker that accepts connections."""
    while error is not None:
        name = type(error).__name__
        if isinstance(error, TimeoutError) or name in {"TimeoutError", *_REDIS_STATES}:
            return True
        if str(error).startswith(_REDIS_WORDS):
            return True
        error = error.__cause__
    return False


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
