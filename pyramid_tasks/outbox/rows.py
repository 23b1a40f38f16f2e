"""The rows of the outbox: the statements that read, change and delete them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kombu.utils.json import loads
from sqlalchemy import delete, exists, func, select, text, update

from .models import TABLE_NAME, database_time, metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine, Exists

    from ..delivery.canvas import Canvas
    from .schemas import Options

logger = logging.getLogger(__name__)

# Seconds between two attempts to send a message that was refused.
_MAX_DELAY = 60.0

_table = metadata.tables[TABLE_NAME]
_columns = _table.c

_due = _columns.set_aside.is_(False), _columns.not_before <= database_time()


@dataclass(slots=True)
class Row:
    """A row, as a process has it that wrote it or is to send it.

    Attributes:
        task: The name of the task.
        task_id: The id of the task.
        message: The call as JSON.
        id: The number of the row; 0 until it is written.
        attempts: How often it was refused.
        schema: The schema of its table, as far as that is known.
        deadline: Until when no relay sends it, by ``time.monotonic()``.
        context: The context variables of the code that deferred the task. Tracers keep
            the current span in one.
    """

    task: str
    task_id: str
    message: str
    id: int = 0
    attempts: int = 0
    schema: str | None = None
    deadline: float = math.inf
    context: Context = field(default_factory=copy_context)

    @property
    def canvas(self) -> Canvas:
        """The call."""
        return {**loads(self.message), "task": self.task}


def renew_lease(
    connection: Connection, rows: Iterable[Row], lease: float, options: Options
) -> None:
    """Keep rows of one schema from the relays for longer."""
    connection.execute(
        update(_table).where(*_are(rows)).values(not_before=database_time() + lease),
        execution_options=options,
    )


def is_written(connection: Connection, row: Row, options: Options) -> bool:
    """Whether the database has a row."""
    found = select(_columns.id).where(*_are([row]))
    return connection.scalar(found, execution_options=options) is not None


def is_leased(connection: Connection, row: Row) -> bool | None:
    """Whether a row that is left to the relays is not due for them yet.

    Returns:
        ``None`` if it was sent or refused meanwhile.
    """
    is_later = _columns.not_before > database_time()
    found = select(is_later).where(*_are([row]), _columns.attempts == 0)
    leased: bool | None = connection.scalar(found)
    return leased


def delete_sent(connection: Connection, rows: Iterable[Row]) -> int:
    """Delete rows, and return how many were there."""
    return connection.execute(delete(_table).where(*_are(rows))).rowcount


def leave_to_relay(connection: Connection, rows: Iterable[Row]) -> int:
    """End the lease of rows, and wake the relays when this is committed.

    Returns:
        How many rows were found.
    """
    found = connection.execute(
        update(_table)
        .where(*_are(rows), _columns.attempts == 0)
        .values(not_before=database_time())
    )
    wake_relays(connection)
    return found.rowcount


def wake_relays(connection: Connection, word: str = "") -> None:
    """Wake the relays when this is committed, if the database can.

    Args:
        word: The word that the relays hear.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {TABLE_NAME}, '{word}'"))


def refuse(
    connection: Connection, row: Row, error: BaseException, max_attempts: int
) -> None:
    """Take note that a message was refused, and set it aside if that was often."""
    attempts = row.attempts + 1
    set_aside = attempts >= max_attempts
    words = f"{type(error).__name__}: {error}"
    delay = float(min(2**row.attempts, _MAX_DELAY))  # 2.0**1024 is an error
    connection.execute(
        update(_table)
        .where(*_are([row]))
        .values(
            attempts=attempts,
            # Databases differ in the characters that a text may contain.
            error=words.replace("\0", "\\0")
            .encode("ascii", "backslashreplace")
            .decode(),
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


def is_due() -> Exists:
    """Return the condition that a row is due, which takes one look at the index."""
    return exists().where(*_due)


def read_due(connection: Connection, limit: int, max_bytes: int) -> list[Row]:
    """Return the first rows that are due.

    Args:
        limit: How many rows, at most.
        max_bytes: How long their messages may be together; one may always be longer.
    """
    # The length of a long text is known without reading it.
    name = "length" if connection.dialect.name == "sqlite" else "octet_length"
    length = getattr(func, name)(_columns.message)
    # With the id alone, PostgreSQL may read all rows that are set aside before these.
    order = _columns.set_aside, _columns.id
    due = select(_columns.id, length).where(*_due).order_by(*order).limit(limit)
    ids: list[int] = []
    size = 0
    for number, added in connection.execute(due):
        size += added
        if ids and size > max_bytes:
            break
        ids.append(number)
    if not ids:
        return []
    rows = (
        select(
            _columns.task,
            _columns.task_id,
            _columns.message,
            _columns.id,
            _columns.attempts,
        )
        .where(_columns.id.in_(ids))
        .order_by(_columns.id)
    )
    return [Row(*found) for found in connection.execute(rows)]


@contextmanager
def begin(engine: Engine) -> Iterator[Connection]:
    """Give a connection, in a transaction whose loss would do no harm.

    A row that is not deleted after all is sent twice, and nothing else happens.
    """
    with engine.connect() as connection:
        if connection.dialect.name in {"mysql", "mariadb"}:
            # At the default level, statements lock the gaps between rows as well, and
            # two processes could wait for each other.
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL synchronous_commit TO off"))
            yield connection


def _are(rows: Iterable[Row]) -> tuple[Any, Any]:
    """Return the conditions for some rows.

    The id of a row is not enough: SQLite may have given it to another row since.
    """
    rows = list(rows)
    return (
        _columns.id.in_([row.id for row in rows]),
        _columns.task_id.in_([row.task_id for row in rows]),
    )
