"""Delivery by outbox: see :mod:`pyramid_tasks.contrib.outbox`."""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps

from ..configuration.deliveries import add_delivery
from ..configuration.load import reporting
from ..configuration.own_settings import NUMBERS
from ..delivery.transactional import TaskDataManager, TransactionalDelivery
from ..exceptions import DeferError, SettingError
from ..registry import get_tasks
from .configuration import KEY, Outbox, engine_of, get_outbox, set_task_outbox

if TYPE_CHECKING:
    from celery.canvas import Signature
    from pyramid.config import Configurator
    from pyramid.request import Request
    from sqlalchemy.orm import Session

    from ..delivery.message import Message
    from .table import OutboxMessage

logger = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Add the delivery, which needs SQLAlchemy only when it is used."""
    registry = config.registry
    tasks = get_tasks(registry)
    add_delivery(config, "outbox", OutboxDelivery(tasks.app))
    registry[KEY] = outbox = Outbox(registry)
    config.add_directive("set_task_outbox", set_task_outbox)

    def check() -> None:
        if tasks.delivery == "outbox" and not find_spec("sqlalchemy"):
            raise SettingError(
                "pyramid_tasks.delivery",
                "= outbox needs SQLAlchemy: install pyramid-tasks[outbox].",
            )

        for name in NUMBERS:
            with reporting():
                outbox.number(name)

    config.action((KEY, "check"), reporting()(check))


class OutboxDelivery(TransactionalDelivery):
    """Stores a call in the transaction, and sends it after the commit."""

    def hold(self, request: Request, messages: list[Message]) -> None:
        """Store messages with the session of the request.

        Raises:
            DeferError: JSON cannot hold a message.
            OutboxError: The request has no session, or the database has no table.
        """
        from sqlalchemy import select

        from .table import OutboxMessage, database_time

        outbox = get_outbox(request.registry)
        session = outbox.get_session(request)
        outbox.check_table(session)
        now: Any = database_time()
        if len(messages) > 1:
            # SQLAlchemy inserts rows in one statement if they have no expressions.
            now = session.scalar(select(now))
        rows = [
            OutboxMessage(
                task=message.signature.task,
                task_id=message.result.id,
                message=_as_json(message.signature),
                created=now,
                not_before=now + outbox.number("outbox_lease"),
            )
            for message in messages
        ]
        # With the session, so that zope.sqlalchemy sees a change to commit.
        session.add_all(rows)
        _OutboxDataManager.of(request).messages += [
            (session, row, message) for row, message in zip(rows, messages, strict=True)
        ]


def _as_json(signature: Signature) -> str:
    try:
        body: str = dumps(signature)
    except Exception as error:
        raise DeferError(
            f"{signature.task} cannot be delivered by outbox, which stores JSON: "
            f"{error}"
        ) from error
    return body


_Item = tuple["Session", "OutboxMessage", "Message"]


class _OutboxDataManager(TaskDataManager[_Item]):
    def before_commit(self, messages: list[_Item]) -> None:
        # By now the rows are flushed, and soon they are detached from the session.
        self.engine = engine_of(messages[0][0])
        self.ids = [row.id for _, row, _ in messages if row.id is not None]

    def after_commit(self, messages: list[_Item]) -> None:
        """Send the rows, and leave to a relay those that cannot be sent now."""
        from .rows import queue_behind, send_rows

        outbox = get_outbox(self.registry)
        for _, _, message in messages:
            message.sent = True
        if not self.ids:  # a savepoint of the session was rolled back
            return
        try:
            # A task must not overtake those that this process deferred earlier.
            last = outbox.left_last
            if last is not None and queue_behind(self.engine, last, self.ids):
                outbox.left_last = self.ids[-1]
                return
            outbox.left_last = None
            timeout = outbox.number("delivery_timeout")
            deadline = time.monotonic() + timeout
            sending = send_rows(
                get_tasks(self.registry).app,
                self.engine,
                ids=self.ids,
                timeout=timeout,
                max_attempts=int(outbox.number("outbox_max_attempts")),
                stopped=lambda: time.monotonic() > deadline,
            )
        except Exception:
            outbox.left_last = self.ids[-1]
            logger.exception("Tasks that have been committed are left to the relay")
        else:
            if sending.left:
                outbox.left_last = sending.left[-1]
            if sending.broker_down is not None:
                logger.warning(
                    "The broker is down; tasks that have been committed are left to "
                    "the relay: %s",
                    sending.broker_down,
                )
