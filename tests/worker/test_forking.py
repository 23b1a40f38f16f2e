"""What is forgotten in a forked process: engines, wherever they are, and more."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from functools import partial

import pytest
from celery import signals
from pyramid.exceptions import ConfigurationConflictError
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import (
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker
from zope.interface import Interface

from pyramid_tasks import CeleryWorkerProcessInit, PyramidTasksError
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


def set_attribute(registry, value):
    registry.db = value


def set_item(registry, value):
    registry["db"] = value


def set_setting(registry, value):
    registry.settings["db"] = value


def set_utility(registry, value):
    registry.registerUtility(value, IEngine)


def set_named_utility(registry, value):
    registry.registerUtility(value, IEngine, name="main")


@pytest.mark.parametrize(
    "put", [set_attribute, set_item, set_setting, set_utility, set_named_utility]
)
def test_places(put, engine, configure):
    """An engine is found wherever a registry can hold it."""
    registry = configure().registry
    put(registry, engine)
    assert is_forgotten(engine, leave_to_parent(registry))


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
    """All engines are forgotten."""
    other = create_engine("postgresql+psycopg://localhost/nothing")
    registry = configure().registry
    registry["one"], registry["other"] = engine, other
    pools = [engine.pool, other.pool]
    assert leave_to_parent(registry) == pools
    assert {engine.pool, other.pool}.isdisjoint(pools)


def test_database_in_memory(configure):
    """A database in memory is copied by a fork, not shared, and stays."""
    engine = create_engine("sqlite://")
    pool = engine.pool
    registry = configure().registry
    registry["db"] = engine
    assert leave_to_parent(registry) == []
    assert engine.pool is pool


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


@pytest.mark.parametrize(
    "hand_over",
    [
        lambda engine: engine,
        lambda engine: engine.dispose,
        sessionmaker,
    ],
    ids=["engine", "dispose", "sessionmaker"],
)
def test_add_fork_safe_with_an_engine(hand_over, engine, configure):
    """An engine that is handed over is left to the parent, not closed."""
    config = configure()
    config.add_fork_safe(hand_over(engine))
    config.commit()
    assert is_forgotten(engine, leave_to_parent(config.registry))


def test_add_fork_safe_with_functions(configure):
    """Functions are called with the registry, in order."""
    called = []
    config = configure()
    config.add_fork_safe(lambda registry: called.append(("first", registry)))
    config.add_fork_safe(partial(called.append))
    assert leave_to_parent(config.registry) == []
    assert called == []  # not committed yet
    config.commit()
    leave_to_parent(config.registry)
    assert called == [("first", config.registry), config.registry]


def forget(registry):
    registry["forgotten"] = True


def test_add_fork_safe_with_a_dotted_name(configure):
    """A dotted name is looked up, and what it stands for is introspectable."""
    config = configure()
    config.add_fork_safe(f"{__name__}.forget")
    config.commit()
    leave_to_parent(config.registry)
    assert config.registry["forgotten"]
    (item,) = config.introspector.get_category("fork safe")
    assert item["introspectable"]["dispose"].__name__ == "forget"


def test_add_fork_safe_twice(configure):
    """The same function twice is a conflict, as with any directive."""
    config = configure()
    config.add_fork_safe(forget)
    config.add_fork_safe(forget)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_add_fork_safe_with_something_else(configure):
    """What is neither a function nor an engine is refused where it is handed over."""
    with pytest.raises(PyramidTasksError, match="a function or an engine, not 17"):
        configure().add_fork_safe(17)


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
