"""Sending a message to the broker within a time limit, or learning why not."""

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
    """Send a canvas, once, waiting for the broker no longer than ``timeout`` seconds.

    Celery's own way waits much longer for a broker, or a result backend, that is down.

    Raises:
        BrokerDown: The broker cannot be reached, or takes nothing.
        Exception: Anything else is about this message.
    """
    _check_tasks(app, canvas)
    signature = as_signature(canvas, app)
    if app.conf.task_always_eager:
        signature.apply_async()
        return
    backend = SendingBackend(app, timeout)
    # A connection of the pool may have died since it was used: then once more, on a
    # new one. An error on a new one is the message's.
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
                # After an error RabbitMQ closes the channel at least.
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

    Celery would hand the option to do so on to the workers, in the body of a chord.
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
    """Return what makes a transport wait no longer, and sure that a message arrived."""
    if driver in {"amqp", "amqps", "pyamqp"}:
        # Without the confirmation, what RabbitMQ had not read when it died is lost.
        return {
            "confirm_publish": True,
            "read_timeout": timeout,
            "write_timeout": timeout,
        }
    if driver in {"redis", "rediss", "sentinel"}:
        return {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return {}


def _connect(connection: Connection, timeout: float) -> None:
    # All hosts of the URL, once.
    others = max(len(connection.alt) - 1, 0)
    try:
        connection.ensure_connection(
            max_retries=others, interval_start=0, interval_step=0, timeout=timeout
        )
    except (KombuError, OSError) as error:
        raise BrokerDown(_in_words(error)) from error
    except connection.connection_errors as error:  # those it calls irrecoverable
        raise BrokerDown(_in_words(error)) from error


def _is_of_transport(error: Exception, connection: Connection) -> bool:
    kinds = (OperationalError, OSError)
    kinds += connection.connection_errors + connection.channel_errors
    return isinstance(error, kinds)


def _is_state(error: BaseException | None) -> bool:
    """Whether an error is about the broker, although it can be connected to."""
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
