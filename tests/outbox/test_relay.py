"""The relay: it sends the rows that are left in the outbox, in their order."""

from __future__ import annotations

import os
import select
import threading

import pytest
from sqlalchemy import create_engine, event, text, update
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from support import DEADLINE, wait_until

from pyramid_tasks.exceptions import OutboxError, OutboxTableMissing
from pyramid_tasks.outbox.manage import get_status
from pyramid_tasks.outbox.rows import Row, delete_sent
from pyramid_tasks.outbox.table import OutboxRelay


def test_broker_down(engine, make_app):
    """A broker that is down costs no attempt; a relay sends later, in order."""
    down = make_app(engine, down=True)
    results = down.defer(*range(5))
    assert [result.sent for result in results] == [True] * 5
    with pytest.raises(OutboxError, match=r"localhost:1/0 is down") as caught:
        down.relay().run_once()
    assert "secret" not in str(caught.value)
    assert [row.attempts for row in down.rows()] == [0] * 5

    app = make_app(engine)
    assert app.relay(batch=2).run_once() == 5
    assert [message.headers["id"] for message in app.received()] == [
        result.id for result in results
    ]
    assert app.rows() == []


def test_refused_message_is_set_aside(engine, make_app, caplog):
    """A message that cannot be sent is tried a few times; the others go on."""
    make_app(engine, down=True).defer(1, 2, 3)
    app = make_app(engine, pyramid_tasks__outbox_max_attempts="3")
    app.before_sending(lambda x: x == 2 and 1 / 0)
    assert app.relay().run_once() == 2
    assert app.values() == [1, 3]
    for attempts in 1, 2, 3:
        (row,) = app.rows()
        assert (row.attempts, row.set_aside) == (attempts, attempts == 3)
        # It is not tried again at once.
        assert app.relay().run_once() == 0
        app.make_due()
        assert app.relay().run_once() == 0
    assert "ZeroDivisionError" in row.error
    levels = [record.levelname for record in caplog.records if record.args]
    assert levels.count("WARNING") >= 2
    assert levels[-1] == "ERROR"
    assert "3. time, and is set aside" in caplog.text
    with engine.connect() as connection:
        status = get_status(connection)
    assert (status.waiting, status.set_aside, status.oldest) == (0, 1, 0)


def test_message_that_the_broker_chokes_on(sqlite, make_app):
    """An error of the transport is the message's, when a new connection has it too."""
    make_app(sqlite, down=True).defer(1, 2)
    app = make_app(sqlite)

    def choke(x):
        if x == 1:
            raise ConnectionResetError("Shortstring overflow")

    app.before_sending(choke)
    assert app.relay().run_once() == 1
    assert app.values() == [2]
    (row,) = app.rows()
    assert row.attempts == 1
    assert "overflow" in row.error


def test_relay_stops_after_the_current_message(engine, make_app):
    """A relay that is told to stop deletes the rows that it sent, and sends no more."""
    make_app(engine, down=True).defer(1, 2, 3)
    app = make_app(engine)
    relay = app.relay()
    app.before_sending(lambda x: relay.stop())
    relay.run()
    assert app.values() == [1]
    assert len(app.rows()) == 2
    assert relay.run_once() == 0


def test_one_relay_works(engine, make_app):
    """Another relay stands by while one works, and takes over when it has ended."""
    make_app(engine, down=True).defer(1, 2, 3)
    app = make_app(engine)
    other = make_app(engine, queue=app.queue).relay()
    seen = []
    app.before_sending(lambda x: seen.append(other.send()))
    relay = app.relay(batch=2)
    relay.run_once()
    assert seen == [None] * 3
    assert app.values() == [1, 2, 3]
    assert other.send() is not None
    with pytest.raises(OutboxError, match=rf":{os.getpid()} works already"):
        relay.run_once()


def test_relay_that_dies_is_replaced(engine, make_app):
    """When the lease of a relay ends, another one has it, and the first has not."""
    app = make_app(engine)
    first, second = app.relay(), app.relay()
    assert first.send() is not None
    assert second.send() is None
    with engine.begin() as connection:
        connection.execute(update(OutboxRelay).values(until=0))
    assert second.send() is not None
    assert first.send() is None


