"""The savepoints of SQLAlchemy sessions, which ``transaction`` knows nothing about."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakSet

from ._transaction import resources

if TYPE_CHECKING:
    from pyramid.request import Request
    from sqlalchemy.orm import SessionTransaction

_rolled_back: WeakSet[SessionTransaction] = WeakSet()


def open_savepoints(request: Request) -> tuple[SessionTransaction, ...]:
    """Return the savepoints that are open in the sessions of a request.

    ``session.begin_nested()`` opens one, and so does ``request.tm.savepoint()`` in each
    session that ``zope.sqlalchemy`` has made part of the transaction.
    """
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is None:
        return ()
    # A session joins the transaction with its first statement, which may follow.
    sessions = []
    for each in vars(request).values():
        if isinstance(each, orm.Session):
            sessions.append(each)
        elif isinstance(each, orm.scoped_session) and each.registry.has():
            sessions.append(each.registry())
    for resource in resources(request.tm.get()):
        session = getattr(resource, "session", None)
        if isinstance(session, orm.Session):
            sessions.append(session)
    found = []
    for session in sessions:
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            _watch_rollbacks()
        while savepoint is not None and savepoint.nested:
            found.append(savepoint)
            savepoint = savepoint.parent
    return tuple(found)


def is_rolled_back(savepoints: tuple[SessionTransaction, ...]) -> bool:
    """Whether one of some savepoints was rolled back, after it was found open."""
    return any(each in _rolled_back for each in savepoints)


@cache
def _watch_rollbacks() -> None:
    # SQLAlchemy is there by now: an application without it must not import it.
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    @event.listens_for(Session, "after_soft_rollback")
    def remember(_session: Session, savepoint: SessionTransaction) -> None:
        if savepoint.nested:
            _rolled_back.add(savepoint)
