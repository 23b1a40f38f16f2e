"""Delivery by outbox: rows that commit with the data, and are sent afterwards."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import transaction
import zope.sqlalchemy
from celery.canvas import Signature, chain, group
from celery.exceptions import SoftTimeLimitExceeded
from kombu.utils.json import dumps, loads
from pyramid.exceptions import ConfigurationError
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support import run, unique

from pyramid_tasks.exceptions import OutboxError, OutboxTableMissing, ResultNotReady
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.models import metadata
from pyramid_tasks.outbox.tables import create_tables


def test_task_is_sent_after_the_commit(engine, make_app):
    """Before the commit, and after a rollback of any kind: 0 sent, 0 stored."""
    app = make_app(engine)
    with app.request() as request:
        with request.tm:
            result = request.defer_task("record", 1)
            request.defer_task("record", 2)
            request.dbsession.flush()
            assert app.received() == app.rows() == []
            assert result.ready() is False
            with pytest.raises(ResultNotReady):
                result.get(timeout=1)
            nested = request.dbsession.begin_nested()
            request.defer_task("record", "rolled back")
            request.dbsession.flush()
            nested.rollback()
        assert result.sent
        first, second = app.received()
        assert first.headers["id"] == result.id
        assert first.headers["ignore_result"] is False
        assert [first.payload[0], second.payload[0]] == [[1], [2]]
        assert app.rows() == []
        request.tm.begin()
        request.defer_task("record", "aborted")
        request.dbsession.flush()
        request.tm.abort()
    assert app.received() == app.rows() == []


def test_options_survive(engine, make_app):
    """What is stored, arguments and options, comes out of the relay unchanged."""
    queue, task_id = unique(), unique()
    before = datetime.now(UTC)
    down = make_app(engine, down=True)
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    value = [{"a": [1, 2.5, None, True]}, "naïve \N{SNOWMAN} \0", 2**70, moment]
    (result,) = down.defer(
        value,
        countdown=60,
        expires=120,
        queue=queue,
        priority=7,
        headers={"environ": {"HTTP_HOST": "example.com"}, "x": ["é", None]},
        link=Signature("record", [2], immutable=True),
        link_error=[Signature("record", [3], immutable=True)],
        task_id=task_id,
        shadow="other",
        time_limit=9,
    )
    assert result.id == task_id
    (row,) = down.rows()
    assert loads(row.message)["options"]["eta"] > before
    app = make_app(engine)
    assert app.relay().run_once() == 1
    (message,) = app.received(queue)
    headers = message.headers
    assert headers["id"] == task_id
    assert headers["shadow"] == "other"
    assert headers["timelimit"] == [9, None]
    assert headers["environ"] == {"HTTP_HOST": "example.com"}
    assert headers["x"] == ["é", None]
    eta, expires = map(datetime.fromisoformat, (headers["eta"], headers["expires"]))
    assert (eta - before).total_seconds() == pytest.approx(60, abs=10)
    assert (expires - eta).total_seconds() == pytest.approx(60, abs=1)
    assert message.properties["priority"] == 7
    args, kwargs, embed = message.payload
    assert (args, kwargs) == ([value], {})
    assert embed["callbacks"][0]["args"] == [2]
    assert embed["errbacks"][0]["args"] == [3]


@pytest.mark.parametrize("depth", [3, 12])
def test_row_is_about_as_large_as_the_canvas(sqlite, make_app, depth):
    """However deep a canvas is, its row says everything once."""
    app = make_app(sqlite, down=True, celery__result_backend="cache+memory://")
    with app.request() as request, request.tm:
        s = request.task_signature("record", 1).set(immutable=True)
        canvas = chain(*[group(s, s, s), s] * depth)
        request.defer_canvas(canvas)
    (row,) = app.rows()
    assert len(row.message) <= 1.2 * len(dumps(canvas))


def test_task_deferred_by_a_task_names_its_parent(sqlite, make_app):
    """A relay sends the same parents as the task would have sent."""
    app = make_app(sqlite, down=True)
    message = SimpleNamespace(root_id="root", id="parent")
    parent = SimpleNamespace(request=message, add_trail=lambda result: result)
    with pytest.MonkeyPatch.context() as patch:  # as while a task runs
        patch.setattr(type(app.celery), "current_worker_task", parent)
        app.defer(1)
    app = make_app(sqlite)
    app.relay().run_once()
    (message,) = app.received()
    assert message.headers["root_id"] == "root"
    assert message.headers["parent_id"] == "parent"


@pytest.mark.parametrize("send", ["thread", "request"])
def test_order_of_a_process_is_kept(engine, make_app, caplog, send):
    """A process does not overtake the rows that it left to a relay."""
    app = make_app(engine, pyramid_tasks__outbox_send=send)
    app.fail_to_send(TimeoutError("later"))
    app.defer(1, 2)
    assert "The broker is down; tasks that have been committed are left" in caplog.text
    app.defer(3)
    assert app.values() == []
    # The lease has ended for all of them.
    assert app.relay().run_once() == 3
    assert app.values() == [1, 2, 3]
    app.defer(4)
    assert app.values() == [4]
    assert app.rows() == []


@pytest.mark.parametrize("send", ["thread", "request"])
def test_order_while_a_process_sends(engine, make_app, monkeypatch, send):
    """Nor does it overtake a row that it leaves to a relay while it sends another."""
    monkeypatch.setattr("pyramid_tasks.outbox.backlog._MAX_ROWS", 1)
    app = make_app(
        engine, pyramid_tasks__outbox_send=send, pyramid_tasks__delivery_timeout="0.2"
    )

    def defer_more(x):
        if x == 1:
            with app.request() as request, request.tm:
                request.defer_tasks("record", [(2,), (3,)])

    app.before_sending(defer_more)
    app.defer(1)
    app.defer(4)
    assert app.values() == [1]
    assert app.relay().run_once() == 0
    app.update(not_before=0)  # as the leases end
    assert app.relay().run_once() == 3
    assert app.values() == [2, 3, 4]


@pytest.mark.parametrize("send", ["thread", "request"])
def test_order_after_an_error_of_the_database(sqlite, make_app, send):
    """Nor a row that it left as the database did not say what waits before it."""
    app = make_app(sqlite, pyramid_tasks__outbox_send=send)
    app.fail_to_send(TimeoutError("later"))
    app.defer(1)
    errors = [OperationalError("SELECT", {}, Exception("it restarts"))]

    @event.listens_for(sqlite, "before_cursor_execute")
    def fail(connection, cursor, statement, *_):
        if statement.startswith("SELECT") and "not_before >" in statement and errors:
            raise errors.pop()

    app.defer(2)
    assert errors == []
    assert app.relay().run_once() == 1
    app.defer(3)
    assert app.values() == [1]
    app.make_due()  # as the leases end
    assert app.relay().run_once() == 2
    assert app.values() == [2, 3]


def test_scoped_session(sqlite, make_app):
    """The session of the request may be one that each thread has."""
    app = make_app(sqlite)
    scoped = scoped_session(sessionmaker(sqlite))
    with app.request() as request:
        request.dbsession = scoped
        zope.sqlalchemy.register(scoped, transaction_manager=request.tm)
        with request.tm:
            request.defer_task("record", 1)
            assert app.values() == []
    app.flush()
    assert app.values() == [1]


FIRST = """
import sys
from pyramid.paster import bootstrap

