"""The transactions in which rows are written: that of a session, or one beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zope.sqlalchemy import mark_changed
from zope.sqlalchemy.datamanager import join_transaction

from ..delivery._transaction import resources
from ..exceptions import OutboxError
from .insert import insert_rows
from .models import OutboxMessage
from .rows import Row, is_written, renew_lease, wake_relays

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

    from .configuration import Outbox

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# The get_bind() of an application may expect a mapper, as SQLAlchemy passes mappers.
_BIND = {"mapper": OutboxMessage.__mapper__}

# A lease that is older than this part of it is renewed before the commit.
_OLD = 0.5
# How much of a lease a process uses, as sending takes time.
_USABLE = 0.75


class JoinedTransaction:
    """The transaction that a session has when tasks are deferred.

    The session has joined the transaction of the request.

    Attributes:
        engine: The engine of the database.
    """

    def __init__(self, outbox: Outbox, session: Session, manager: Any) -> None:
        self._outbox = outbox
        self._session = session
        self._manager = manager
        self._begun = time.monotonic()
        outbox.check_table(self._connection)
        self.engine: Engine = self._connection.engine
        join_transaction(session, transaction_manager=manager, keep_session=True)
        self._transaction = session.get_transaction()
        self._will_commit = self._is_of_manager()

    @property
    def is_open(self) -> bool:
        """Whether what was written will be committed.

        ``session.close()`` undoes it, and nothing in the session is committed then.
        """
        is_ours = self._session.get_transaction() is self._transaction
        return self._will_commit and is_ours

    def write(self, rows: Sequence[Row]) -> None:
        """Insert rows. Without an open transaction, they are inserted at the commit."""
        schema = self._outbox.schemas.of_session(self._connection)
        for row in rows:
            row.schema = schema
        if rows and self._will_commit:
            _write(self._outbox, self._connection, rows, self._begun)

    def before_commit(self, rows: Sequence[Row]) -> None:
        """Give the rows a lease that lasts, and let the commit wake a relay."""
        outbox = self._outbox
        if outbox.sent_by == "relay":
            wake_relays(self._connection)
            return
        now = time.monotonic()
        if now - self._begun > outbox.lease * _OLD:
            for schema, some in grouped((row.schema, row) for row in rows).items():
                options = outbox.schemas.options(schema)
                renew_lease(self._connection, some, outbox.lease, options)
            _set_deadline(rows, now, outbox.lease)

    def mark_changed(self) -> None:
        """Let the transaction commit the session, even if it changed nothing else."""
        mark_changed(self._session, self._manager)

    @property
    def _connection(self) -> Connection:
        return self._session.connection(bind_arguments=_BIND)

    def _is_of_manager(self) -> bool:
        # A session that was closed and used again has a transaction that nobody
        # commits.
        for resource in resources(self._manager.get()):
            if getattr(resource, "session", None) is self._session:
                return getattr(resource, "tx", None) in {None, self._transaction}
        raise OutboxError(
            "The session of the request takes part in the transactions of another "
            "manager than request.tm, which would commit the outbox without the rest. "
            "Give zope.sqlalchemy.register() transaction_manager=request.tm."
        )


class OwnTransaction:
    """A transaction beside the sessions' transactions, for rows that a session lost."""

    def __init__(self, outbox: Outbox, engine: Engine) -> None:
        self._outbox = outbox
        self._connection = engine.connect()

    def write(self, rows: Sequence[Row]) -> None:
        """Insert rows, but for those that are there: somebody committed the session."""
        for schema, some in grouped((row.schema, row) for row in rows).items():
            options = self._outbox.schemas.options(schema)
            missing = [
                row for row in some if not is_written(self._connection, row, options)
            ]
            if missing:
                _write(self._outbox, self._connection, missing, time.monotonic())

    def commit(self) -> None:
        """Commit the rows."""
        self._connection.commit()

    def close(self) -> None:
        """Give the connection back. Work that is not committed is undone."""
        self._connection.close()


def _write(
    outbox: Outbox, connection: Connection, rows: Sequence[Row], begun: float
) -> None:
    """Insert rows of one schema."""
    options = outbox.schemas.options(rows[0].schema)
    insert_rows(connection, rows, outbox.lease, options)
    _set_deadline(rows, begun, outbox.lease)


def _set_deadline(rows: Sequence[Row], begun: float, lease: float) -> None:
    for row in rows:
        row.deadline = begun + lease * _USABLE


def grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    """Return the values of each key, in their order."""
    groups: dict[_Key, list[_Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
