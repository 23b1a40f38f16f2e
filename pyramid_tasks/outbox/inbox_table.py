"""The table of the inbox, on the same ``MetaData`` as the table of the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Double, Index, LargeBinary, String
from sqlalchemy.dialects.mysql import LONGBLOB, VARCHAR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .table import check_table, database_time, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TABLE_NAME = "pyramid_tasks_inbox"

# By default, MySQL does not distinguish "a" from "A". A BLOB holds no more than 64 KB.
_Name = String(255).with_variant(
    VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
_Bytes = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")


class _Base(DeclarativeBase):
    metadata = metadata


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

    __tablename__ = TABLE_NAME

    task_id: Mapped[str] = mapped_column(_Name, primary_key=True)
    delivery: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task: Mapped[str] = mapped_column(_Name, primary_key=True)
    content_type: Mapped[str | None] = mapped_column(String(255))
    result: Mapped[bytes | None] = mapped_column(_Bytes)
    created: Mapped[float] = mapped_column(Double, default=database_time())

    __table_args__ = (
        Index(f"{TABLE_NAME}_created", created),
        {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"},
    )


def check_inbox_table(bind: Engine | Connection) -> None:
    """Find out whether the database has the table of the inbox.

    Raises:
        OutboxTableMissing: It does not.
        sqlalchemy.exc.DBAPIError: The database cannot be reached.
    """
    check_table(bind, names=[TABLE_NAME])
