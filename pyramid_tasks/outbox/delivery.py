"""Delivery by outbox: see :mod:`pyramid_tasks.contrib.outbox`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded
from kombu.utils.json import dumps

from ..configuration.deliveries import add_delivery
from ..configuration.load import check_at_commit
from ..delivery.transactional import TaskDataManager, TransactionalDelivery
from ..exceptions import DeferError, SettingError
from ..registry import get_tasks
from .configuration import KEY, Outbox, get_outbox, set_task_outbox

if TYPE_CHECKING:
    from celery.canvas import Signature
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from pyramid.request import Request
    from sqlalchemy import Engine

    from ..delivery.message import Message
    from .transactions import JoinedTransaction, OwnTransaction


def includeme(config: Configurator) -> None:
    """Add the delivery, which needs SQLAlchemy only when it is used."""
    registry = config.registry
    tasks = get_tasks(registry)
    add_delivery(config, "outbox", OutboxDelivery(tasks.app))
    registry[KEY] = Outbox(registry)
    config.add_directive("set_task_outbox", set_task_outbox)

    def check() -> None:
        if tasks.delivery == "outbox" and not find_spec("sqlalchemy"):
            raise SettingError(
                "pyramid_tasks.delivery",
                "= outbox needs SQLAlchemy: install pyramid-tasks[outbox].",
            )

    check_at_commit(config, (KEY, "check"), check)


class OutboxDelivery(TransactionalDelivery):
    """Stores a call in the transaction, and sends it after the commit."""

    def hold(self, request: Request, messages: list[Message]) -> None:
        """Store messages with the session of the request.

        Raises:
            DeferError: JSON cannot hold a message.
            OutboxError: The request has no session, or the database has no table.
        """
        from .transactions import JoinedTransaction

        outbox = get_outbox(request.registry)
        session = outbox.get_session(request)
        transaction = JoinedTransaction(outbox, session, request.tm)
        held = [_Held(message, transaction) for message in messages]
        transaction.write([each.row for each in held])
        _OutboxDataManager.of(request, self).hold(request, held)


class _Held:
    """A message, its row, and the transaction in which the row is written."""

    def __init__(self, message: Message, transaction: JoinedTransaction) -> None:
        from .rows import Row

        self.message = message
        self.transaction = transaction
        signature = message.signature
        self.row = Row(signature.task, str(message.id), _as_json(signature))
        self.drop = message.drop


def _as_json(signature: Signature) -> str:
    try:
        body: str = dumps(signature, separators=(",", ":"))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        raise DeferError(
            f"{signature.task} cannot be delivered by outbox, which stores JSON: "
            f"{error}"
        ) from error
    return body


class _OutboxDataManager(TaskDataManager[_Held]):
    def __init__(self, manager: Any, registry: Registry) -> None:
        super().__init__(manager, registry)
        # Of each database whose session was closed.
        self._own: dict[Engine, OwnTransaction] = {}

    def begin_commit(self, items: list[_Held]) -> None:
        # Each session has been flushed by now, and none has been asked to commit.
        for transaction in {item.transaction for item in items}:
            if transaction.is_open:
                transaction.mark_changed()

    def before_commit(self, items: list[_Held]) -> None:
        from .transactions import OwnTransaction, grouped

        pairs = ((item.transaction, item.row) for item in items)
        for transaction, rows in grouped(pairs).items():
            if transaction.is_open:
                transaction.before_commit(rows)
            else:
                engine = transaction.engine
                if engine not in self._own:
                    outbox = get_outbox(self.registry)
                    self._own[engine] = OwnTransaction(outbox, engine)
                self._own[engine].write(rows)

    def commit_with_others(self) -> None:
        for own in self._own.values():
            own.commit()

    def send_at_once(self, items: list[_Held]) -> None:
        # Nothing is left that could store them.
        commit: Any = get_tasks(self.registry).get_delivery("commit")
        commit.send(self.transaction_manager, [item.message for item in items])

    def after_abort(self) -> None:
        while self._own:
            _, own = self._own.popitem()
            own.close()

    def after_commit(self, items: list[_Held]) -> None:
        """Hand the rows to whoever sends them."""
        from .transactions import grouped

        self.after_abort()
        outbox = get_outbox(self.registry)
        for item in items:
            item.message.sent = True
            # What the request sends itself, Celery adds.
            in_thread = outbox.sends_in_thread(item.transaction.engine)
            if in_thread or outbox.sent_by == "relay":
                item.message.add_to_parent()
        groups = grouped(
            ((item.transaction.engine, item.row.schema), item.row) for item in items
        )
        for (engine, schema), rows in groups.items():
            located = outbox.schemas.at(engine, schema)
            if outbox.sends_in_thread(engine):
                outbox.sender.put(located, rows)
            elif outbox.sent_by != "relay":
                outbox.sender.send_now(located, rows)
        for engine, schema in groups:
            outbox.check_schema(engine, schema)
