"""The relay: sends what web processes and workers left in the outbox."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..delivery.publisher import Publisher
from ..exceptions import OutboxError
from ..registry import get_tasks
from .configuration import get_outbox
from .relay_lock import working_relay
from .schema_relay import SLACK, SchemaRelay
from .tables import check_table, database_name
from .waiter import Waiter

if TYPE_CHECKING:
    from pyramid.registry import Registry
    from sqlalchemy import Engine

    from .publishing import Outcome

logger = logging.getLogger(__name__)

# Seconds between looks at the outbox, if the database wakes the relay or another relay
# works.
_INTERVAL = 2.0
# The same, if nobody wakes the relay.
_SHORT_INTERVAL = 0.2
# Seconds between attempts to reach a broker or a database that is down.
_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0
# Nobody waits for a relay, so it has more time than a request.
_MIN_TIMEOUT = 4.0


class Relay:
    """Sends the rows of the outbox of an application. Of several, one works.

    Args:
        registry: The registry of the application.
        engine: The engine that the relay connects with.
        interval: How many seconds to wait between looks at the outbox. Default, 2 on
            PostgreSQL with psycopg 3, which wakes a relay earlier, or else 0.2.
        batch: How many rows to take at a time; default 100. If the relay is killed
            meanwhile, these rows are sent again.

    Attributes:
        ends_within: How many seconds the relay may take to end. Then another relay may
            take over anyway.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        interval: float | None = None,
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
        self.ends_within = timeout + SLACK
        publisher = Publisher(self.app, timeout)
        self._schema_relays = [
            SchemaRelay(registry, each, publisher, self.waiter)
            for each in outbox.schemas.all(engine)
        ]
        self._failures = 0
        self._works: bool | None = None

    def send(self) -> Outcome | None:
        """Send a batch of what is due in each schema.

        Returns:
            The outcome, or ``None`` if other relays work.

        Raises:
            sqlalchemy.exc.DBAPIError: The database cannot be used. Before the relay
                sends anything else, it will delete the rows that it has sent.
        """
        outcome: Outcome | None = None
        for each in self._schema_relays:
            result = each.send(self.batch)
            if result is None:
                continue
            each.purge_inbox()
            if outcome is not None:
                result.add(outcome)
            outcome = result
            if result.broker_down is not None:
                break
        return outcome

    def run_once(self) -> int:
        """Send everything that is due, and return how many messages that was.

        Raises:
            OutboxTableMissing: The database has no table for the outbox.
            OutboxError: The broker is down, or another relay works. The messages stay
                in the outbox.
        """
        self._check()
        try:
            return sum(map(self._send_all_due, self._schema_relays))
        finally:
            self._release()

    def _send_all_due(self, schema_relay: SchemaRelay) -> int:
        sent = 0
        while not self.waiter.stopped:
            result = schema_relay.send(self.batch)
            if result is None:
                with schema_relay.engine.connect() as connection:
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
        schema_relay.purge_inbox()
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
                        self._check()
                        found = True
                        ready()
                    self.waiter.listen()
                    result = self.send()
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
            self._release()
            self.waiter.close()

    def _go_on(self, result: Outcome | None) -> None:
        """Tell of the outcome of a batch, and wait if there is nothing more to do."""
        works = result is not None
        if works != self._works:
            logger.info("This relay %s", "works" if works else "stands by")
            self._works = works
        if result is None:
            self.waiter.wait(self.interval or _INTERVAL)
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
            default = _INTERVAL if self.waiter.listens else _SHORT_INTERVAL
            self.waiter.wait(self.interval or default)

    def _check(self) -> None:
        for each in self._schema_relays:
            check_table(each.engine)

    def _release(self) -> None:
        for each in self._schema_relays:
            each.release()

    def _back_off(self, what: str, error: object) -> None:
        # As integers, which no number of failures makes too large.
        pause = _FIRST_PAUSE * min(2**self._failures, _MAX_PAUSE / _FIRST_PAUSE)
        self._failures += 1
        logger.warning("%s is down; trying again in %g s: %s", what, pause, error)
        self.waiter.pause(pause)

    def _broker(self) -> str:
        return str(self.app.connection_for_write().as_uri())
