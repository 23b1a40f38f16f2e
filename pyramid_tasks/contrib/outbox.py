"""Delivery by outbox: a deferred task is a row, committed with the application's data.

Choose it in the settings, beside ``pyramid_tasks.contrib.pyramid_tm``::

    pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm
    pyramid_tasks.delivery = outbox

or call ``config.include("pyramid_tasks.contrib.outbox")``, which does both. Needs the
extra ``pyramid-tasks[outbox]``, a session that is part of the transaction as
``zope.sqlalchemy`` makes it, the table (``celery ... outbox create``), and a relay that
runs (``celery ... outbox run``).

After the commit the process that deferred the task sends it and deletes the row. What
it could not send, because it died or the broker was down, the relay sends. A task can
be sent twice, with the same id.

Settings:

``pyramid_tasks.outbox_lease``
    How many seconds a relay leaves a row to the process that wrote it; default 5.
``pyramid_tasks.outbox_max_attempts``
    How often a message may be refused for its content, such as a task that does not
    exist, before it is set aside; default 5.
``pyramid_tasks.delivery_timeout``
    How many seconds a request waits for the broker after its commit; default 2.
"""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps

from ..exceptions import DeferError, SettingError
from ..loading import reporting
from ..registry import add_delivery, get_tasks
from .outbox_place import KEY, Outbox, engine_of, get_outbox, set_task_outbox
from .outgoing import Outgoing, TransactionalDelivery

if TYPE_CHECKING:
    from celery.canvas import Signature
    from pyramid.config import Configurator
    from pyramid.request import Request
    from sqlalchemy.orm import Session

    from .message import Message
    from .outbox_table import OutboxMessage

logger = logging.getLogger(__name__)


def includeme(config: Configurator) -> None:
    """Run tasks in transactions, and make delivery by outbox the default."""
    config.include("pyramid_tasks.contrib.pyramid_tm")
    get_tasks(config.registry).delivery = "outbox"


def add_outbox(config: Configurator) -> None:
    """Make delivery by outbox known. SQLAlchemy is needed where it is used."""
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

        for name in ("delivery_timeout", "outbox_lease", "outbox_max_attempts"):
            with reporting():
                outbox.number(name, 0)

    config.action((KEY, "check"), reporting()(check))


class OutboxDelivery(TransactionalDelivery):
    """Stores in the transaction, and sends when that has committed.

    Raises:
        TypeError: The arguments are not those of the task, or something of the call
            cannot be stored as JSON.
        OutboxError: There is no session, or no table.
    """

    def hold(self, request: Request, messages: list[Message]) -> None:
        from sqlalchemy import select

        from .outbox_table import OutboxMessage, database_time

        outbox = get_outbox(request.registry)
        session = outbox.get_session(request)
        outbox.check_table(session)
        now: Any = database_time()
        if len(messages) > 1:
            # Rows without expressions are inserted all at once.
            now = session.scalar(select(now))
        rows = [
            OutboxMessage(
                task=message.signature.task,
                task_id=message.result.id,
                message=_as_json(message.signature),
                created=now,
                not_before=now + outbox.number("outbox_lease", 5),
            )
            for message in messages
        ]
        # Through the session, so that zope.sqlalchemy sees a change to commit.
        session.add_all(rows)
        _InOutbox.of(request).messages += [
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


class _InOutbox(Outgoing[tuple["Session", "OutboxMessage", "Message"]]):
    def prepare(self, messages: list[tuple[Session, OutboxMessage, Message]]) -> None:
        # Flushed by now, and about to be detached from the session.
        self.engine = engine_of(messages[0][0])
        self.ids = [row.id for _, row, _ in messages if row.id is not None]

    def deliver(self, messages: list[tuple[Session, OutboxMessage, Message]]) -> None:
        """Send at once; what cannot be sent now, a relay will."""
        from .outbox_rows import is_waiting, leave_to_relay, send_rows

        outbox = get_outbox(self.registry)
        for _, _, message in messages:
            message.sent = True
        if not self.ids:  # rolled back, by a savepoint of the session
            return
        try:
            if outbox.left_last and is_waiting(self.engine, outbox.left_last):
                # What this process deferred before must not be overtaken.
                leave_to_relay(self.engine, self.ids)
                outbox.left_last = self.ids[-1]
                return
            outbox.left_last = None
            timeout = outbox.number("delivery_timeout", 2)
            sending = send_rows(
                get_tasks(self.registry).app,
                self.engine,
                ids=self.ids,
                timeout=timeout,
                max_attempts=int(outbox.number("outbox_max_attempts", 5)),
                deadline=time.monotonic() + timeout,
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
