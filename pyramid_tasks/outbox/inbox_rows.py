"""The rows of the inbox: found, added, counted, and deleted when they are old."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import WorkerLostError
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from .inbox_table import TABLE_NAME, InboxRow
from .table import database_time, metadata

if TYPE_CHECKING:
    from celery import Task
    from sqlalchemy import Connection, Engine

#: A return value: its content type and what the serializer wrote, or twice ``None``.
Stored = tuple[str | None, bytes | None]

# How many rows one transaction deletes.
_BATCH = 1000

_OF_TASK = InboxRow.task_id == bindparam("task_id")
_FIND = select(InboxRow.content_type, InboxRow.result).where(
    _OF_TASK, InboxRow.delivery == 0
)
# About the table, as a statement about a model takes longer.
_ADD = insert(metadata.tables[TABLE_NAME]).inline()
_DELIVERIES = select(InboxRow.delivery).where(_OF_TASK)
_FORGET = delete(InboxRow).where(_OF_TASK, InboxRow.delivery > 0)


def find(connection: Connection, task_id: str) -> Stored | None:
    """Return the return value of a task that has changed the database, if it has."""
    row = connection.execute(_FIND, {"task_id": task_id}).one_or_none()
    return None if row is None else (row.content_type, row.result)


def add(connection: Connection, task: Task, stored: Stored) -> None:
    """Add the row of the running task.

    Raises:
        sqlalchemy.exc.IntegrityError: The task has changed the database meanwhile.
    """
    content_type, result = stored
    row = {"task_id": task.request.id, "delivery": 0, "task": task.name[:255]}
    connection.execute(_ADD, {**row, "content_type": content_type, "result": result})


def count_delivery(engine: Engine, task: Task, at_most: float) -> None:
    """Count that the running task has been delivered again, before it runs.

    Args:
        engine: The engine of the inbox.
        task: The task. The broker has marked its message as redelivered.
        at_most: How many deliveries may end with the death of the process.

    Raises:
        celery.exceptions.WorkerLostError: That many have.
    """
    parameters = {"task_id": task.request.id}
    with suppress(IntegrityError), engine.begin() as connection:
        deliveries = connection.scalars(_DELIVERIES, parameters).all()
        if 0 in deliveries:
            return
        # The first delivery was not marked, and has no row.
        if len(deliveries) + 1 >= at_most:
            raise WorkerLostError(
                f"The process that ran {task.name}[{task.request.id}] was lost "
                f"{len(deliveries) + 1} times; see pyramid_tasks.max_deliveries."
            )
        row = {**parameters, "task": task.name[:255], "delivery": len(deliveries) + 1}
        connection.execute(insert(InboxRow), row)


def forget_deliveries(engine: Engine, task_id: str) -> None:
    """Forget the deliveries of a task whose process has outlived its error."""
    with engine.begin() as connection:
        connection.execute(_FORGET, {"task_id": task_id})


def purge(
    engine: Engine,
    keep: float,
    *,
    at_most: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Delete old rows of the inbox, in batches, and return how many there were.

    Args:
        engine: The engine of the inbox.
        keep: For how many seconds a row is kept.
        at_most: After how many rows to stop, about; default, all.
        stopped: A function that is called before each batch, and says whether to stop.
    """
    if engine.dialect.name in {"mysql", "mariadb"}:
        # At the default level, DELETE locks the gaps where tasks add their rows.
        engine = engine.execution_options(isolation_level="READ COMMITTED")
    created = InboxRow.created
    deleted, begin = 0, 0.0
    while not stopped() and (at_most is None or deleted < at_most):
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
