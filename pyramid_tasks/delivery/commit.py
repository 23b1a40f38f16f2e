"""Delivery ``commit``: a task is sent when the transaction of its request commits."""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded

from ..configuration.own_settings import number_setting
from ..events import TaskDeliveryFailed
from ..exceptions import BrokerUnavailable
from .faults import BrokerDown
from .message import Message
from .publisher import Publisher
from .transactional import TaskDataManager, TransactionalDelivery

if TYPE_CHECKING:
    from pyramid.request import Request

    from .producer import SteadyProducer

logger = logging.getLogger(__name__)

# How many seconds each message may add to the time limit of a transaction, which may
# have thousands. A broker without a fault takes a message in less.
_MOMENT = 0.05
# How many messages are sent at a time. A connection that dies meanwhile may have sent
# them, and they are sent again.
_BATCH_SIZE = 100


class CommitDelivery(TransactionalDelivery):
    """Sends when the transaction has committed."""

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher, with the limit ``pyramid_tasks.delivery_timeout``."""
        timeout = number_setting(self.app.registry.settings, "delivery_timeout")
        return Publisher(self.app, timeout)

    def hold(self, request: Request, messages: list[Message]) -> None:
        manager = _CommitDataManager.of(request, self)
        manager.publisher = self.publisher
        manager.hold(request, messages)

    def send(self, manager: Any, messages: list[Message]) -> None:
        """Send messages whose transaction has ended, and tell of each one not sent."""
        sender = _CommitDataManager(manager, self.app.registry)
        sender.publisher = self.publisher
        sender.after_commit(messages)


class _CommitDataManager(TaskDataManager[Message]):
    publisher: Publisher
    _producer: SteadyProducer | None = None
    _spent = 0.0

    def before_commit(self, _messages: list[Message]) -> None:
        begin = time.monotonic()
        try:
            self._acquire()
        except BrokerDown as error:
            broker = self.publisher.app.connection_for_write().as_uri()
            raise BrokerUnavailable(broker, error) from error
        self._spent = time.monotonic() - begin

    def after_commit(self, messages: list[Message]) -> None:
        """Send the tasks, and tell of each one that could not be sent.

        Raises:
            SoftTimeLimitExceeded: The time of the task that defers is over. Each task
                has been sent, or reported as not sent.
        """
        limit = self.publisher.timeout - self._spent + _MOMENT * len(messages)
        deadline = time.monotonic() + limit
        reported: set[str] = set()
        try:
            down = self._send_batches(messages, deadline)
            for message in messages:
                if message.sent:
                    continue
                if down is None and time.monotonic() > deadline:
                    down = BrokerDown("pyramid_tasks.delivery_timeout is over")
                error = down or self._send(message)
                if isinstance(error, BrokerDown):
                    down = error
                if error is not None:
                    reported.add(message.id)
                    self._report_unsent(message, error)
        except BaseException as error:
            for message in messages:
                if not (message.sent or message.id in reported):
                    self._report_unsent(message, error)
            raise
        finally:
            self.after_abort()

    def after_abort(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.release()

    def _acquire(self) -> None:
        if self._producer is None:
            self._producer = self.publisher.acquire()

    def _send_batches(
        self, messages: list[Message], deadline: float
    ) -> BrokerDown | None:
        """Send messages as fast as the transport can, as long as nothing is wrong.

        Returns:
            Why the broker takes no message, if it does not.
        """
        if len(messages) == 1:
            return None
        try:
            self._acquire()
        except BrokerDown as error:
            return error
        for start in range(0, len(messages), _BATCH_SIZE):
            some = messages[start : start + _BATCH_SIZE]
            try:
                with self.publisher.publish_batch(self._producer) as batch:
                    for message in some:
                        batch.add(message.signature)
            finally:
                for number in batch.taken:
                    some[number].sent = True
            if len(batch.taken) < len(some) or time.monotonic() > deadline:
                return batch.broker_down
        return None

    def _send(self, message: Message) -> Exception | None:
        """Send a message, or return why the broker has not taken it."""
        try:
            self._acquire()
            self.publisher.publish(message.signature, self._producer)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 whatever it can cause
            return error
        message.sent = True
        return None

    def _report_unsent(self, message: Message, error: BaseException) -> None:
        signature = message.signature
        logger.error(
            "The transaction has ended, but its task could not be sent. Send it by "
            "hand: %s args=%r kwargs=%r options=%r",
            signature.task,
            signature.args,
            signature.kwargs,
            signature.options,
            exc_info=error,
        )
        app = self.publisher.app
        event = TaskDeliveryFailed(
            self.registry,
            app.tasks[signature.task],
            tuple(signature.args),
            signature.kwargs,
            signature.options,
            error,
        )
        try:
            self.registry.notify(event)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            logger.exception("A subscriber of TaskDeliveryFailed failed")
