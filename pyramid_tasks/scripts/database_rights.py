"""Whether a database lets an application use the outbox and the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils import uuid
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import ProgrammingError

from ..exceptions import OutboxTableMissing
from ..outbox.models import InboxRow, OutboxMessage, OutboxRelay
from ..outbox.tables import check_inbox_table, check_table

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# Words of MariaDB and MySQL, and of SQLite. PostgreSQL has an error of its own.
_NO_COLUMN = ("Unknown column", "has no column named", "no such column")

# No relay would send it.
_MESSAGE = {"message": "{}", "created": 0.0, "not_before": 0.0, "set_aside": True}


def ask_database(engine: Engine, *, outbox: bool, inbox: bool) -> str:
    """Write, read, change and delete a row of each table, and roll that back.

    Args:
        engine: The engine of a process.
        outbox: Whether the application uses the outbox.
        inbox: Whether a task has an inbox.

    Returns:
        The answer of the database.

    Raises:
        OutboxTableMissing: The database has no such table.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be used.
    """
    word = uuid()
    rows: dict[Any, dict[str, Any]] = {}
    if outbox:
        rows[OutboxMessage] = {"task": word, "task_id": word, **_MESSAGE}
        rows[OutboxRelay] = {"id": 0, "holder": word, "until": 0.0}
    if inbox:
        rows[InboxRow] = {"task_id": word, "delivery": 0, "task": word}
    with engine.connect() as connection:
        if outbox:
            check_table(connection)
        if inbox:
            check_inbox_table(connection)
        for model, row in rows.items():
            _use(connection, model.__table__, row)
        connection.rollback()
        dialect = connection.dialect
        version = ".".join(map(str, dialect.server_version_info or ()))
    names = ", ".join(model.__tablename__ for model in rows)
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    return f"answers: {name} {version}, where {names} can be used."


def database_remedy(engine: Engine, error: Exception) -> str:
    """Return what to do about an error of :func:`ask_database`."""
    if isinstance(error, OutboxTableMissing):
        return ""
    # Words of PostgreSQL, and of MariaDB and MySQL.
    if any(words in str(error) for words in ("permission denied", "command denied")):
        name = engine.url.username or "of this URL"
        also = ""
        if engine.dialect.name == "postgresql":
            also = ", and USAGE on the sequence pyramid_tasks_outbox_id_seq"
        return (
            f"Grant the user {name} SELECT, INSERT, UPDATE and DELETE on the tables"
            f"{also}."
        )
    if isinstance(error, ProgrammingError) or any(
        words in str(error) for words in _NO_COLUMN
    ):
        return "Are the tables those of this version?"
    return "Is the URL of the engine right, does the server run, and is it reachable?"


def _use(connection: Connection, table: Any, row: dict[str, Any]) -> None:
    key: Any = connection.execute(insert(table).values(row)).inserted_primary_key
    name = "task" if "task" in row else "holder"
    # By the whole primary key, as any other condition could lock other rows.
    keys = zip(table.primary_key, key, strict=True)
    this = and_(*(column == value for column, value in keys))
    connection.execute(select(table.c[name]).where(this))
    connection.execute(update(table).where(this).values({name: row[name]}))
    connection.execute(delete(table).where(this))
