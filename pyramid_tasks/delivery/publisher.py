"""Sending to the broker within a time limit, through the connections of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery.exceptions import SoftTimeLimitExceeded
from kombu import pools
from kombu.exceptions import LimitExceeded

from .._celery import is_celerys
from .._kombu import raise_limit
from ..registry import check_arguments
from .batch import Batch
from .canvas import as_signature, is_canvas
from .faults import (
    BrokerDown,
    MessageFault,
    SendingFailed,
    in_words,
    is_of_transport,
    is_state,
    names_content,
    own_fault,
)
from .producer import SteadyProducer
from .result_backends import SendingBackend
from .transports import (
    batch_sender,
    is_alive,
    limit_waits,
    prepare_connection,
    replace_dead,
)

if TYPE_CHECKING:
    from kombu.connection import Connection
    from kombu.messaging import Producer

    from ..application import PyramidCelery
    from .canvas import Canvas

_BROKER_SETTINGS = ("broker_url", "broker_write_url", "broker_transport")


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
        self._declared: WeakKeyDictionary[Connection, dict[int, Any]]
        self._declared = WeakKeyDictionary()

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
        declared = self._declared.setdefault(pooled.connection, {})
        return SteadyProducer(pooled, declared, retry=False)

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
            producer: The return value of :meth:`acquire`.

        Raises:
            BrokerDown: The broker cannot be reached, or takes no message.
            MessageFault: The message is the cause.
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
                if fault := own_fault(self.app, canvas):
                    raise MessageFault(fault) from error
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

    @contextmanager
    def publish_batch(self, producer: SteadyProducer | None) -> Iterator[Batch]:
        """Give a :class:`Batch`, and send what has been added to it.

        Args:
            producer: The return value of :meth:`acquire`.

        Raises:
            Exception: No error of the broker.
        """
        sender = None if producer is None else batch_sender(producer.connection)
        batch = Batch(self._send, producer, sender)
        if producer is None or sender is None:
            yield batch
            return
        connection = producer.connection
        try:
            with sender:
                try:
                    yield batch
                except BaseException:
                    # The messages added so far are ready to be sent.
                    try:
                        batch.finish()
                    except Exception as error:  # noqa: BLE001 the first one counts
                        raise_limit(error)
                    raise
                batch.finish()
        except BaseException as error:
            connection.collect()
            if not is_of_transport(error, connection):
                raise
            if is_state(error):
                batch.broker_down = BrokerDown(in_words(error))
                return
            try:
                self._connect(producer)
            except BrokerDown as down:
                batch.broker_down = down

    def _send(self, canvas: Canvas, producer: SteadyProducer) -> None:
        """Hand a canvas to kombu. Celery, kombu and clients raise the errors."""
        app = self.app
        with app.sending(producer, SendingBackend(app, self.timeout)):
            if is_canvas(canvas) or _is_special(app, canvas):
                as_signature(canvas, app).apply_async()
                return
            # The process that deferred the task has checked the call, and may know
            # another version of the task.
            name, args, kwargs = canvas["task"], canvas["args"], canvas["kwargs"]
            task = app.tasks.get(name)
            app.send_task(name, args, kwargs, task_type=task, **canvas["options"])

    def _pool(self) -> Any:
        app = self.app
        # A forked process has pools of its own, and a test has settings of its own.
        key = os.getpid(), *map(app.conf.changes.get, _BROKER_SETTINGS)
        pool = self._pools.get(key)
        if pool is None:
            # Another application of the process may have another limit, and use it.
            with suppress(RuntimeError):
                pools.set_limit(app.conf.broker_pool_limit)
            connection = app.connection_for_write(connect_timeout=self.timeout)
            limit_waits(connection, self.timeout)
            pool = pools.producers[connection]
            self._pools = {key: pool}
        return pool

    def _connect(self, producer: Producer | SteadyProducer) -> None:
        """Make the connection of a producer alive, in one attempt for each host."""
        connection = producer.connection
        # Its client asks all sentinels in one attempt.
        is_one = connection.transport_cls == "sentinel"
        others = 0 if is_one else max(len(connection.alt) - 1, 0)
        try:
            if connection.connected and not is_alive(connection):
                connection.collect()
            if not connection.connected:
                connection.ensure_connection(
                    max_retries=others,
                    interval_start=0,
                    interval_step=0,
                    timeout=self.timeout,
                )
                producer.revive(connection)
                prepare_connection(connection, self.timeout)
            replace_dead(connection)
        except SoftTimeLimitExceeded:
            raise
        # Whatever goes wrong here, such as a setting that the client of the broker does
        # not understand, no message is the cause.
        except Exception as error:
            connection.collect()
            raise BrokerDown(in_words(error)) from error


def _is_special(app: PyramidCelery, call: Canvas) -> bool:
    """Whether a task has an ``apply_async`` of its own, and takes the arguments."""
    task = app.tasks.get(call["task"])
    if task is None or is_celerys(type(task).apply_async):
        return False
    try:
        check_arguments(task, tuple(call["args"]), call["kwargs"])
    except TypeError:
        return False
    return True
