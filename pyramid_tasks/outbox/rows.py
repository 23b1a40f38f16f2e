"""Sending the rows of the outbox, which web processes, workers and relays do alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kombu.utils.json import loads
from sqlalchemy import delete, func, select, text, update

from ..delivery.publisher import publish
from ..delivery.result_backends import BrokerDown
from .table import TABLE_NAME, OutboxMessage, database_time

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from ..application import PyramidCelery

logger = logging.getLogger(__name__)

# Seconds between two attempts to send a message that was refused.
_MAX_DELAY = 60.0


@dataclass
class Round:
    """The rows that were taken at one time, and the outcome for each of them."""

    taken: int = 0
    sent: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    refused: list[tuple[Any, Exception]] = field(default_factory=list)
    broker_down: BrokerDown | None = None


def send_rows(
    app: PyramidCelery,
    engine: Engine,
    *,
    timeout: float,
    max_attempts: int,
    limit: int | None = None,
    ids: Sequence[int] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Round:
    """Send rows of the outbox in their order, and delete them.

    A row is deleted after the broker has taken its message. If the process dies in
    between, the message is sent again. A row that another process is sending is left to
    that process, if the database can skip locked rows.

    Args:
        app: The Celery application that sends.
        engine: The engine that connects to the outbox.
        timeout: How many seconds to wait for the broker, for each message.
        max_attempts: How many refusals set a message aside.
        limit: How many rows to take; default, all.
        ids: The rows to take; default, all that are due.
        stopped: A function that is called before each message, and says whether to
            leave the rest; default, never.

    Raises:
        sqlalchemy.exc.DBAPIError: The database cannot be used.
    """
    result = Round()
    with connect(engine) as connection:
        rows = _take(connection, limit, ids)
        result.taken = len(rows)
        for row in rows:
            if stopped():
                break
            try:
                publish(app, {**loads(row.message), "task": row.task}, timeout)
            except BrokerDown as error:
                result.broker_down = error
                break
            except Exception as error:  # noqa: BLE001 whatever a message can cause
                result.refused.append((row, error))
            else:
                result.sent.append(row.id)
        tried = len(result.sent) + len(result.refused)
        result.left = [row.id for row in rows[tried:]]
        _settle(connection, result, max_attempts)
        if ids is not None and result.left:
            _leave_to_relay(connection, result.left)
        connection.commit()
    return result


def queue_behind(engine: Engine, last: int, ids: Sequence[int]) -> bool:
    """Leave rows to the relays if an earlier row still waits there.

    Args:
        engine: The engine that connects to the outbox.
        last: The id of the earlier row.
        ids: The rows that must not overtake it.

    Returns:
        Whether the rows were left to the relays.
    """
    table = OutboxMessage
    waiting = select(table.id).where(table.id == last, table.attempts == 0)
    with connect(engine) as connection:
        if connection.scalar(waiting) is None:
            return False
        _leave_to_relay(connection, ids)
        connection.commit()
    return True


def connect(engine: Engine) -> Connection:
    """Return a connection that locks no more than the rows that it takes."""
    connection = engine.connect()
    if engine.dialect.name in {"mysql", "mariadb"}:
        # At the default level, FOR UPDATE locks the gaps between rows as well. Then no
        # request could defer a task while another process sends.
        connection = connection.execution_options(isolation_level="READ COMMITTED")
    return connection


def _take(
    connection: Connection, limit: int | None, ids: Sequence[int] | None
) -> Sequence[Any]:
    table = OutboxMessage
    query = select(table.id, table.task, table.task_id, table.message, table.attempts)
    query = query.order_by(table.id).limit(limit)
    if ids is None:
        query = query.where(
            table.set_aside.is_(False), table.not_before <= database_time()
        )
    else:
        query = query.where(table.id.in_(ids))
    if _has_skip_locked(connection):
        return connection.execute(query.with_for_update(skip_locked=True)).all()
    rows = connection.execute(query).all()
    # SQLite has one lock for everything, and nobody should wait for the broker.
    connection.commit()
    return rows


def _has_skip_locked(connection: Connection) -> bool:
    dialect: Any = connection.dialect
    if dialect.name == "postgresql":
        return True
    if dialect.name in {"mysql", "mariadb"}:
        needed = (10, 6) if dialect.is_mariadb else (8, 0, 1)
        return bool(dialect.server_version_info >= needed)
    return False


def _settle(connection: Connection, result: Round, max_attempts: int) -> None:
    table = OutboxMessage
    if result.sent:
        connection.execute(delete(table).where(table.id.in_(result.sent)))
    for row, error in result.refused:
        attempts = row.attempts + 1
        set_aside = attempts >= max_attempts
        words = f"{type(error).__name__}: {error}"
        delay = min(2.0**row.attempts, _MAX_DELAY)
        connection.execute(
            update(table)
            .where(table.id == row.id)
            .values(
                attempts=attempts,
                # Databases differ in the characters that a text may contain.
                error=words.encode("ascii", "backslashreplace").decode(),
                set_aside=set_aside,
                not_before=database_time() + delay,
            )
        )
        logger.log(
            logging.ERROR if set_aside else logging.WARNING,
            "Message %s of the outbox, %s[%s], was refused for the %s. time%s: %s",
            row.id,
            row.task,
            row.task_id,
            attempts,
            ", and is set aside" if set_aside else "",
            words,
        )


def _leave_to_relay(connection: Connection, ids: Sequence[int]) -> None:
    table = OutboxMessage
    connection.execute(
        update(table)
        .where(table.id.in_(ids), table.attempts == 0)
        .values(not_before=database_time())
    )
    # This wakes the relays when it commits.
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {TABLE_NAME}"))


@dataclass
class Status:
    """A summary of the outbox.

    Attributes:
        waiting: How many messages wait to be sent.
        set_aside: How many messages were refused too often.
        oldest: The age of the oldest message that waits, in seconds.
    """

    waiting: int
    set_aside: int
    oldest: float


def get_status(engine: Engine) -> Status:
    """Count the messages in the outbox."""
    table = OutboxMessage
    query = select(
        table.set_aside, func.count(), database_time() - func.min(table.created)
    ).group_by(table.set_aside)
    with engine.connect() as connection:
        found = {key: (count, age) for key, count, age in connection.execute(query)}
    waiting, oldest = found.get(False, (0, 0.0))
    set_aside, _ = found.get(True, (0, 0.0))
    return Status(waiting, set_aside, oldest)
