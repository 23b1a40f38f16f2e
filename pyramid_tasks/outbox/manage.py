"""The functions with which commands show and change messages in the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, update

from .models import OutboxMessage, database_time
from .relay_lock import working_relay
from .rows import wake_relays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

_columns = OutboxMessage.__table__.c


@dataclass
class Status:
    """A summary of the outbox.

    Attributes:
        waiting: How many messages wait to be sent.
        oldest: The age of the oldest message that waits, in seconds.
        set_aside: How many messages were refused too often.
        relay: The host and the process of the relay that works, if one does.
    """

    waiting: int
    oldest: float
    set_aside: int
    relay: str | None


def get_status(connection: Connection) -> Status:
    """Count the messages in the outbox."""
    query = select(
        _columns.set_aside,
        func.count(),
        database_time() - func.min(_columns.created),
    ).group_by(_columns.set_aside)
    found = {key: (count, age) for key, count, age in connection.execute(query)}
    waiting, oldest = found.get(False, (0, 0.0))
    set_aside, _ = found.get(True, (0, None))
    return Status(waiting, oldest, set_aside, working_relay(connection))


def summarize(statuses: Iterable[Status]) -> Status:
    """Summarize several outboxes. One without a relay is as if none had one."""
    statuses = list(statuses)
    relays = [each.relay for each in statuses]
    return Status(
        sum(each.waiting for each in statuses),
        max(each.oldest for each in statuses),
        sum(each.set_aside for each in statuses),
        relays[0] if all(relays) else None,
    )


def read_all(connection: Connection, *, with_messages: bool) -> Iterator[Any]:
    """Iterate over the rows of the outbox as they are in the database.

    Each has ``id``, ``task``, ``task_id``, ``age`` in seconds, ``attempts``,
    ``set_aside``, ``error``, and ``message`` if asked for.
    """
    query = select(
        _columns.id,
        _columns.task,
        _columns.task_id,
        (database_time() - _columns.created).label("age"),
        _columns.attempts,
        _columns.set_aside,
        _columns.error,
        *([_columns.message] if with_messages else ()),
    ).order_by(_columns.id)
    return iter(connection.execution_options(yield_per=100).execute(query))


def find_missing(connection: Connection, ids: Iterable[int]) -> list[int]:
    """Return the ids that no message has, in their order."""
    wanted = dict.fromkeys(ids)
    query = select(_columns.id).where(_columns.id.in_(wanted))
    found = {*connection.scalars(query)}
    return [number for number in wanted if number not in found]


def retry(connection: Connection, ids: Sequence[int], *, every: bool) -> int:
    """Let relays try messages again at once, as if they had never been refused.

    Args:
        ids: The rows.
        every: Whether all are meant that were refused, in place of those.

    Returns:
        How many rows there were.
    """
    which = _columns.attempts > 0 if every else _columns.id.in_(ids)
    statement = (
        update(OutboxMessage)
        .where(which)
        .values(attempts=0, set_aside=False, not_before=database_time())
    )
    count = connection.execute(statement).rowcount
    wake_relays(connection)
    return count


def discard(connection: Connection, ids: Sequence[int]) -> int:
    """Delete messages that shall not be sent, and return how many there were."""
    return connection.execute(
        delete(OutboxMessage).where(_columns.id.in_(ids))
    ).rowcount
