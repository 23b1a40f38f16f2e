"""The work of a relay in one schema: it sends the rows, and purges the inbox."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from ..registry import get_tasks, tasks_with_inbox
from .configuration import get_outbox
from .inbox_rows import purge
from .publishing import Outcome, publish_rows, record_outcome
from .relay_lock import RelayLock
from .rows import begin, read_due
from .tables import check_inbox_table

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

    from ..delivery.publisher import Publisher
    from .rows import Row
    from .waiter import Waiter

# Seconds that the lock of a relay lasts after the longest wait for the broker.
SLACK = 2.0
# How long the messages of a batch may be together.
_MAX_BYTES = 8_000_000
# Seconds between looks for old rows of the inbox, and how many are deleted at a time,
# as messages wait meanwhile.
_PURGE_INTERVAL = 60.0
_PURGE_AT_MOST = 5000


class SchemaRelay:
    """Sends the rows of an outbox in one schema, if no other relay does.

    Args:
        registry: The registry of the application.
        engine: An engine that finds the tables in the schema.
        publisher: The publisher that sends the rows.
        waiter: It knows whether the relay is to end.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        publisher: Publisher,
        waiter: Waiter,
    ) -> None:
        self.engine = engine
        self._publisher = publisher
        self._waiter = waiter
        self._lock = RelayLock(publisher.timeout + SLACK)
        self._unrecorded: Outcome | None = None
        outbox = get_outbox(registry)
        self._max_attempts = int(outbox.number("outbox_max_attempts"))
        self._inbox_keep = outbox.number("inbox_keep")
        # Without an inbox, its table is not asked for.
        has_inbox = any(tasks_with_inbox(get_tasks(registry).app))
        self._purge_at = time.monotonic() if has_inbox else math.inf

    def send(self, batch: int) -> Outcome | None:
        """Send rows that are due, as :meth:`Relay.send` does.

        Args:
            batch: How many rows to take.
        """
        self._record()
        with self.engine.connect() as connection:
            if self._lock.may_rest(connection):
                return Outcome()
        with begin(self.engine) as connection:
            if not self._lock.acquire(connection):
                return None
            rows = read_due(connection, batch, _MAX_BYTES)
        # The database could be written to, so what is sent can be deleted, too.
        publisher = self._publisher
        outcome = publish_rows(publisher, rows, self._may_send, publisher.producer)
        self._unrecorded = outcome
        self._record()
        return outcome

    def purge_inbox(self) -> None:
        """Delete some old rows of the inbox, if there is one and it is time to.

        Raises:
            OutboxTableMissing: The database has no table for the inbox.
            sqlalchemy.exc.DBAPIError: The database cannot be used.
        """
        if time.monotonic() < self._purge_at:
            return
        check_inbox_table(self.engine)
        deleted = purge(self.engine, self._inbox_keep, at_most=_PURGE_AT_MOST)
        if deleted < _PURGE_AT_MOST:
            self._purge_at = time.monotonic() + _PURGE_INTERVAL

    def release(self) -> None:
        """End the lock, so that another relay need not wait for its end."""
        with suppress(DBAPIError):  # then the lock ends by itself
            self._record()
            self._lock.release(self.engine)

    def _may_send(self, _row: Row) -> bool:
        in_time = time.monotonic() + self._publisher.timeout < self._lock.deadline
        return in_time and not self._waiter.stopped

    def _record(self) -> None:
        """Record the outcome of what was sent. After an error, that is tried again."""
        if self._unrecorded is not None:
            with begin(self.engine) as connection:
                record_outcome(connection, self._unrecorded, self._max_attempts)
            self._unrecorded = None
