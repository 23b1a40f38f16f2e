"""Delivery by outbox: rows that commit with the data, and are sent afterwards."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from celery.canvas import Signature, chain, group
from kombu.utils.json import dumps, loads
from pyramid.exceptions import ConfigurationError
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from support import unique

from pyramid_tasks.exceptions import OutboxError, OutboxTableMissing, ResultNotReady
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.tables import create_tables


def test_task_is_sent_after_the_commit(engine, make_app):
    """The row is part of the transaction; after it the task is sent, the row gone."""
    app = make_app(engine)
    with app.request() as request:
        with request.tm:
            result = request.defer_task("record", 1)
            request.defer_task("record", 2)
            request.dbsession.flush()
            assert app.received() == []
            assert app.rows() == []
            assert result.ready() is False
            with pytest.raises(ResultNotReady):
                result.get(timeout=1)
        assert result.sent
    first, second = app.received()
    assert first.headers["id"] == result.id
    assert first.headers["ignore_result"] is False
    assert [first.payload[0], second.payload[0]] == [[1], [2]]
    assert app.rows() == []


@pytest.mark.parametrize("how", ["abort", "savepoint", "nested"])
def test_rollback(engine, make_app, how):
    """An abort, or a rollback to a savepoint of either kind: 0 sent, 0 stored."""
    app = make_app(engine)
    if how == "savepoint" and engine.dialect.name == "sqlite":
        pytest.skip("zope.sqlalchemy has no savepoints on SQLite")
    with app.request() as request:
        request.tm.begin()
        request.dbsession.execute(text("SELECT 1"))
        rollback = {
            "abort": lambda: request.tm.abort,
            "savepoint": lambda: request.tm.savepoint().rollback,
            "nested": lambda: request.dbsession.begin_nested().rollback,
        }[how]()
        request.defer_task("record", 1)
        request.dbsession.flush()
        rollback()
        if how != "abort":
            request.tm.commit()
    assert app.received() == []
    assert app.rows() == []


def test_options_survive(engine, make_app):
    """Every option of Celery comes out of the relay as it went into the outbox."""
    queue, task_id = unique(), unique()
    before = datetime.now(UTC)
    down = make_app(engine, down=True)
    (result,) = down.defer(
        1,
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
    assert (args, kwargs) == ([1], {})
    assert embed["callbacks"][0]["args"] == [2]
    assert embed["errbacks"][0]["args"] == [3]


def test_arguments_survive(engine, make_app):
    """All that JSON, and Celery's own additions to it, can say arrives unchanged."""
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    values = [{"a": [1, 2.5, None, True]}, "naïve \N{SNOWMAN} \0", 2**70, moment]
    make_app(engine, down=True).defer(*values)
    app = make_app(engine)
    app.relay().run_once()
    assert app.values() == values


def test_expires_of_the_task_counts_from_the_deferral(sqlite, make_app):
    """So does expires of the call: a relay that comes late sends the same time."""

    def register(config):
        config.register_task(lambda request, x: None, name="brief", expires=60)

    before = datetime.now(UTC)
    app = make_app(sqlite, register, pyramid_tasks__outbox_send="relay")
    with app.request() as request, request.tm:
        request.defer_task("brief", 1)
    (row,) = app.rows()
    expires = loads(row.message)["options"]["expires"]
    assert (expires - before).total_seconds() == pytest.approx(60, abs=10)


@pytest.mark.parametrize("depth", [3, 12])
def test_row_is_about_as_large_as_the_canvas(sqlite, make_app, depth):
    """However deep a canvas is, its row says everything once."""
    app = make_app(
        sqlite,
        celery__result_backend="cache+memory://",
        pyramid_tasks__outbox_send="relay",
    )
    with app.request() as request, request.tm:
        s = request.task_signature("record", 1).set(immutable=True)
        canvas = chain(*[group(s, s, s), s] * depth)
        request.defer_canvas(canvas)
    (row,) = app.rows()
    assert len(row.message) <= 1.2 * len(dumps(canvas))


def test_eta_in_words(sqlite, make_app):
    """A time that the caller gave as text is sent as that text."""
    make_app(sqlite, down=True).defer(1, eta="2034-05-01T12:00:00Z")
    app = make_app(sqlite)
    assert app.relay().run_once() == 1
    (message,) = app.received()
    assert message.headers["eta"].startswith("2034-05-01T12:00:00")


def test_task_deferred_by_a_task_names_its_parent(sqlite, make_app):
    """A relay sends the same parents as the task would have sent."""
    app = make_app(sqlite, down=True)
    parent = SimpleNamespace(request=SimpleNamespace(root_id="root", id="parent"))
    # As while a task runs.
    type(app.celery).current_worker_task = parent
    try:
        app.defer(1)
    finally:
        del type(app.celery).current_worker_task
    app = make_app(sqlite)
    app.relay().run_once()
    (message,) = app.received()
    assert message.headers["root_id"] == "root"
    assert message.headers["parent_id"] == "parent"


@pytest.mark.parametrize("send", ["thread", "request"])
def test_order_of_a_process_is_kept(engine, make_app, caplog, send):
    """A process does not overtake the rows that it left to a relay."""
    app = make_app(engine, pyramid_tasks__outbox_send=send)
    hook = []
    app.before_sending(lambda x: hook and hook.pop()(x))

    def time_out(x):
        raise TimeoutError("later")

    hook.append(time_out)
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


