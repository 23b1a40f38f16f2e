"""What is forgotten in a forked process: engines, wherever they are, and more."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
from celery import signals
from kombu import pools
from sqlalchemy import create_engine
from sqlalchemy.ext import asyncio
from sqlalchemy.orm import scoped_session, sessionmaker
from zope.interface import Interface

from pyramid_tasks import CeleryWorkerProcessInit
from pyramid_tasks.delivery.result_backends import limited_backend
from pyramid_tasks.worker import forking
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
    counts = pool.checkedin(), engine.pool.checkedin()
    return pool is not engine.pool and counts == (1, 0)


class IEngine(Interface):
    """A utility for an engine."""


PLACES = {
    "attribute": lambda registry, value: setattr(registry, "db", value),
    "item": lambda registry, value: registry.update(db=value),
    "setting": lambda registry, value: registry.settings.update(db=[value]),
    "utility": lambda registry, value: registry.registerUtility(value, IEngine),
    "named": lambda registry, value: registry.registerUtility(value, IEngine, "main"),
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
        asyncio.async_sessionmaker,
        lambda engine: asyncio.async_scoped_session(
            asyncio.async_sessionmaker(engine), os.getpid
        ),
    ],
    ids=["engine", "sessionmaker", "scoped"],
)
def test_async_engines(wrap, configure):
    """The engine inside an async engine is found too."""
    engine = asyncio.create_async_engine("postgresql+psycopg://localhost/nothing")
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
    config = configure()
    config.registry["db"] = engine
    with engine.connect():
        assert in_child(lambda: True)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "1 connections of Engine(sqlite:" in record.message
    assert "before the fork" in record.message


def in_child(run):
    """Run a function in a forked process, and return whether it was right."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)  # a child that waits for a lock would wait for ever
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_only_in_a_forked_process(engine, configure):
    """A child forgets the pool of its parent, but keeps it: it is not garbage.

    Else a driver might close it. A child that was not forked, but spawned, keeps the
    connections it has made.
    """
    config = configure()
    config.registry["db"] = engine
    app = config.make_celery_app()
    pool = weakref.ref(engine.pool)

    def is_forgotten_in_child():
        app.loader.init_worker_process()
        gc.collect()
        return is_forgotten(engine, [pool()])

    assert in_child(is_forgotten_in_child)
    assert not is_forgotten_in_child()


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


def test_broker(configure):
    """A child has a connection of its own, also if the parent has a pool locked."""
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    with app.producer_or_acquire() as producer:
        connection = producer.connection
    assert app.pool in pools.connections.values()

    def run():
        with app.producer_or_acquire() as producer:
            return producer.connection is not connection

    with app.pool._resource.mutex, app.producer_pool._resource.mutex:
        assert in_child(run)
    with app.producer_or_acquire() as producer:
        assert producer.connection is connection


def test_result_backend(configure):
    """A child has backends of its own, for a delivery with its time limit too."""
    app = configure(**{"celery.result_backend": "redis://"}).make_celery_app()

    def backends():
        return {app.backend, limited_backend(app, app.backend, 5.0)}

    before = backends()
    assert backends() == before
    assert in_child(lambda: backends().isdisjoint(before))


@pytest.mark.acceptance
def test_end_of_a_child(tmp_path):
    """A child does not close the connections of its parent when it ends either."""
    code = """
import os, sqlite3
from pyramid.config import Configurator
from sqlalchemy import create_engine

class Connection(sqlite3.Connection):
    def __del__(self):
        os.write(1, b"closed")

config = Configurator()
config.include("pyramid_tasks")
config.registry["db"] = create_engine(
    "sqlite:///test.sqlite",
    creator=lambda: sqlite3.connect("test.sqlite", factory=Connection),
)
config.registry["db"].connect().close()
if pid := os.fork():
    os.waitpid(pid, 0)
    os.write(1, b"parent")
"""
    output = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path)
    assert output == b"parentclosed"


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


@pytest.mark.parametrize("has_master", [True, False])
def test_uwsgi(has_master, monkeypatch):
    """uWSGI calls its own hook after a fork, and the hook that was there before."""
    called = []
    uwsgi = SimpleNamespace(post_fork_hook=lambda: called.append("before"))
    chain = []
    decorators = SimpleNamespace(postfork=chain.append) if has_master else None
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    monkeypatch.setattr(forking, "_leave_all_to_parent", lambda: called.append("ours"))
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    forking.watch_forks.__wrapped__()
    for hook in (*chain, uwsgi.post_fork_hook):
        hook()
    assert called == ["ours", "before"]
