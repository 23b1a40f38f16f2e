"""The tables of the outbox, on a ``MetaData`` of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    false,
    inspect,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from ..exceptions import OutboxTableMissing

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE_NAME = "pyramid_tasks_outbox"
RELAY_TABLE_NAME = "pyramid_tasks_outbox_relay"

_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

# SQLite numbers rows by itself only in an INTEGER column. A TEXT column of MySQL holds
# no more than 64 KB.
_Id = BigInteger().with_variant(Integer, "sqlite")
_LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")


class _Base(DeclarativeBase):
    """The base of the tables, apart from the models of the application."""


class OutboxMessage(_Base):
    """A task that waits to be sent. Times are in seconds since 1970.

    Attributes:
        id: A number; messages are sent in its order.
        task: The name of the task.
        task_id: The id of the task, the same on every attempt.
        message: The arguments and options of the call, as JSON.
        created: When the task was deferred.
        not_before: When a relay may send the message. Until then it belongs to the
            process that wrote it. After a refusal, the message is tried again then.
        attempts: How often the message was refused.
        error: Why the message was refused the last time.
        set_aside: Whether the message was refused too often and is not tried any more.
    """

    __tablename__ = TABLE_NAME
    __table_args__ = (
        # Relays look for the first rows that are not set aside.
        Index("ix_pyramid_tasks_outbox_due", "set_aside", "id"),
        # SQLite would give the id of the last row again after that row was deleted.
        {**_OPTIONS, "sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    task: Mapped[str] = mapped_column(_LongText)
    task_id: Mapped[str] = mapped_column(String(255))
    message: Mapped[str] = mapped_column(_LongText)
    created: Mapped[float] = mapped_column(Double)
    not_before: Mapped[float] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[str | None] = mapped_column(_LongText)
    set_aside: Mapped[bool] = mapped_column(default=False, server_default=false())


class OutboxRelay(_Base):
    """The relay that works, in one row. The other relays stand by.

    Attributes:
        id: Always 1.
        holder: The host and the process of the relay.
        until: When another relay may take over, if the row does not change before.
    """

    __tablename__ = RELAY_TABLE_NAME
    __table_args__ = _OPTIONS

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str] = mapped_column(String(255))
    until: Mapped[float] = mapped_column(Double)


#: The metadata with the tables of the outbox and nothing else.
metadata = _Base.metadata

# The metadata of applications that have these tables, too, and the schemas there.
_declared: WeakKeyDictionary[MetaData, set[str | None]] = WeakKeyDictionary()


def declare(target: MetaData, schema: str | None) -> None:
    """Take note that the metadata of an application has the tables.

    Args:
        target: The metadata.
        schema: The schema of the tables there.
    """
    _declared.setdefault(target, set()).add(schema)


def declared_schemas() -> set[str | None]:
    """Return the schemas that the metadata of applications names for the tables."""
    return set().union(*_declared.values())


def schema_of(bind: Engine | Connection, schema: str | None = None) -> str | None:
    """Return what the ``schema_translate_map`` of a bind puts in place of a schema."""
    translated = bind.get_execution_options().get("schema_translate_map") or {}
    found: str | None = translated.get(schema, schema)
    return found


def check_table(
    bind: Engine | Connection,
    schema: str | None = None,
    names: Iterable[str] = (TABLE_NAME, RELAY_TABLE_NAME),
) -> None:
    """Find out whether the database has the tables of the outbox, or others.

    Args:
        bind: The engine or the connection that asks the database.
        schema: Where the tables are to be; default, where the bind looks for them.
        names: The names of the tables.

    Raises:
        OutboxTableMissing: It does not.
        sqlalchemy.exc.DBAPIError: The database cannot be reached.
    """
    inspector = inspect(bind)
    schema = schema or schema_of(bind)
    for name in names:
        if not inspector.has_table(name, schema):
            raise OutboxTableMissing(
                name,
                database_name(bind.engine),
                schema,
                has_schema=schema is None or inspector.has_schema(schema),
                declared=tuple(sorted(filter(None, declared_schemas() - {schema}))),
            )


def database_name(engine: Engine) -> str:
    """Return the URL of a database without its password and its options."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def reason_of(error: Exception) -> object:
    """Return what the driver said: the errors of SQLAlchemy quote the statement too."""
    return getattr(error, "orig", None) or error


class database_time(FunctionElement[float]):  # noqa: N801 as SQLAlchemy's functions
    """The time by the clock of the database, which all processes share."""

    type = Double()
    inherit_cache = True


@compiles(database_time, "postgresql")
def _postgresql_time(*_: Any, **__: Any) -> str:
    # The time of now() stands still while a transaction runs.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(database_time, "mysql", "mariadb")
def _mysql_time(*_: Any, **__: Any) -> str:
    return "UNIX_TIMESTAMP(NOW(6))"


@compiles(database_time, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