def test_relay_sends_what_is_left_to_it(engine, make_app):
    """With outbox_send = relay a process sends nothing, and a row is due at once."""
    app = make_app(engine, pyramid_tasks__outbox_send="relay")
    app.defer(1)
    assert app.values() == []
    assert app.relay().run_once() == 1
    assert app.values() == [1]


def test_refused_row_holds_nobody_up(sqlite, make_app):
    """A process goes on when the row that it left to a relay was refused there."""
    app = make_app(sqlite)
    hook = [TimeoutError("later")]

    def time_out(x):
        if hook:
            raise hook.pop()

    app.before_sending(time_out)
    app.defer(1)
    app.update(attempts=1)
    app.defer(2)
    assert app.values() == [2]


def test_lease(engine, make_app):
    """A relay leaves a row for a while to the process that wrote it."""
    app = make_app(engine, pyramid_tasks__outbox_lease="60")
    # As if it was killed: nothing is sent after the commit.
    get_outbox(app.registry).sender.put = lambda *_: None
    app.defer(1)
    (row,) = app.rows()
    assert row.not_before - row.created == pytest.approx(60, abs=1)
    assert row.created == pytest.approx(time.time(), abs=600)
    assert app.relay().run_once() == 0
    app.make_due()
    assert app.relay().run_once() == 1
    assert app.values() == [1]


def test_time_is_up(sqlite, make_app):
    """After delivery_timeout a request sends no more, and leaves it to the relay."""
    app = make_app(
        sqlite,
        pyramid_tasks__outbox_send="request",
        pyramid_tasks__delivery_timeout="0.0000001",
    )
    results = app.defer(1, 2)
    assert [result.sent for result in results] == [True, True]
    assert app.values() == []
    assert app.relay().run_once() == 2


def test_refusal_after_the_commit_does_not_reach_the_request(sqlite, make_app):
    """A refusal in the web process counts, and the row is left to the relay."""
    app = make_app(sqlite)
    app.before_sending(lambda x: 1 / 0)
    app.defer(1)
    (row,) = app.rows()
    assert row.attempts == 1
    assert "ZeroDivisionError" in row.error


@pytest.mark.parametrize("send", ["thread", "request"])
def test_database_gone_after_the_commit(sqlite, make_app, caplog, send):
    """An error of the database after the commit is logged, and fails no request."""
    app = make_app(sqlite, pyramid_tasks__outbox_send=send)
    errors = [OperationalError("DELETE", {}, Exception("locked"))]

    @event.listens_for(sqlite, "before_cursor_execute")
    def fail(connection, cursor, statement, *_):
        if statement.startswith("DELETE") and errors:
            raise errors.pop()

    app.defer(1)
    assert "locked" in caplog.text
    app.defer(2)
    # What was sent is deleted later.
    assert app.values() == [1, 2]
    assert app.rows() == []


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_does_not_answer_holds_nobody_up(sqlite, make_app, scheme):
    """A broker that accepts connections and says nothing costs the timeout, once."""
    with socket.create_server(("localhost", 0)) as server:
        app = make_app(
            sqlite,
            celery__broker_url=f"{scheme}://localhost:{server.getsockname()[1]}//",
            pyramid_tasks__delivery_timeout="0.5",
        )
        app.defer(1, 2, 3)
        server.settimeout(0)
        connections = 0
        with suppress(BlockingIOError):
            while server.accept():
                connections += 1
    assert connections == 1
    assert len(app.rows()) == 3


def test_option_that_json_cannot_hold(sqlite, make_app):
    """An option that cannot be stored is an error in the code that gave it."""
    with pytest.raises(TypeError, match="record .* stores JSON"):
        make_app(sqlite).defer(1, router=object())


def test_missing_table(tmp_path, make_app):
    """Without the table, the code that defers is told how; with it, not asked again."""
    engine = create_engine(f"sqlite:///{tmp_path}/empty.sqlite")
    app = make_app(engine)
    with app.request() as request:
        request.tm.begin()
        with pytest.raises(OutboxTableMissing, match="outbox create"):
            request.defer_task("record", 1)
        request.tm.abort()
    assert set(create_tables(engine).values()) == {True}
    assert set(create_tables(engine).values()) == {False}
    app.defer(1)
    assert app.values() == [1]
    assert get_outbox(app.registry).checked


def test_session_that_is_not_there(sqlite, make_app):
    """A request without the session is told what to configure."""
    app = make_app(sqlite, lambda config: config.set_task_outbox("db"))
    with (
        app.request() as request,
        request.tm,
        pytest.raises(OutboxError, match=r"no request.db\. .*set_task_outbox"),
    ):
        request.defer_task("record", 1)


def test_without_sqlalchemy(sqlite, make_app, monkeypatch):
    """Choosing the outbox without SQLAlchemy says what to install."""
    monkeypatch.setattr("pyramid_tasks.outbox.delivery.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pyramid-tasks\[outbox\]"):
        make_app(sqlite)
    make_app(sqlite, pyramid_tasks__delivery="commit")
