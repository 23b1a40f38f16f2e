"""The models of the outbox and of the inbox, on a ``MetaData`` of their own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
)
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

TABLE_NAME = "pyramid_tasks_outbox"
RELAY_TABLE_NAME = "pyramid_tasks_outbox_relay"
INBOX_TABLE_NAME = "pyramid_tasks_inbox"

_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

# SQLite numbers rows by itself only in an INTEGER column.
_Id = BigInteger().with_variant(Integer, "sqlite")
# A TEXT column of MySQL holds no more than 64 KB, and neither does a BLOB.
_LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
_Bytes = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
# By default, MySQL does not distinguish "a" from "A".
_Name = String(255).with_variant(
    VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)


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


class InboxRow(_Base):
    """A task that has changed the database, or a redelivered message of a task.

    Attributes:
        task_id: The id of the task.
        delivery: 0 for a task that has changed the database. Otherwise, a delivery of
            its message that the broker had marked as redelivered, counted from 1.
        task: The name of the task.
        content_type: How the return value was serialized; ``None`` if nobody asks for
            the value.
        result: The return value, as the result serializer wrote it.
        created: When the row was made, in seconds since 1970.
    """

    __tablename__ = INBOX_TABLE_NAME

    task_id: Mapped[str] = mapped_column(_Name, primary_key=True)
    delivery: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task: Mapped[str] = mapped_column(_Name, primary_key=True)
    content_type: Mapped[str | None] = mapped_column(String(255))
    result: Mapped[bytes | None] = mapped_column(_Bytes)
    created: Mapped[float] = mapped_column(Double, default=database_time())

    __table_args__ = (Index(f"{INBOX_TABLE_NAME}_created", created), _OPTIONS)


#: The metadata with these tables and nothing else.
metadata = _Base.metadata
