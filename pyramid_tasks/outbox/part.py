"""The work of a relay on the outbox of one schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from .inbox_purge import InboxPurge
from .publishing import Outcome, publish_rows, record_outcome
from .relay_lock import RelayLock
from .rows import begin, read_due

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

    from ..delivery.publisher import Publisher
    from .rows import Row

# How many seconds longer the lock of a relay lasts than it may wait for the broker.
SLACK = 2.0
# How long the messages of a batch may be together.
_MAX_BYTES = 8_000_000


class RelayPart:
    """Sends the rows of an outbox in one schema, if no other relay does.

    Args:
        registry: The registry of the application.
        engine: An engine that finds the tables in the schema.
        publisher: The publisher that sends the rows.
        max_attempts: How many refusals set a message aside.
        stopped: A function that says whether the relay is to end.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        publisher: Publisher,
        max_attempts: int,
        stopped: Callable[[], bool],
    ) -> None:
        self.engine = engine
        self.inbox = InboxPurge(registry, engine)
        self._publisher = publisher
        self._max_attempts = max_attempts
        self._stopped = stopped
        self._lock = RelayLock(publisher.timeout + SLACK)
        self._unrecorded: Outcome | None = None

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

    def release(self) -> None:
        """End the lock, so that another relay need not wait for its end."""
        with suppress(DBAPIError):  # then the lock ends by itself
            self._record()
            self._lock.release(self.engine)

    def _may_send(self, _row: Row) -> bool:
        in_time = time.monotonic() + self._publisher.timeout < self._lock.deadline
        return in_time and not self._stopped()

    def _record(self) -> None:
        """Record the outcome of what was sent. After an error, that is tried again."""
        if self._unrecorded is not None:
            with begin(self.engine) as connection:
                record_outcome(connection, self._unrecorded, self._max_attempts)
            self._unrecorded = None
