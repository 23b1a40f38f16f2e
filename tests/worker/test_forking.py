"""What is forgotten in a forked process: engines, wherever they are, and more."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest
from celery import signals
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import (
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker
from zope.interface import Interface

from pyramid_tasks import CeleryWorkerProcessInit
from pyramid_tasks.worker.forking import leave_to_parent


@pytest.fixture
def engine(tmp_path):
    """Return an engine that has a connection in its pool."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    with engine.connect():
        pass
    assert engine.pool.checkedin() == 1
    yield engine
    engine.dispose()


def is_forgotten(engine, inherited):
    """Whether an engine has left its connection, unclosed, in the pool it had."""
    (pool,) = inherited
    return pool is not engine.pool and (pool.checkedin(), engine.pool.checkedin()) == (
        1,
        0,
    )


class IEngine(Interface):
    """A utility for an engine."""


PLACES = {
    "attribute": lambda registry, value: setattr(registry, "db", value),
    "item": lambda registry, value: registry.update(db=value),
    "setting": lambda registry, value: registry.settings.update(db=value),
    "utility": lambda registry, value: registry.registerUtility(value, IEngine),
    "named utility": lambda registry, value: registry.registerUtility(
        value, IEngine, name="main"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_places(place, engine, configure):
    """An engine is found wherever a registry can hold it, among other things."""
    config = configure()
    config.add_route("route", "/")  # registers an interface
    config.commit()
    PLACES[place](config.registry, engine)
    assert is_forgotten(engine, leave_to_parent(config.registry))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda engine: {"main": engine},
        lambda engine: [engine],
        lambda engine: (engine, engine),
        sessionmaker,
        lambda engine: sessionmaker(binds={object: engine}),
        lambda engine: scoped_session(sessionmaker(engine)),
        lambda engine: engine.execution_options(schema_translate_map={}),
    ],
    ids=["dict", "list", "tuple", "bind", "binds", "scoped", "options"],
)
def test_forms(wrap, engine, configure):
    """An engine is found in what has one, and disposed of once."""
    registry = configure().registry
    registry["db"] = wrap(engine)
    assert is_forgotten(engine, leave_to_parent(registry))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda engine: engine,
        async_sessionmaker,
        lambda engine: async_scoped_session(async_sessionmaker(engine), os.getpid),
    ],
    ids=["engine", "sessionmaker", "scoped"],
)
def test_async_engines(wrap, configure):
    """The engine inside an async engine is found too."""
    engine = create_async_engine("postgresql+psycopg://localhost/nothing")
    pool = engine.pool
    registry = configure().registry
    registry["db"] = wrap(engine)
    assert leave_to_parent(registry) == [pool]
    assert engine.pool is not pool


def test_several_engines(engine, configure):
    """All engines are forgotten, but for a database in memory, which a fork copies."""
    other = create_engine("postgresql+psycopg://localhost/nothing")
    in_memory = create_engine("sqlite://")
    registry = configure().registry
    registry["db"] = {"one": engine, "other": other, "memory": in_memory}
    pools = [engine.pool, other.pool]
    in_memory_pool = in_memory.pool
    assert leave_to_parent(registry) == pools
    assert {engine.pool, other.pool}.isdisjoint(pools)
    assert in_memory.pool is in_memory_pool


def test_connection_in_use(engine, configure, caplog):
    """A connection that is checked out is a warning, which says what to do."""
    registry = configure().registry
    registry["db"] = engine
    with engine.connect():
        leave_to_parent(registry)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "1 connections of Engine(sqlite:" in record.message
    assert "before the worker starts" in record.message


def in_child(run):
    """Run a function in a forked process, and return whether it was right."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_only_in_a_forked_process(engine, configure):
    """A child that was not forked, but spawned, keeps the connections it has made."""
    config = configure()
    config.registry["db"] = engine
    app = config.make_celery_app()

    def is_forgotten_in_child():
        app.loader.init_worker_process()
        return engine.pool.checkedin() == 0

    assert in_child(is_forgotten_in_child)
    assert not is_forgotten_in_child()


def test_pools_of_the_parent_are_kept(engine, configure):
    """What the child has forgotten is not garbage, which a driver might close."""
    config = configure()
    config.registry["db"] = engine
    app = config.make_celery_app()
    pool = weakref.ref(engine.pool)

    def run():
        app.loader.init_worker_process()
        gc.collect()
        return engine.pool is not pool() and pool().checkedin() == 1

    assert in_child(run)


def test_before_the_subscribers(engine, configure):
    """In a child, subscribers of CeleryWorkerProcessInit can use the database."""
    config = configure()
    config.registry["db"] = engine
    seen = []
    config.add_subscriber(
        lambda event: seen.append(event.registry["db"].pool.checkedin()),
        CeleryWorkerProcessInit,
    )
    app = config.make_celery_app()

    def run():
        app.loader.init_worker_process()
        signals.worker_process_init.send(sender=None)
        return seen == [0]

    assert in_child(run)


def test_error(configure, caplog):
    """An error ends the child, as a connection may be shared, and is logged."""
    config = configure()
    config.add_fork_safe(lambda registry: 1 / 0)
    app = config.make_celery_app()

    def run():
        with pytest.raises(SystemExit, match="1"):
            app.loader.init_worker_process()
        record = caplog.records[-1]
        return record.exc_info[0] is ZeroDivisionError and (
            record.message == "Leaving connections to the parent process failed"
        )

    assert in_child(run)


@pytest.mark.acceptance
def test_sqlalchemy_is_not_imported():
    """An application without SQLAlchemy does not pay for it."""
    code = """
import sys
from pyramid.config import Configurator
from pyramid_tasks.worker.forking import leave_to_parent

config = Configurator()
config.include("pyramid_tasks")
config.add_fork_safe(print)
config.commit()
leave_to_parent(config.registry)
assert "sqlalchemy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