with bootstrap(sys.argv[1]) as env:
    request = env["request"]
    with request.tm:
        savepoint = request.dbsession.begin_nested()
        result = request.defer_task("outboxapp.fulfil", 1)
        savepoint.rollback()
    print(result.dropped)
"""


def test_savepoint_of_a_new_process(sqlite, outbox_ini, tmp_path):
    """The first task of a process goes with its savepoint, as all others do."""
    done = run("python", "-c", FIRST, outbox_ini(sqlite.url), cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr


def test_closed_sessions_of_two_databases(sqlite, make_app, tmp_path):
    """A task whose session was closed is written to the database of that session."""
    other = create_engine(f"sqlite:///{tmp_path}/other.sqlite")
    metadata.create_all(other)
    apps = [make_app(each, down=True) for each in (sqlite, other)]
    with apps[0].request() as request, request.tm:
        for app in apps:
            request.dbsession = session = app.dbsession(request)
            request.defer_task("record", str(app.engine.url))
            session.close()
    apps[0].flush()
    for app in apps:
        (row,) = app.rows()
        assert str(app.engine.url) in row.message


def test_session_of_another_manager(sqlite, make_app):
    """No task is deferred where request.tm does not commit the session."""
    app = make_app(sqlite)
    with app.request() as request:
        request.dbsession = session = Session(sqlite)
        zope.sqlalchemy.register(session)  # with the manager of the thread
        session.execute(text("SELECT 1"))
        said = "transaction_manager=request.tm"
        with pytest.raises(OutboxError, match=said), request.tm:
            request.defer_task("record", 1)
        transaction.abort()


def test_refused_row_holds_nobody_up(sqlite, make_app, caplog):
    """A refusal counts, and does not reach the request; then the process goes on."""
    app = make_app(sqlite)
    app.fail_to_send(ZeroDivisionError(), TimeoutError("later"))
    app.defer(1)
    (row,) = app.rows()
    assert row.attempts == 1
    assert "ZeroDivisionError" in row.error
    assert "are not found" not in caplog.text
    # So it does when a row that it left to a relay was refused there.
    app.defer(2)
    app.update(attempts=1)
    app.defer(3)
    assert app.values() == [3]


@pytest.mark.parametrize(("send", "lease"), [("thread", 60), ("relay", 0)])
def test_lease(engine, make_app, send, lease):
    """A relay leaves a row for a while to its process, unless this sends nothing."""
    settings = {"pyramid_tasks.outbox_lease": "60", "pyramid_tasks.outbox_send": send}
    app = make_app(engine, **settings)
    if send == "thread":
        # As if it was killed: nothing is sent after the commit.
        get_outbox(app.registry).sender.put = lambda *_: None
    app.defer(1)
    assert app.values() == []
    (row,) = app.rows()
    assert row.not_before - row.created == pytest.approx(lease, abs=1)
    assert row.created == pytest.approx(time.time(), abs=600)
    if lease:
        assert app.relay().run_once() == 0
        app.make_due()
    assert app.relay().run_once() == 1
    assert app.values() == [1]


def test_time_is_up(sqlite, make_app):
    """After delivery_timeout a request sends no more, and leaves it to the relay."""
    settings = {"pyramid_tasks.outbox_send": "request"}
    app = make_app(sqlite, pyramid_tasks__delivery_timeout="0.0000001", **settings)
    results = app.defer(1, 2)
    assert [result.sent for result in results] == [True, True]
    assert app.values() == []
    assert app.relay().run_once() == 2


@pytest.mark.parametrize("send", ["thread", "request"])
def test_database_gone_after_the_commit(sqlite, make_app, caplog, send):
    """An error of the database after the commit is logged, and fails no request."""
    app = make_app(sqlite, pyramid_tasks__outbox_send=send)
    for number in 1, 2:
        app.fail_to_delete(1)
        app.defer(number)
        assert "locked" in caplog.text
        caplog.clear()
        app.defer(f"{number} later")
    # What was sent is deleted later.
    assert app.values() == [1, "1 later", 2, "2 later"]
    assert app.rows() == []
    assert get_outbox(app.registry).sender._producer is None


def test_limit_of_the_task_that_defers(sqlite, make_app, monkeypatch):
    """A time limit after the commit ends the task; a relay has what was not sent."""
    settings = {"pyramid_tasks.outbox_send": "request", "celery.broker_pool_limit": 1}
    app = make_app(sqlite, **settings)
    app.fail_to_send(SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        app.defer(1)
    assert [row.attempts for row in app.rows()] == [0]
    # Its connection is in the pool again.
    with get_outbox(app.registry).sender._publisher.producer():
        pass
    check = Mock(side_effect=SoftTimeLimitExceeded)
    monkeypatch.setattr(get_outbox(app.registry).schemas, "check", check)
    with pytest.raises(SoftTimeLimitExceeded):
        app.defer(2)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_does_not_answer_holds_nobody_up(sqlite, make_app, scheme):
    """A broker that accepts connections and says nothing costs the timeout, once."""
    with socket.create_server(("localhost", 0)) as server:
        url = f"{scheme}://localhost:{server.getsockname()[1]}//"
        settings = {"celery.broker_url": url, "pyramid_tasks.delivery_timeout": "0.5"}
        app = make_app(sqlite, **settings)
        app.defer(1, 2, 3)
        server.settimeout(0)
        server.accept()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert len(app.rows()) == 3


def test_option_that_json_cannot_hold(sqlite, make_app):
    """An option that cannot be stored is an error in the code that gave it."""
    with pytest.raises(TypeError, match="record .* stores JSON"):
        make_app(sqlite).defer(1, router=object())
    # The time limit of the task that defers is no fault of what it defers.
    option = Mock(__json__=Mock(side_effect=SoftTimeLimitExceeded))
    with pytest.raises(SoftTimeLimitExceeded):
        make_app(sqlite).defer(1, router=option)


def test_missing_table(tmp_path, make_app):
    """Who defers is told how to make it, and a relay ends; then nobody asks again."""
    engine = create_engine(f"sqlite:///{tmp_path}/empty.sqlite")
    app = make_app(engine)
    with pytest.raises(OutboxTableMissing, match="outbox create"):
        app.defer(1)
    with pytest.raises(OutboxTableMissing):
        app.relay().run()
    assert set(create_tables(engine).values()) == {True}
    assert set(create_tables(engine).values()) == {False}
    app.defer(1)
    assert app.values() == [1]
    assert get_outbox(app.registry).checked


def test_session_that_is_not_there(sqlite, make_app):
    """A request without the session is told what to configure."""
    app = make_app(sqlite, lambda config: config.set_task_outbox("db"))
    with pytest.raises(OutboxError, match=r"no request.db\. .*set_task_outbox"):
        app.defer(1)


def test_without_sqlalchemy(sqlite, make_app, monkeypatch):
    """Choosing the outbox without SQLAlchemy says what to install."""
    monkeypatch.setattr("pyramid_tasks.outbox.delivery.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pyramid-tasks\[outbox\]"):
        make_app(sqlite)
    make_app(sqlite, pyramid_tasks__delivery="commit")
