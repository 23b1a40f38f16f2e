"""How a relay waits: for seconds, for a signal to stop, for a word from PostgreSQL."""

from __future__ import annotations

import logging
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .table import TABLE_NAME

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)


class Waiter:
    """Waits until there is something to do.

    On PostgreSQL with psycopg 3 it listens, with a connection of its own, for the
    ``NOTIFY`` of a process that leaves a row to the relays.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopped = False
        self._listener: Any = None
        dbapi: Any = engine.dialect.loaded_dbapi
        self._errors: type[Exception] = dbapi.Error
        # select() goes on after a signal, so the signal handler writes to a socket, and
        # nobody reads it.
        self._wake, self._woken = socket.socketpair()
        self._wake.settimeout(0)

    def stop(self, *_: object) -> None:
        """End this wait and all later ones. This is a signal handler."""
        self.stopped = True
        with suppress(OSError):  # it is closed, or full
            self._wake.send(b"\0")

    def pause(self, seconds: float) -> None:
        """Wait for some seconds; only :meth:`stop` ends this wait earlier."""
        select.select([self._woken], [], [], seconds)

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until there is something in the outbox."""
        files = [self._woken]
        if self._listener is not None:
            files.append(self._listener)
        ready, _, _ = select.select(files, [], [], seconds)
        if self._listener in ready:
            self._drain()

    def listen(self) -> None:
        """Listen from now on, if the database and its driver can."""
        engine = self.engine
        if self._listener is not None or engine.dialect.driver != "psycopg":
            return
        try:
            self._listener = self._connect()
        except self._errors as error:
            # The error is the driver's, as SQLAlchemy does not know this connection.
            # If the database is down, taking rows will tell; until then, polling does.
            logger.debug("Not listening: %s", error)

    def close(self) -> None:
        """Stop listening, and close the files. No wait may follow."""
        self.forget()
        self._wake.close()
        self._woken.close()

    def forget(self) -> None:
        """Stop listening, until :meth:`listen`."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _connect(self) -> Any:
        fairy = self.engine.raw_connection()
        connection: Any = fairy.driver_connection
        # The pool must neither take the connection back nor count it.
        fairy.detach()
        try:
            connection.rollback()
            connection.autocommit = True
            connection.execute(f"LISTEN {TABLE_NAME}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _drain(self) -> None:
        try:
            self._listener.pgconn.consume_input()
            while self._listener.pgconn.notifies():
                pass
        except self._errors as error:
            logger.debug("The database hung up: %s", error)
            self.forget()
