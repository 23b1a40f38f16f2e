"""The rows of the inbox: found, added, counted, and deleted when they are old."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import WorkerLostError
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from .models import INBOX_TABLE_NAME, InboxRow, database_time, metadata

if TYPE_CHECKING:
    from celery import Task
    from sqlalchemy import Connection, Engine

    from .schemas import Options

#: A return value: its content type and what the serializer wrote, or twice ``None``.
Stored = tuple[str | None, bytes | None]

# How many rows one transaction deletes.
_BATCH = 1000

# Tasks have ids of their own, unless an application gives one to several tasks, or
# replaces a task.
_OF_TASK = (InboxRow.task_id == bindparam("task_id")) & (
    InboxRow.task == bindparam("task")
)
_FIND = select(InboxRow.content_type, InboxRow.result).where(
    _OF_TASK, InboxRow.delivery == 0
)
# About the table, as a statement about a model takes longer.
_ADD = insert(metadata.tables[INBOX_TABLE_NAME]).inline()
_DELIVERIES = select(InboxRow.delivery).where(_OF_TASK)
_FORGET = delete(InboxRow).where(_OF_TASK, InboxRow.delivery > 0)


def _key(task: Task) -> dict[str, str]:
    """Return the columns that tell the running task from all others."""
    return {"task_id": task.request.id, "task": task.name[:255]}


def find(
    connection: Connection, task: Task, options: Options | None = None
) -> Stored | None:
    """Return the return value of the running task, if it has changed the database.

    Args:
        connection: A connection to the database of the inbox.
        task: The task.
        options: The execution options for the schema of the table.
    """
    row = connection.execute(_FIND, _key(task), execution_options=options).one_or_none()
    return None if row is None else (row.content_type, row.result)


def find_anywhere(engines: Iterable[Engine], task: Task) -> Stored | None:
    """Return what :func:`find` finds first, with engines for several schemas."""
    for engine in engines:
        with engine.connect() as connection:
            if (stored := find(connection, task)) is not None:
                return stored
    return None


def add(connection: Connection, task: Task, stored: Stored, options: Options) -> None:
    """Add the row of the running task.

    Args:
        connection: The connection of its session.
        task: The task.
        stored: Its return value.
        options: The execution options for the schema of the table.

    Raises:
        sqlalchemy.exc.IntegrityError: The task has changed the database meanwhile.
    """
    content_type, result = stored
    row = _key(task) | {"delivery": 0, "content_type": content_type, "result": result}
    connection.execute(_ADD, row, execution_options=options)


def count_redelivery(engines: Sequence[Engine], task: Task, at_most: float) -> None:
    """Count that the running task has been delivered again, before it runs.

    The first of several schemas has the count, as the task has not chosen one yet.

    Args:
        engines: An engine for each schema of the inbox.
        task: The task. The broker has marked its message as redelivered.
        at_most: How many deliveries may end with the death of the process.

    Raises:
        celery.exceptions.WorkerLostError: That many have.
    """
    key = _key(task)
    if find_anywhere(engines[1:], task) is not None:
        return
    with suppress(IntegrityError), engines[0].begin() as connection:
        deliveries = connection.scalars(_DELIVERIES, key).all()
        if 0 in deliveries:
            return
        # The first delivery was not marked, and has no row.
        if len(deliveries) + 1 >= at_most:
            raise WorkerLostError(
                f"The process that ran {task.name}[{task.request.id}] was lost "
                f"{len(deliveries) + 1} times; see pyramid_tasks.max_deliveries."
            )
        row = key | {"delivery": len(deliveries) + 1}
        connection.execute(insert(InboxRow), row)


def forget_redeliveries(engine: Engine, task: Task) -> None:
    """Forget the deliveries of a task whose process has outlived its error."""
    with engine.begin() as connection:
        connection.execute(_FORGET, _key(task))


def purge(engine: Engine, keep: float, *, at_most: int | None = None) -> int:
    """Delete old rows of the inbox, in batches, and return how many there were.

    Args:
        engine: The engine of the inbox.
        keep: For how many seconds a row is kept.
        at_most: After how many rows to stop, about; default, all.
    """
    if engine.dialect.name in {"mysql", "mariadb"}:
        # At the default level, DELETE locks the gaps where tasks add their rows.
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    created = InboxRow.created
    deleted, begin = 0, 0.0
    while at_most is None or deleted < at_most:
        with engine.begin() as connection:
            now: Any = connection.scalar(select(database_time()))
            # From where the last batch ended: an index keeps what was deleted a while.
            old = (created >= begin) & (created < now - keep)
            # The last of the batch, so that no database has to be given a list of ids.
            last = select(created).where(old).order_by(created).offset(_BATCH - 1)
            end = connection.scalar(last.limit(1))
            if end is not None:
                old = (created >= begin) & (created <= end)
            deleted += int(connection.execute(delete(InboxRow).where(old)).rowcount)
        if end is None:
            break
        begin = end
    return deleted
