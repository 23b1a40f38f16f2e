"""Delivery ``commit``: a task is sent when the transaction of its request commits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError

from ..configuration.own_settings import number_setting
from ..events import TaskDeliveryFailed
from ..exceptions import BrokerUnavailable
from ..registry import get_tasks
from .immediate import send
from .result_backends import QuietBackend
from .transactional import TaskDataManager, TransactionalDelivery

if TYPE_CHECKING:
    from pyramid.request import Request

    from .message import Message

logger = logging.getLogger(__name__)


class CommitDelivery(TransactionalDelivery):
    """Sends when the transaction has committed."""

    def hold(self, request: Request, messages: list[Message]) -> None:
        _CommitDataManager.of(request).messages.extend(messages)


class _CommitDataManager(TaskDataManager["Message"]):
    def before_commit(self, _messages: list[Message]) -> None:
        _check_broker(self.registry)

    def after_commit(self, messages: list[Message]) -> None:
        tasks = get_tasks(self.registry)
        backend = QuietBackend(tasks.app)  # the caller has the results already
        for message in messages:
            signature = message.signature
            try:
                send(tasks.app, [signature], backend)
                message.sent = True
            except Exception as error:
                logger.exception(
                    "The transaction committed, but its task could not be sent. Send "
                    "it by hand: %s args=%r kwargs=%r options=%r",
                    signature.task,
                    signature.args,
                    signature.kwargs,
                    signature.options,
                )
                self.registry.notify(
                    TaskDeliveryFailed(
                        self.registry,
                        tasks.app.tasks[signature.task],
                        tuple(signature.args),
                        signature.kwargs,
                        signature.options,
                        error,
                    )
                )


def _check_broker(registry: Any) -> None:
    app = get_tasks(registry).app
    if app.conf.task_always_eager:
        return
    timeout = number_setting(registry.settings, "delivery_timeout")
    try:
        with app.connection_for_write(connect_timeout=timeout) as connection:
            connection.ensure_connection(max_retries=1, timeout=timeout)
    except (KombuError, OSError) as error:
        raise BrokerUnavailable(connection.as_uri(), error) from error
