"""Delivery ``commit``: a task is sent when the transaction of its request commits."""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from ..configuration.own_settings import number_setting
from ..events import TaskDeliveryFailed
from ..exceptions import BrokerUnavailable
from .message import Message
from .publisher import Publisher
from .result_backends import BrokerDown
from .transactional import TaskDataManager, TransactionalDelivery

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from pyramid.request import Request

    from ..application import PyramidCelery
    from .producer import SteadyProducer

logger = logging.getLogger(__name__)

# How many seconds a message takes that a broker in health takes at once. A request may
# defer thousands of tasks.
_MOMENT = 0.05


class CommitDelivery(TransactionalDelivery):
    """Sends when the transaction has committed."""

    def __init__(self, app: PyramidCelery, registry: Registry) -> None:
        super().__init__(app)
        self.registry = registry

    @cached_property
    def publisher(self) -> Publisher:
        """What sends, within ``pyramid_tasks.delivery_timeout``."""
        timeout = number_setting(self.registry.settings, "delivery_timeout")
        return Publisher(self.app, timeout)

    def hold(self, request: Request, messages: list[Message]) -> None:
        manager = _CommitDataManager.of(request)
        manager.publisher = self.publisher
        manager.hold(request, messages)


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
                has been sent, or told.
        """
        limit = self.publisher.timeout - self._spent + _MOMENT * len(messages)
        deadline = time.monotonic() + limit
        broker_down: Exception | None = None
        waiting = deque(messages)
        try:
            while waiting:
                message = waiting[0]
                if broker_down is None and time.monotonic() > deadline:
                    broker_down = BrokerDown("pyramid_tasks.delivery_timeout is over")
                if broker_down is None:
                    try:
                        self._send(message)
                    except SoftTimeLimitExceeded:
                        raise
                    except BrokerDown as error:
                        broker_down = error
                    except Exception as error:  # noqa: BLE001 whatever it can cause
                        self._tell(message, error)
                if broker_down is not None:
                    self._tell(message, broker_down)
                waiting.popleft()
        except BaseException as error:
            for message in waiting:
                self._tell(message, error)
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

    def _send(self, message: Message) -> None:
        self._acquire()
        self.publisher.publish(message.signature, self._producer)
        message.sent = True

    def _tell(self, message: Message, error: BaseException) -> None:
        signature = message.signature
        logger.error(
            "The transaction committed, but its task could not be sent. Send it by "
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
