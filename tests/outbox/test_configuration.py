"""The session, the engine, the table and the settings of an outbox."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from sqlalchemy import MetaData, create_engine, select
from sqlalchemy.orm import Session, sessionmaker
from transactional import fail

from pyramid_tasks.configuration.own_settings import NUMBERS
from pyramid_tasks.contrib.outbox_table import OutboxMessage, outbox_table
from pyramid_tasks.exceptions import OutboxError, TaskError
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.models import InboxRow
from pyramid_tasks.registry import get_tasks


@pytest.mark.parametrize("dotted", [False, True])
def test_set_task_outbox(sqlite, monkeypatch, make_app, dotted):
    """A session and an engine can be functions or their dotted names."""
    module = SimpleNamespace(
        session=lambda request: request.dbsession, engine=lambda registry: sqlite
    )
    monkeypatch.setitem(sys.modules, "database_of_test", module)
    names = ("database_of_test:session", "database_of_test.engine")
    given = names if dotted else (module.session, module.engine)
    app = make_app(sqlite, lambda config: config.set_task_outbox(*given))
    app.defer(1)
    assert app.values() == [1]
    assert get_outbox(app.registry).get_engine() is sqlite
    introspectable = app.registry.introspector.get("pyramid_tasks outbox", None)
    assert introspectable["session"] is module.session
    assert introspectable["engine"] is module.engine
    (delivery,) = app.registry.introspector.related(introspectable)
    assert delivery.title == "outbox"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"session": "nowhere.db:session"}, "No module named 'nowhere'. Write the dot"),
        ({"session": ""}, "'' cannot be imported: "),
        ({"engine": "os:nowhere"}, "'os:nowhere' cannot be imported: "),
        (
            {"session": lambda: None},
            r"The session of config\.set_task_outbox\(\) is call",
        ),
        (
            {"engine": lambda: None},
            r"The engine of .* is called as .*\(registry\): too m",
        ),
    ],
)
def test_mistake_in_set_task_outbox(make_app, given, said):
    """It is an error at once, in one sentence, as with every directive."""
    with pytest.raises(TaskError, match=said) as caught:
        make_app(None, lambda config: config.set_task_outbox(**given))
    assert caught.value.info.file == __file__
    assert caught.value.__suppress_context__


def test_engine(sqlite, make_app):
    """The engine is by default that of the session; it can be given as it is."""
    app = make_app(sqlite, lambda config: config.set_task_outbox("dbsession"))
    assert get_outbox(app.registry).get_engine() is sqlite
    app = make_app(None, lambda config: config.set_task_outbox(engine=sqlite))
    outbox = get_outbox(app.registry)
    assert outbox.get_engine() is sqlite
    outbox.schemas.check = Mock()
    outbox.check_schema(create_engine("sqlite://"), "x")
    outbox.schemas.check.assert_called_once_with(sqlite, "x")


class RoutingSession(Session):
    """Chooses the database by the mapper, as SQLAlchemy's documentation shows it."""

    def get_bind(self, mapper=None, clause=None, **options):
        is_task = mapper and mapper.class_.__module__.startswith("pyramid_tasks")
        return self.info["tasks"] if is_task else self.bind


def test_session_that_chooses_the_database(sqlite, make_app):
    """It is asked with a mapper, for what is deferred, for relays and for the inbox."""

    def dbsession(request):
        session = RoutingSession(create_engine("sqlite://"), info={"tasks": sqlite})
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    def configure(config):
        config.set_task_outbox(dbsession)
        options = {"name": "once", "inbox": True}
        config.register_task(lambda request, x: x, **options)

    app = make_app(sqlite, configure, celery__task_always_eager=True)
    app.defer(1, task="once")
    assert get_outbox(app.registry).get_engine() is sqlite
    with Session(sqlite) as session:
        assert session.scalars(select(InboxRow.task)).all() == ["once"]


@pytest.mark.parametrize("found", [None, "engine", sessionmaker()], ids=type)
def test_something_else(sqlite, make_app, found):
    """What is no session, or no engine, is named, also where a command asks."""
    given = {"session": lambda request: found, "engine": lambda registry: found}
    app = make_app(sqlite, lambda config: config.set_task_outbox(**given))
    kind = type(found).__name__
    with pytest.raises(OutboxError, match=f"SQLAlchemy Session, and .* type {kind}"):
        app.defer(1)
    said = fail(app, "status")
    assert "Error: The engine of the outbox must be a SQLAlchemy Engine" in said
    assert f"not of type {kind}. Name another one" in said


@pytest.mark.parametrize("reify", [False, True])
def test_session_with_an_error_of_its_own(make_app, reify):
    """The error is told, and not that there is no session."""

    def db(request):
        return request.registry.egnine

    def configure(config):
        config.add_request_method(db, property=True, reify=reify)
        config.set_task_outbox("db")

    app = make_app(None, configure)
    with pytest.raises(AttributeError, match="'Registry' object has no .* 'egnine'"):
        app.defer(1)


def test_application_without_outbox(make_app):
    """An application without transactions, or with a wrong setting, is told so."""
    with pytest.raises(OutboxError, match="contrib.pyramid_tm"):
        get_outbox({})
    with pytest.raises(ConfigurationError, match="outbox_send = fork is not one of"):
        make_app(None, pyramid_tasks__outbox_send="fork")


def test_include_by_itself():
    """Including pyramid_tasks.contrib.outbox chooses the outbox as well."""
    with Configurator() as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.outbox")
    assert get_tasks(config.registry).delivery == "outbox"
    assert get_outbox(config.registry)


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-1", "0"])
@pytest.mark.parametrize("name", NUMBERS)
def test_setting_that_is_no_number(make_app, name, value):
    """A setting that cannot be read is named, before anything is deferred."""
    problem = "is not a number|must be more than 0, and finite"
    with pytest.raises(ConfigurationError, match=f"{name} = {value} ({problem})"):
        make_app(None, **{f"pyramid_tasks.{name}": value})


@pytest.mark.parametrize(
    ("uwsgi", "send", "in_thread"),
    [
        ({"has_threads": 0}, "request", False),
        ({"has_threads": 1}, "thread", True),
        ({"has_threads": 1, "worker_id": lambda: 1}, "thread", True),
        # The lock of Python may be the thread's when the master forks.
        ({"has_threads": 1, "worker_id": lambda: 0}, "thread", False),
    ],
)
def test_uwsgi(make_app, sqlite, monkeypatch, caplog, uwsgi, send, in_thread):
    """Without threads, requests send, and so they do in the master."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(**uwsgi))
    outbox = get_outbox(make_app(sqlite).registry)
    assert outbox.sent_by == send
    assert outbox.sends_in_thread(sqlite) == in_thread
    assert outbox.sends_in_thread(create_engine("postgresql+psycopg://")) == in_thread
    assert not outbox.sends_in_thread(create_engine("sqlite://"))  # in memory
    assert ("enable-threads" in caplog.text) == (send == "request")


def test_table_for_alembic():
    """The table can be added to the metadata of an application, more than once."""
    own = MetaData()
    table = outbox_table(own)
    assert outbox_table(own) is table
    names = {f"pyramid_tasks_{name}" for name in ("inbox", "outbox", "outbox_relay")}
    assert set(own.tables) == names
    assert table.c.keys() == OutboxMessage.__table__.c.keys()
