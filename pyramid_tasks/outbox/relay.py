"""The relay: sends what web processes and workers left in the outbox."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..exceptions import OutboxError
from ..registry import get_tasks
from .configuration import get_outbox
from .inbox_purge import InboxPurge
from .rows import Round, send_rows
from .table import check_table
from .waiter import Waiter

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

# Seconds between attempts to reach a broker or a database that is down.
_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0
# Nobody waits for a relay, so it has more time than a request.
_MIN_TIMEOUT = 10.0


class Relay:
    """Sends the rows of the outbox of an application. Several may run at once.

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
        self.app = get_tasks(registry).app
        self.engine = engine
        self.interval = interval
        self.batch = batch
        self.waiter = Waiter(engine)
        self.stop = self.waiter.stop
        self._timeout = max(outbox.number("delivery_timeout"), _MIN_TIMEOUT)
        self._max_attempts = int(outbox.number("outbox_max_attempts"))
        self._failures = 0
        self._inbox = InboxPurge(registry, engine)

    def send(self) -> Round:
        """Send a batch of what is due."""
        return send_rows(
            self.app,
            self.engine,
            timeout=self._timeout,
            max_attempts=self._max_attempts,
            limit=self.batch,
            stopped=lambda: self.waiter.stopped,
        )

    def run_once(self) -> int:
        """Send everything that is due, and return how many messages that was.

        Raises:
            OutboxError: The broker is down. The messages stay in the outbox.
        """
        sent = 0
        while not self.waiter.stopped:
            result = self.send()
            sent += len(result.sent)
            if result.broker_down is not None:
                raise OutboxError(
                    f"The broker {self._broker()} is down ({result.broker_down}); the "
                    "messages stay in the outbox."
                )
            if result.taken < self.batch:
                break
        self._inbox.run()
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
                    self._inbox.run()
                except DBAPIError as error:
                    passes = isinstance(error, (InterfaceError, OperationalError))
                    if not passes and not error.connection_invalidated:
                        raise
                    self.waiter.close()
                    self._back_off(f"The database {self.engine.url}", error.orig)
                    continue
                if result.broker_down is not None:
                    self._back_off(f"The broker {self._broker()}", result.broker_down)
                    continue
                if self._failures:
                    logger.info("Everything is back")
                    self._failures = 0
                if result.sent:
                    logger.info("Sent %s messages of the outbox", len(result.sent))
                if result.taken < self.batch:
                    self.waiter.wait(self.interval)
        finally:
            self.waiter.close()

    def _back_off(self, what: str, error: object) -> None:
        pause = min(_FIRST_PAUSE * 2**self._failures, _MAX_PAUSE)
        self._failures += 1
        logger.warning("%s is down; trying again in %g s: %s", what, pause, error)
        self.waiter.pause(pause)

    def _broker(self) -> str:
        return str(self.app.connection_for_write().as_uri())
