"""The relay: sends what web processes and workers left in the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..delivery.publisher import Publisher
from ..exceptions import OutboxError
from ..registry import get_tasks
from .configuration import get_outbox
from .inbox_purge import InboxPurge
from .lease import RelayLease, working_relay
from .rows import begin, read_due
from .sending import Round, send, settle
from .table import check_table, database_name
from .waiter import Waiter

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

    from .rows import Row

logger = logging.getLogger(__name__)

# Seconds between attempts to reach a broker or a database that is down.
_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0
# Nobody waits for a relay, so it has more time than a request.
_MIN_TIMEOUT = 4.0
# How many seconds longer the lease of a relay is than it may wait for the broker.
_SLACK = 2.0
# How long the messages of a batch may be together.
_MAX_BYTES = 8_000_000


class Relay:
    """Sends the rows of the outbox of an application. Of several, one works.

    Args:
        registry: The registry of the application.
        engine: The engine that the relay connects with.
        interval: How many seconds to wait between looks at the outbox; default 2.
            PostgreSQL with psycopg 3 wakes a relay earlier.
        batch: How many rows to take at a time; default 100. If the relay is killed
            meanwhile, these rows are sent again.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        interval: float = 2.0,
        batch: int = 100,
    ) -> None:
        outbox = get_outbox(registry)
        timeout = max(outbox.number("delivery_timeout"), _MIN_TIMEOUT)
        self.app = get_tasks(registry).app
        self.engine = engine
        self.interval = interval
        self.batch = batch
        self.waiter = Waiter(engine)
        self.stop = self.waiter.stop
        self._publisher = Publisher(self.app, timeout)
        self._lease = RelayLease(timeout + _SLACK)
        self._max_attempts = int(outbox.number("outbox_max_attempts"))
        self._outcome: Round | None = None
        self._failures = 0
        self._works: bool | None = None
        self._inbox = InboxPurge(registry, engine)

    def send(self) -> Round | None:
        """Send a batch of what is due.

        Returns:
            The outcome, or ``None`` if another relay works.

        Raises:
            sqlalchemy.exc.DBAPIError: The database cannot be used. What was sent will
                be deleted before anything else is sent.
        """
        self._settle()
        with begin(self.engine) as connection:
            if not self._lease.take(connection):
                return None
            rows = read_due(connection, self.batch, _MAX_BYTES)
        # The database could be written to, so what is sent can be deleted, too.
        result = self._outcome = send(self._publisher, rows, self._may_send)
        self._settle()
        return result

    def run_once(self) -> int:
        """Send everything that is due, and return how many messages that was.

        Raises:
            OutboxError: The broker is down, or another relay works. The messages stay
                in the outbox.
        """
        sent = 0
        try:
            while not self.waiter.stopped:
                result = self.send()
                if result is None:
                    with self.engine.connect() as connection:
                        holder = working_relay(connection)
                    raise OutboxError(f"The relay {holder} works already.")
                sent += len(result.sent)
                if result.broker_down is not None:
                    raise OutboxError(
                        f"The broker {self._broker()} is down ({result.broker_down}); "
                        "the messages stay in the outbox."
                    )
                if not (result.sent or result.refused):
                    break
            self._inbox.run()
        finally:
            self._give_back()
        return sent

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Send what is due, until :meth:`stop` is called.

        Args:
            ready: A function that is called once the table was found.

        Raises:
            OutboxTableMissing: The database has no table for the outbox.
        """
        found = False
        try:
            while not self.waiter.stopped:
                try:
                    if not found:
                        check_table(self.engine)
                        found = True
                        ready()
                    self.waiter.listen()
                    result = self.send()
                    if result is not None:
                        self._inbox.run()
                except DBAPIError as error:
                    passes = isinstance(error, (InterfaceError, OperationalError))
                    if not passes and not error.connection_invalidated:
                        raise
                    self.waiter.forget()
                    name = database_name(self.engine)
                    self._back_off(f"The database {name}", error.orig)
                else:
                    self._go_on(result)
        finally:
            self._give_back()
            self.waiter.close()

    def _go_on(self, result: Round | None) -> None:
        """Tell of the outcome of a batch, and wait if there is nothing more to do."""
        works = result is not None
        if works != self._works:
            logger.info("This relay %s", "works" if works else "stands by")
            self._works = works
        if result is None:
            self.waiter.wait(self.interval)
            return
        if result.broker_down is not None:
            self._back_off(f"The broker {self._broker()}", result.broker_down)
            return
        if self._failures:
            logger.info("Everything is back")
            self._failures = 0
        if result.sent:
            logger.info("Sent %s messages of the outbox", len(result.sent))
        if not (result.sent or result.refused):
            self.waiter.wait(self.interval)

    def _may_send(self, _row: Row) -> bool:
        in_time = time.monotonic() + self._publisher.timeout < self._lease.deadline
        return in_time and not self.waiter.stopped

    def _settle(self) -> None:
        """Note the outcome of what was sent. After an error, that is tried again."""
        if self._outcome is not None:
            with begin(self.engine) as connection:
                settle(connection, self._outcome, self._max_attempts)
            self._outcome = None

    def _give_back(self) -> None:
        with suppress(DBAPIError):  # then the lease ends by itself
            self._settle()
            self._lease.give_back(self.engine)

    def _back_off(self, what: str, error: object) -> None:
        pause = min(_FIRST_PAUSE * 2**self._failures, _MAX_PAUSE)
        self._failures += 1
        logger.warning("%s is down; trying again in %g s: %s", what, pause, error)
        self.waiter.pause(pause)

    def _broker(self) -> str:
        return str(self.app.connection_for_write().as_uri())