def test_what_was_sent_is_deleted_first(engine, make_app):
    """A relay that cannot delete what it sent sends nothing else, nor that again."""
    make_app(engine, down=True).defer(1, 2, 3)
    app = make_app(engine)
    relay = app.relay(batch=2)
    errors = [OperationalError("DELETE", {}, Exception("locked")) for _ in range(2)]

    @event.listens_for(engine, "before_cursor_execute")
    def fail(connection, cursor, statement, *_):
        if statement.startswith("DELETE") and errors:
            raise errors.pop()

    for _ in range(2):
        with pytest.raises(OperationalError):
            relay.send()
    assert relay.run_once() == 1
    assert app.values() == [1, 2, 3]
    assert app.rows() == []


def test_relay_that_cannot_write_sends_nothing(sqlite, make_app):
    """Before a relay sends, it has written to the database."""
    make_app(sqlite, down=True).defer(1)
    app = make_app(sqlite)
    relay = app.relay()
    with sqlite.connect() as connection, connection.begin():
        connection.execute(text("UPDATE pyramid_tasks_outbox SET attempts = 0"))
        relay.engine = create_engine(sqlite.url, connect_args={"timeout": 0.01})
        with pytest.raises(OperationalError, match="locked"):
            relay.send()
    assert app.values() == []


def test_batch_is_bounded_by_length(engine, make_app, monkeypatch):
    """A batch holds as many messages as fit, and always one."""
    monkeypatch.setattr("pyramid_tasks.outbox.relay._MAX_BYTES", 500)
    make_app(engine, down=True).defer("x" * 1000, "y" * 200, "z" * 200)
    app = make_app(engine)
    sizes = []
    relay = app.relay()
    while (result := relay.send()) and result.sent:
        sizes.append(len(result.sent))
    assert sizes == [1, 1, 1]
    assert relay.run_once() == 0


def test_requests_do_not_wait_for_a_relay(engine, make_app):
    """While a relay waits for its broker, a request can still defer tasks."""
    down = make_app(engine, down=True)
    down.defer(1, 2, 3)
    app = make_app(engine)
    requests = []

    def defer(x):
        if not requests:
            requests.append(threading.Thread(target=down.defer, args=(4,), daemon=True))
            requests[0].start()
            requests[0].join(DEADLINE)
            assert not requests[0].is_alive()

    app.before_sending(defer)
    app.relay(batch=2).run_once()
    assert app.values() == [1, 2, 3, 4]


def test_id_that_is_used_again(sqlite, make_app):
    """A row is not deleted for another one with its id, which SQLite may give again."""
    app = make_app(sqlite, down=True)
    app.defer(1)
    (row,) = app.rows()
    with sqlite.begin() as connection:
        assert delete_sent(connection, [Row("record", "other", "{}", row.id)]) == 0
        assert delete_sent(connection, [Row("record", row.task_id, "{}", row.id)]) == 1
    app.defer(2)
    assert app.rows()[0].id > row.id


def test_relay_waits_for_a_broker(sqlite, make_app, monkeypatch, caplog):
    """A relay tries again after longer and longer pauses, and says so."""
    caplog.set_level("INFO")
    make_app(sqlite, down=True).defer(1)
    app = make_app(sqlite)
    relay = app.relay(interval=7)
    pauses, waits, errors = [], [], [TimeoutError("later")] * 6

    def fail(x):
        if errors:
            raise errors.pop()

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            relay.stop()
        else:
            errors.append(TimeoutError("again"))
            make_app(sqlite, down=True).defer(2)

    app.before_sending(fail)
    monkeypatch.setattr(relay.waiter, "pause", pauses.append)
    monkeypatch.setattr(relay.waiter, "wait", wait)
    relay.run()
    assert pauses == [0.5, 1, 2, 4, 8, 10, 0.5]
    assert waits == [7, 7]
    assert app.values() == [1, 2]
    assert caplog.text.count("localhost// is down; trying again in 0.5 s") == 2
    assert caplog.text.count("Everything is back") == 2
    assert caplog.text.count("Sent 1 messages of the outbox") == 2


