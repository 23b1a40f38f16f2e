"""How a relay waits: for a time, for a signal to stop, for a word from PostgreSQL."""

from __future__ import annotations

import logging
import select
import socket
from typing import TYPE_CHECKING, Any

from .outbox_rows import CHANNEL

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)


class Waiter:
    """Waits, and is woken.

    On PostgreSQL with psycopg 3 it listens, with a connection of its own, for what
    :func:`pyramid_tasks.contrib.outbox_rows.wake_relays` says.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopped = False
        self._listener: Any = None
        # A signal handler may write to it: select() alone goes on after a signal.
        self._wake, self._woken = socket.socketpair()
        self._wake.settimeout(0)

    def stop(self, *_: object) -> None:
        """End this wait and all later ones; a signal handler."""
        self.stopped = True
        self._wake.send(b"\0")

    def pause(self, seconds: float) -> None:
        """Wait, and let only :meth:`stop` end it."""
        if not self.stopped:
            select.select([self._woken], [], [], seconds)

    def wait(self, seconds: float) -> None:
        """Wait, or until there is something in the outbox."""
        if self.stopped:
            return
        files = [self._woken]
        if self._listener is not None:
            files.append(self._listener)
        ready, _, _ = select.select(files, [], [], seconds)
        if self._listener in ready:
            self._drain()

    def listen(self) -> None:
        """Listen from now on, if the database can speak."""
        engine = self.engine
        if self._listener is not None or engine.dialect.driver != "psycopg":
            return
        fairy = engine.raw_connection()
        connection: Any = fairy.driver_connection
        # Never back into the pool, nor counted by it.
        fairy.detach()
        connection.rollback()
        connection.autocommit = True
        connection.execute(f"LISTEN {CHANNEL}")
        self._listener = connection

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _drain(self) -> None:
        try:
            self._listener.pgconn.consume_input()
            while self._listener.pgconn.notifies():
                pass
        except self.engine.dialect.loaded_dbapi.Error as error:
            logger.debug("The database hung up: %s", error)
            self.close()
