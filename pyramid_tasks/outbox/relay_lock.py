"""Which relay works: one at a time, so that the order of messages holds."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from celery.utils import uuid
from sqlalchemy import exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from .models import OutboxRelay, database_time
from .rows import begin, is_due

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_ID = 1


class RelayLock:
    """The right of a relay to work, which it renews again and again.

    When a relay dies, its lock ends, and a relay that stands by takes over.

    Args:
        seconds: For how long the lock lasts.

    Attributes:
        deadline: Until when this relay may work, by ``time.monotonic()``.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = 0.0
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid()[:8]}"

    def acquire(self, connection: Connection) -> bool:
        """Take or renew the lock, and return whether this relay has it now.

        The caller commits.
        """
        begun = time.monotonic()
        values = {"holder": self._holder, "until": database_time() + self.seconds}
        claim = (
            update(OutboxRelay)
            .where(
                OutboxRelay.id == _ID,
                or_(
                    OutboxRelay.holder == self._holder,
                    OutboxRelay.until < database_time(),
                ),
            )
            .values(values)
        )
        if not connection.execute(claim).rowcount:
            if connection.scalar(select(OutboxRelay.id)) is not None:
                return False
            try:
                with connection.begin_nested():
                    connection.execute(insert(OutboxRelay).values(id=_ID, **values))
            except IntegrityError:  # another relay was first
                return False
        self.deadline = begun + self.seconds
        return True

    def may_rest(self, connection: Connection) -> bool:
        """Whether this relay has the lock for long enough, and nothing is due.

        The database writes nothing for this, so a relay can look often.
        """
        is_fresh = exists().where(
            OutboxRelay.id == _ID,
            OutboxRelay.holder == self._holder,
            OutboxRelay.until > database_time() + self.seconds / 2,
        )
        return bool(connection.scalar(select(is_fresh & ~is_due())))

    def release(self, engine: Engine) -> None:
        """End the lock, so that another relay need not wait for its end."""
        if time.monotonic() >= self.deadline:
            return
        with begin(engine) as connection:
            connection.execute(
                update(OutboxRelay)
                .where(OutboxRelay.holder == self._holder)
                .values(until=0.0)
            )


def working_relay(connection: Connection) -> str | None:
    """Return the host and the process of the relay that works, if one does."""
    holder = connection.scalar(
        select(OutboxRelay.holder).where(OutboxRelay.until >= database_time())
    )
    return holder.rpartition(":")[0] if holder else None
