"""The tables: an import, its expenses, its unreadable rows, and its notice."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    String,
    Text,
    TypeDecorator,
    func,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.orm import Session

Status = Literal["waiting", "running", "done", "failed"]


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC on every database: SQLite drops time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Store UTC."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Say that it is UTC."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]
        return value.astimezone(UTC)  # type: ignore[no-any-return]


class Base(DeclarativeBase):
    """What the tables have in common: their metadata."""


class Import(Base):
    """A CSV file that somebody sent, and how far the worker is with it."""

    __tablename__ = "import"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    created: Mapped[datetime] = mapped_column(Moment, default=now, index=True)
    # Deferred: up to some megabytes that only the task needs.
    text: Mapped[str] = mapped_column(Text, deferred=True)
    status: Mapped[Status] = mapped_column(default="waiting")
    error: Mapped[str | None] = mapped_column(Text)
    # Counted by the task, so not known while the import waits.
    rows_total: Mapped[int | None]
    rows_done: Mapped[int] = mapped_column(default=0)
    rows_bad: Mapped[int] = mapped_column(default=0)
    # When the task last said how far it is.
    progressed: Mapped[datetime | None] = mapped_column(Moment)
    # How many times a worker has begun. A message can be delivered again while the
    # first worker only seems dead; a worker whose number is not the latest stops.
    attempt: Mapped[int] = mapped_column(default=0)


class Expense(Base):
    """An expense that was read from a file."""

    __tablename__ = "expense"

    id: Mapped[int] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(
        ForeignKey("import.id", ondelete="CASCADE"), index=True
    )
    line: Mapped[int]
    day: Mapped[date]
    category: Mapped[str] = mapped_column(String(60))
    # Whole cents: SQLite has no decimal numbers.
    cents: Mapped[int] = mapped_column(BigInteger)


class BadRow(Base):
    """A row of a file that could not be read."""

    __tablename__ = "bad_row"

    id: Mapped[int] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(
        ForeignKey("import.id", ondelete="CASCADE"), index=True
    )
    line: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)


class Notice(Base):
    """What is said to who sent a file once it is imported, as an e-mail would."""

    __tablename__ = "notice"

    import_id: Mapped[int] = mapped_column(
        ForeignKey("import.id", ondelete="CASCADE"), primary_key=True
    )
    text: Mapped[str] = mapped_column(Text)


def totals(
    dbsession: Session, import_id: int, limit: int, offset: int = 0
) -> dict[str, Decimal]:
    """Return the sums of some categories of an import, sorted by name.

    A file can have as many categories as rows, so nobody wants all of them at once.
    """
    rows = dbsession.execute(
        select(Expense.category, func.sum(Expense.cents))
        .where(Expense.import_id == import_id)
        .group_by(Expense.category)
        .order_by(Expense.category)
        .limit(limit)
        .offset(offset)
    )
    return {category: _amount(cents) for category, cents in rows}


def grand_total(dbsession: Session, import_id: int) -> tuple[int, Decimal]:
    """Return the number of categories of an import, and the sum of all expenses."""
    number, cents = dbsession.execute(
        select(
            func.count(Expense.category.distinct()),
            func.coalesce(func.sum(Expense.cents), 0),
        ).where(Expense.import_id == import_id)
    ).one()
    return number, _amount(cents)


def _amount(cents: Any) -> Decimal:
    return Decimal(int(cents)).scaleb(-2)


def bad_rows(dbsession: Session, import_id: int, limit: int) -> list[BadRow]:
    """Return the first rows of an import that could not be read."""
    query = (
        select(BadRow)
        .where(BadRow.import_id == import_id)
        .order_by(BadRow.line)
        .limit(limit)
    )
    return list(dbsession.scalars(query))
