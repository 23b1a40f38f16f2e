"""How a relay waits: for a time, for its end, and for ``NOTIFY`` of PostgreSQL."""

from __future__ import annotations

import logging
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.utils import uuid
from sqlalchemy.exc import SQLAlchemyError

from .models import TABLE_NAME
from .rows import wake_relays
from .tables import database_name

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

# Seconds in which a relay hears its own word, if it can be woken.
_ECHO = 1.0


class Waiter:
    """Waits until there is something to do.

    On PostgreSQL with psycopg 3 it listens, with a connection of its own, for the
    ``NOTIFY`` of a process that leaves a row to the relays.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopped = False
        self._listener: Any = None
        # Whether the database does not pass on what is said to the listener.
        self._is_deaf = engine.dialect.driver != "psycopg"
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
        self._hear(seconds)

    @property
    def listens(self) -> bool:
        """Whether the database wakes this relay."""
        return self._listener is not None

    def listen(self) -> None:
        """Listen from now on, if the database and its driver can."""
        if self.listens or self._is_deaf:
            return
        try:
            self._listener = self._connect()
            self._is_deaf = not self._hears_itself()
        except (self._errors, SQLAlchemyError) as error:
            # The driver's, as SQLAlchemy does not know the connection that listens.
            # If the database is down, taking rows will tell; until then, polling does.
            logger.debug("Not listening: %s", error)
            self.forget()
        if self._is_deaf:
            logger.warning(
                "%s does not wake this relay, which looks at the outbox more often "
                "instead. Does PgBouncer stand before it, in transaction mode? Then "
                "name an engine without PgBouncer: config.set_task_outbox(engine=...)",
                database_name(self.engine),
            )
            self.forget()

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

    def _hears_itself(self) -> bool:
        """Whether a word of this relay comes back to it.

        PgBouncer takes a LISTEN and answers it. In transaction mode, it gives the
        connection that listens to somebody else then.
        """
        word = uuid()
        with self.engine.begin() as connection:
            wake_relays(connection, word)
        deadline = time.monotonic() + _ECHO
        while not self.stopped:
            left = deadline - time.monotonic()
            if word in self._hear(max(left, 0)) or not self.listens:
                return True
            if left <= 0:
                # Whoever has the connection now need not hear of relays.
                self._listener.execute("UNLISTEN *")
                return False
        return True

    def _hear(self, seconds: float) -> list[str]:
        """Wait as :meth:`wait` does, and return what was said."""
        files = [self._woken]
        if self._listener is not None:
            files.append(self._listener)
        ready, _, _ = select.select(files, [], [], seconds)
        words = []
        try:
            if self._listener in ready:
                self._listener.pgconn.consume_input()
                while notify := self._listener.pgconn.notifies():
                    words.append(notify.extra.decode())
        except self._errors as error:
            logger.debug("The database hung up: %s", error)
            self.forget()
        return words
