"""Delivery by commit: a task deferred in a transaction is sent when that commits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError

from ..delivery import deliver_immediately
from ..events import TaskDeliveryFailed
from ..exceptions import BrokerUnavailable
from ..registry import get_tasks
from .message import Message
from .outgoing import Outgoing, in_transaction

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult
    from pyramid.request import Request

logger = logging.getLogger(__name__)


def deliver_on_commit(
    request: Request,
    task: Task,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> AsyncResult:
    """Send a task when the transaction of the request commits, or at once without one.

    Everything that can be wrong with the call is found now, in the code that made it.
    """
    if not in_transaction(request):
        return deliver_immediately(request, task, args, kwargs, options)
    message = Message(request, task, args, kwargs, options)
    _OnCommit.of(request).messages.append(message)
    return message.result


class _OnCommit(Outgoing[Message]):
    def prepare(self, _messages: list[Message]) -> None:
        _check_broker(self.registry)

    def deliver(self, messages: list[Message]) -> None:
        """Send; what fails now is reported, as the transaction cannot be undone."""
        for message in messages:
            try:
                message.task.apply_async(
                    message.args, message.kwargs, **message.options
                )
                message.result.sent = True
            except Exception as error:
                logger.exception(
                    "The transaction committed, but its task could not be sent. Send "
                    "it by hand: %s args=%r kwargs=%r options=%r",
                    message.task.name,
                    message.args,
                    message.kwargs,
                    message.options,
                )
                self.registry.notify(
                    TaskDeliveryFailed(
                        self.registry,
                        message.task,
                        message.args,
                        message.kwargs,
                        message.options,
                        error,
                    )
                )


def _check_broker(registry: Any) -> None:
    tasks = get_tasks(registry)
    if tasks.app.conf.task_always_eager:
        return
    timeout = float(registry.settings.get("pyramid_tasks.delivery_timeout", 2))
    try:
        with tasks.app.connection_for_write(connect_timeout=timeout) as connection:
            connection.ensure_connection(max_retries=1, timeout=timeout)
    except (KombuError, OSError) as error:
        raise BrokerUnavailable(connection.as_uri(), error) from error