def test_relay_waits_for_a_database(sqlite, make_app, monkeypatch, caplog):
    """So it does for a database, from its start; it is ready when that is there."""
    make_app(sqlite, down=True).defer(1)
    app = make_app(sqlite)
    relay = app.relay()
    relay.engine = create_engine("sqlite:////nowhere/x.sqlite")
    ready = []

    def pause(seconds):
        assert not ready
        relay.engine = sqlite

    monkeypatch.setattr(relay.waiter, "pause", pause)
    monkeypatch.setattr(relay.waiter, "wait", relay.stop)
    relay.run(lambda: ready.append(True))
    assert ready == [True]
    assert "The database sqlite:////nowhere/x.sqlite is down" in caplog.text
    assert app.values() == [1]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ProgrammingError("", {}, Exception("broken")), False),
        (DBAPIError("", {}, Exception("cut"), connection_invalidated=True), True),
    ],
    ids=str,
)
def test_errors_of_a_database(sqlite, make_app, monkeypatch, error, passes):
    """An error that no pause can mend ends the relay."""
    relay = make_app(sqlite).relay()
    pauses = []

    def fail():
        raise error

    def pause(seconds):
        pauses.append(seconds)
        relay.stop()

    monkeypatch.setattr(relay, "send", fail)
    monkeypatch.setattr(relay.waiter, "pause", pause)
    if passes:
        relay.run()
        assert pauses == [0.5]
    else:
        with pytest.raises(DBAPIError):
            relay.run()


def test_relay_without_a_table(tmp_path, make_app):
    """A relay ends when the database has no table."""
    app = make_app(create_engine(f"sqlite:///{tmp_path}/empty.sqlite"))
    with pytest.raises(OutboxTableMissing):
        app.relay().run()


def test_relay_is_woken(postgresql, make_app):
    """On PostgreSQL a relay hears of the rows that a web process leaves to it."""
    app = make_app(postgresql)
    relay = app.relay(interval=600)
    ready = threading.Event()
    thread = threading.Thread(target=relay.run, args=(ready.set,))
    thread.start()
    assert ready.wait(DEADLINE)
    # The first wait may not have begun, but the relay listens or is going to look.
    make_app(postgresql, down=True).defer(1)
    wait_until(lambda: not app.rows())
    relay.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert app.values() == [1]


def test_waiter_listens(postgresql, make_app):
    """It hears each NOTIFY once, with a connection that the pool does not count."""
    waiter = make_app(postgresql).relay().waiter
    waiter.listen()
    listener = waiter._listener
    waiter.listen()
    assert waiter._listener is listener
    assert postgresql.pool.checkedout() == 0

    def is_readable(seconds):
        return bool(select.select([listener], [], [], seconds)[0])

    with postgresql.begin() as connection:
        connection.execute(text("NOTIFY pyramid_tasks_outbox"))
    assert is_readable(DEADLINE)
    waiter.wait(600)
    assert not is_readable(0)
    waiter.close()
    assert listener.closed


def test_waiter_whose_connection_ends(postgresql, make_app):
    """When the database ends the connection, the next look listens again."""
    waiter = make_app(postgresql).relay().waiter
    waiter.listen()
    listener = waiter._listener
    with postgresql.connect() as connection:
        kill = text("SELECT pg_terminate_backend(:pid)")
        connection.execute(kill, {"pid": listener.info.backend_pid})
    wait_until(lambda: waiter.wait(1) or waiter._listener is None)
    waiter.listen()
    assert waiter._listener is not listener
    waiter.close()


def test_waiter_that_cannot_listen(make_app):
    """A database that is down is for the relay to find; no other database is asked."""
    for url in "postgresql+psycopg://localhost:1/x", "sqlite:////nowhere/x.sqlite":
        waiter = make_app(create_engine(url)).relay().waiter
        waiter.listen()
        assert waiter._listener is None
