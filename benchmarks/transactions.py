"""A database for the application, and transactions in which tasks are deferred."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zope.sqlalchemy
from pyramid.scripting import prepare
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_tasks.contrib import outbox_table

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Registry
    from sqlalchemy import Engine

_ENGINE = "benchmarks.engine"

Defer = Callable[[Any], object]


def includeme(config: Configurator) -> None:
    """Connect the application to ``sqlalchemy.url``, with one session a request."""
    settings = config.get_settings()
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    config.include("pyramid_tm")
    config.include("pyramid_tasks.contrib.pyramid_tm")
    config.registry[_ENGINE] = create_engine(settings["sqlalchemy.url"])
    config.add_request_method(dbsession, reify=True)


def dbsession(request: Any) -> Session:
    """Return the session of a request, part of its transaction."""
    session = Session(request.registry[_ENGINE])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def create_tables(registry: Registry) -> None:
    """Create the outbox, and a table to write to."""
    with _engine(registry).begin() as connection:
        connection.execute(text("CREATE TABLE work (x integer)"))
        outbox_table.metadata.create_all(connection)


def disconnect(registry: Registry) -> None:
    """Close the connections to the database."""
    _engine(registry).dispose()


def transact(
    registry: Registry, within: Defer | None = None, then: Defer | None = None
) -> None:
    """Run a transaction that writes one row.

    Args:
        within: Called with the request, before the commit.
        then: Called with the request, after the commit.
    """
    with prepare(registry=registry) as env:
        request = env["request"]
        with request.tm:
            request.dbsession.execute(text("INSERT INTO work VALUES (1)"))
            zope.sqlalchemy.mark_changed(request.dbsession, request.tm)
            if within:
                within(request)
        if then:
            then(request)


def _engine(registry: Registry) -> Engine:
    engine: Engine = registry[_ENGINE]
    return engine
