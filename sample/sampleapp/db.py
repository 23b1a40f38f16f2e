"""The database: `request.dbsession`, inside the transaction of `request.tm`."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

import zope.sqlalchemy
from sqlalchemy import engine_from_config, event
from sqlalchemy.orm import Session

from pyramid_tasks.contrib import outbox_table

from .models import Base

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request
    from sqlalchemy import Engine

ENGINE = "sampleapp.engine"
_BUSY_SECONDS = 30
_TABLES_LOCK = 6543


def includeme(config: Configurator) -> None:
    """Connect the application to `sqlalchemy.url`, and make missing tables."""
    settings = config.get_settings()
    # Explicit: using the database outside a transaction is an error, not a
    # transaction that nobody ends.
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    settings["tm.commit_veto"] = "pyramid_tm.default_commit_veto"
    config.include("pyramid_tm")
    # Tasks are sent when a transaction commits, and run in one.
    config.include("pyramid_tasks.contrib.pyramid_tm")

    engine = make_engine(settings)
    create_tables(engine)
    config.registry[ENGINE] = engine
    config.add_request_method(dbsession, reify=True)


def dbsession(request: Request) -> Session:
    """Return the session of a request; of a task's request too."""
    session = Session(request.registry[ENGINE])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def make_engine(settings: dict[str, Any]) -> Engine:
    """Make the engine of the `sqlalchemy.*` settings."""
    engine = engine_from_config(settings, "sqlalchemy.")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def create_tables(engine: Engine) -> None:
    """Make the tables that are missing.

    The web process and the worker start at the same time and both come here: the
    second waits for the first.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES_LOCK})")
        Base.metadata.create_all(connection)
        outbox_table.metadata.create_all(connection)
    # The worker forks later, which SQLite does not want with an open database.
    engine.dispose()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Write-ahead log: the pages can read while the worker writes. For this statement
    # SQLite does not heed the busy timeout when another process says the same.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
