"""The relay: it sends the rows that are left in the outbox, in their order."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import nullcontext
from unittest.mock import DEFAULT, Mock, call

import pytest
from databases import execute
from kombu.utils.json import dumps, loads
from servers import pgbouncer
from sqlalchemy import create_engine, event, text, update
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool
from support import DEADLINE, wait_until
from transactional import invoke

from pyramid_tasks.exceptions import OutboxError
from pyramid_tasks.outbox.manage import get_status
from pyramid_tasks.outbox.models import OutboxMessage, OutboxRelay, database_time
from pyramid_tasks.outbox.relay import Relay
from pyramid_tasks.outbox.rows import Row, delete_sent


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
    sent = [message.headers["id"] for message in app.received()]
    assert sent == [result.id for result in results]
    assert app.rows() == []


def test_refused_message_is_set_aside(engine, make_app, caplog):
    """A message that cannot be sent is tried a few times; the others go on."""
    settings = {"pyramid_tasks.outbox_max_attempts": "3"}
    app = make_app.with_rows(engine, 1, 2, 3, **settings)
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


@pytest.mark.parametrize(
    ("option", "value"), [("compression", "g\0p"), ("serializer", "jsn"), ("queue", 5)]
)
@pytest.mark.parametrize("good", [[], [5]])
def test_messages_that_no_broker_could_take(engine, make_app, option, value, good):
    """They are refused one by one, also alone, and hold no other up."""
    app = make_app.with_rows(engine, 1, 2, 3, 4, *good)
    for row in app.rows()[:4]:
        message = loads(row.message)
        message["options"][option] = value
        app.update(OutboxMessage.id == row.id, message=dumps(message))
    assert app.relay().run_once() == len(good)
    assert app.values() == good
    assert [row.attempts for row in app.rows()] == [1] * 4
    assert all(f"MessageFault: {option} = " in row.error for row in app.rows())


@pytest.mark.parametrize("good", [[], [2]])
def test_message_that_the_broker_chokes_on(sqlite, make_app, good):
    """An error of the transport is the message's, when a new connection has it too.

    The words of the error tell, so that no other message need be sent.
    """
    app = make_app.with_rows(sqlite, 1, *good)
    app.fail_to_send(*[ConnectionResetError("Shortstring overflow")] * 2)
    assert app.relay().run_once() == len(good)
    assert app.values() == good
    (row,) = app.rows()
    assert row.attempts == 1
    assert "overflow" in row.error


def test_relay_stops_after_the_current_message(engine, make_app):
    """A relay that is told to stop deletes the rows that it sent, and sends no more."""
    app = make_app.with_rows(engine, 1, 2, 3)
    relay = app.relay()
    app.before_sending(lambda x: relay.stop())
    relay.run()
    assert app.values() == [1]
    assert len(app.rows()) == 2
    assert relay.run_once() == 0


def test_one_relay_works(engine, make_app, caplog):
    """While one works, another stands by and a request can still defer tasks.

    When it ends, or dies, the other one takes over.
    """
    app = make_app.with_rows(engine, 1, 2, 3)
    down = make_app(engine, down=True, queue=app.queue)
    other = down.relay()
    seen = []

    def meanwhile(x):
        seen.append(other.send())
        if x == 1:
            request = threading.Thread(target=down.defer, args=(4,), daemon=True)
            request.start()
            request.join(DEADLINE)
            assert not request.is_alive()

    app.before_sending(meanwhile)
    relay = app.relay(batch=2)
    relay.run_once()
    assert seen == [None] * 4
    assert app.values() == [1, 2, 3, 4]
    assert other.send() is not None
    with pytest.raises(OutboxError, match=rf":{os.getpid()} works already"):
        relay.run_once()
    # The lock of one that died has ended.
    execute(engine, "UPDATE pyramid_tasks_outbox_relay SET until = 0")
    assert relay.send() is not None
    assert other.send() is None
    caplog.set_level("INFO")
    for interval, seconds in (None, 2), (7, 7):
        other = down.relay(interval=interval)
        other.waiter.wait = Mock(side_effect=other.stop)
        other.run()
        assert other.waiter.wait.mock_calls == [call(seconds)]
    assert caplog.text.count("This relay stands by") == 2


def test_batches(sqlite, make_app):
    """A relay goes on as long as it finds something, and waits then."""
    app = make_app.with_rows(sqlite, 1, 2, 3)
    relay = app.relay(batch=1)
    relay.waiter.wait = Mock(side_effect=relay.stop)
    relay.run()
    assert app.values() == [1, 2, 3]


def test_two_relays_that_are_the_first(postgresql, make_app):
    """Also where no relay has worked before, one of two works."""
    relays = [make_app(postgresql).relay() for _ in range(2)]

    @event.listens_for(postgresql, "before_cursor_execute")
    def overtake(connection, cursor, statement, *_):
        if statement.startswith("INSERT INTO pyramid_tasks_outbox_relay") and relays:
            assert relays.pop().send() is not None

    assert relays.pop().send() is None


def test_what_was_sent_is_deleted_first(engine, make_app):
    """A relay that cannot delete what it sent sends nothing else, nor that again."""
    app = make_app.with_rows(engine, 1, 2, 3)
    relay = app.relay(batch=2)
    app.fail_to_delete(2)
    for _ in range(2):
        with pytest.raises(OperationalError):
            relay.send()
    assert relay.run_once() == 1
    assert app.values() == [1, 2, 3]
    assert app.rows() == []
    # So it does at its end.
    make_app(engine, down=True).defer(4)
    app.fail_to_delete(1)
    with pytest.raises(OperationalError):
        relay.send()
    relay._release()
    assert app.rows() == []


def test_relay_that_cannot_write_sends_nothing(sqlite, make_app):
    """Before a relay sends, it has written to the database."""
    app = make_app.with_rows(sqlite, 1)
    impatient = create_engine(sqlite.url, connect_args={"timeout": 0.01})
    relay = Relay(app.registry, impatient)
    with sqlite.connect() as connection, connection.begin():
        connection.execute(text("UPDATE pyramid_tasks_outbox SET attempts = 0"))
        with pytest.raises(OperationalError, match="locked"):
            relay.send()
    assert app.values() == []


def test_batch_is_bounded_by_length(engine, make_app, monkeypatch):
    """A batch holds as many messages as fit, and always one."""
    monkeypatch.setattr("pyramid_tasks.outbox.schema_relay._MAX_BYTES", 500)
    app = make_app.with_rows(engine, "x" * 1000, "y" * 200, "z" * 200)
    relay = app.relay()
    assert [len(relay.send().sent) for _ in range(4)] == [1, 1, 1, 0]


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
    app = make_app.with_rows(sqlite, 1)
    app.fail_to_send(*[TimeoutError("later")] * 6)
    relay = app.relay(interval=7)
    pauses, waits, ready = [], [], Mock()

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            relay.stop()
        else:
            app.fail_to_send(TimeoutError("again"))
            make_app(sqlite, down=True).defer(2)

    monkeypatch.setattr(relay.waiter, "pause", pauses.append)
    monkeypatch.setattr(relay.waiter, "wait", wait)
    relay.run(ready)
    ready.assert_called_once_with()
    assert relay.waiter._wake.fileno() == relay.waiter._woken.fileno() == -1
    assert app.relay().send() is not None  # the lock is free
    assert pauses == [0.5, 1, 2, 4, 8, 10, 0.5]
    assert waits == [7, 7]
    assert app.values() == [1, 2]
    assert caplog.text.count("localhost// is down; trying again in 0.5 s") == 2
    assert caplog.text.count("Everything is back") == 2
    assert caplog.text.count("This relay works") == 1
    assert caplog.text.count("Sent 1 messages of the outbox") == 2


def test_relay_waits_for_hours(sqlite, make_app, monkeypatch):
    """After a thousand attempts, a broker is waited for all the same."""
    relay, pauses = make_app.with_rows(sqlite, 1, down=True).relay(), []
    relay._failures = 1024  # 2 ** 1024 is more than a float can be
    monkeypatch.setattr(
        relay.waiter, "pause", lambda seconds: pauses.append(seconds) or relay.stop()
    )
    relay.run()
    assert pauses == [10]


def test_message_that_is_refused_for_days(sqlite, make_app):
    """With so many attempts, a message is tried again each minute."""
    app = make_app.with_rows(sqlite, 1, pyramid_tasks__outbox_max_attempts="1e6")
    app.update(attempts=1024, not_before=0)
    app.fail_to_send(ValueError("no"))
    app.relay().run_once()
    (row,) = app.rows()
    assert row.attempts == 1025
    assert row.not_before - time.time() == pytest.approx(60, abs=5)


def test_relay_waits_for_a_database(sqlite, make_app, monkeypatch, caplog, tmp_path):
    """So it does for a database, from its start; it is ready when that is there."""
    app = make_app.with_rows(sqlite, 1)
    later = f"sqlite:///{tmp_path}/later/test.sqlite"
    relay = Relay(app.registry, create_engine(later))
    ready = Mock()

    def pause(seconds):
        assert not ready.called
        (tmp_path / "later").symlink_to(tmp_path)

    monkeypatch.setattr(relay.waiter, "pause", pause)
    monkeypatch.setattr(relay.waiter, "wait", relay.stop)
    relay.run(ready)
    ready.assert_called_once_with()
    assert f"The database {later} is down" in caplog.text
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
    pause = Mock(side_effect=lambda seconds: relay.stop())
    monkeypatch.setattr(relay, "send", Mock(side_effect=error))
    monkeypatch.setattr(relay.waiter, "pause", pause)
    with nullcontext() if passes else pytest.raises(DBAPIError):
        relay.run()
    assert pause.mock_calls == [call(0.5)] * passes


def test_relay_is_woken(postgresql, make_app):
    """On PostgreSQL a relay hears of the rows that a web process leaves to it."""
    app = make_app(postgresql)
    relay = app.relay(interval=600)
    ready = threading.Event()
    thread = threading.Thread(target=relay.run, args=(ready.set,))
    thread.start()
    assert ready.wait(DEADLINE)
    # The first wait may not have begun, but the relay listens or is going to look.
    for settings in {"down": True}, {"pyramid_tasks.outbox_send": "relay"}:
        make_app(postgresql, **settings).defer(1)
        wait_until(lambda: not app.rows())
    relay.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert app.values() == [1, 1]


def test_waiter_listens(postgresql, make_app, monkeypatch):
    """It hears each NOTIFY once, with a connection that the pool does not count."""
    waiter = make_app(postgresql).relay().waiter
    with monkeypatch.context() as patch:
        error = OperationalError("SELECT", {}, Exception("gone"))
        patch.setattr(waiter, "_hears_itself", Mock(side_effect=error))
        waiter.listen()
        assert not waiter.listens  # and so it looks at the table
    waiter.listen()
    listener = waiter._listener
    waiter.listen()
    assert waiter._listener is listener
    assert postgresql.pool.checkedout() == 0

    def is_readable(seconds):
        return bool(select.select([listener], [], [], seconds)[0])

    execute(postgresql, "NOTIFY pyramid_tasks_outbox")
    assert is_readable(DEADLINE)
    waiter.wait(600)
    assert not is_readable(0)
    # When the database ends the connection, the next look listens again.
    execute(postgresql, f"SELECT pg_terminate_backend({listener.info.backend_pid})")
    wait_until(lambda: waiter.wait(1) or waiter._listener is None)
    waiter.listen()
    assert waiter._listener is not listener
    listener = waiter._listener
    waiter.close()
    assert listener.closed


def test_waiter_and_the_command(postgresql, make_app):
    """Whoever lets relays try a message again wakes them."""
    app = make_app(postgresql)
    app.fail_to_send(ValueError("refused"))
    app.defer(1)
    waiter = app.relay().waiter
    waiter.listen()
    assert invoke(app, "retry", "--all") == (0, "To be tried again: 1\n")
    assert select.select([waiter._listener], [], [], DEADLINE)[0]
    waiter.close()


def test_waiter_that_cannot_listen(make_app):
    """A database that is down is for the relay to find; no other database is asked."""
    for url in "postgresql+psycopg://localhost:1/x", "sqlite:////nowhere/x.sqlite":
        waiter = make_app(create_engine(url)).relay().waiter
        waiter.listen()
        assert waiter._listener is None


def test_waiter_that_is_refused(postgresql, make_app, monkeypatch, caplog):
    """A connection that may not listen is closed, and the relay polls."""
    caplog.set_level("DEBUG", "pyramid_tasks")
    monkeypatch.setattr("pyramid_tasks.outbox.waiter.TABLE_NAME", "no name")
    connections = []
    event.listen(postgresql, "connect", lambda each, _: connections.append(each))
    waiter = make_app(postgresql).relay().waiter
    postgresql.dispose()
    waiter.listen()
    assert not waiter.listens
    assert '"name"' in caplog.text  # the error of the database says where
    assert connections[-1].closed


def test_waiter_that_hears_others_first(postgresql, make_app, monkeypatch):
    """A word of another process meanwhile does not keep a relay from being woken."""
    waiter = make_app(postgresql).relay().waiter
    words = Mock(side_effect=[["another"], DEFAULT], wraps=waiter._hear)
    monkeypatch.setattr(waiter, "_hear", words)
    waiter.listen()
    assert waiter.listens
    waiter.close()


def test_waiter_that_is_stopped(postgresql, make_app, caplog):
    """A relay that is told to stop does not doubt that it would be woken."""
    waiter = make_app(postgresql).relay().waiter
    waiter.stop()
    waiter.listen()
    assert waiter.listens
    assert caplog.text == ""
    waiter.close()


def test_many_signals(sqlite, make_app):
    """A relay that is told to stop again and again is held up by none of that."""
    waiter = make_app(sqlite).relay().waiter

    def stop():
        for _ in range(10_000):
            waiter.stop()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    waiter.close()


def test_pause_ends_with_the_relay(sqlite, make_app):
    """Whoever pauses goes on when the relay is told to stop, and not before."""
    waiter = make_app(sqlite).relay().waiter
    stopper = threading.Timer(0.1, waiter.stop)
    stopper.start()
    waiter.pause(DEADLINE)
    assert waiter.stopped
    waiter.close()


@pytest.mark.server
@pytest.mark.parametrize(("mode", "woken"), [("transaction", False), ("session", True)])
def test_relay_behind_pgbouncer(
    mode, woken, postgresql, make_app, tmp_path, monkeypatch, caplog
):
    """Where PgBouncer keeps a relay from being woken, it says so and looks often."""
    with pgbouncer(tmp_path, mode) as port:
        url = postgresql.url.set(port=port)
        options = {"prepare_threshold": None}
        engine = create_engine(url, connect_args=options, poolclass=NullPool)
        relay = make_app(engine).relay()
        waits = []

        def wait(seconds):
            waits.append(seconds)
            if len(waits) == 2:
                assert relay.waiter.listens == woken
                relay.stop()

        monkeypatch.setattr(relay.waiter, "wait", wait)
        relay.run()
        with engine.connect() as connection:
            listening = text("SELECT pg_listening_channels()")
            assert connection.scalars(listening).all() == []
    assert waits == [2 if woken else 0.2] * 2
    assert caplog.text.count("does not wake this relay") == (not woken)


def test_relay_that_rests(engine, make_app):
    """A relay that has nothing to do writes nothing, and one that stands by no row."""
    app = make_app(engine)
    relay = app.relay()
    relay.send()
    statements = []

    @event.listens_for(engine, "before_cursor_execute")
    def record(connection, cursor, statement, *_):
        statements.append(statement.split()[0])

    assert relay.send().sent == []
    assert statements == ["SELECT"]
    assert app.relay().send() is None
    assert "INSERT" not in statements
    make_app(engine, down=True, queue=app.queue).defer(1)
    app.make_due()
    assert len(relay.send().sent) == 1
    # Its lock is renewed before its end.
    with engine.begin() as connection:
        soon = database_time() + relay._schema_relays[0]._lock.seconds / 3
        connection.execute(update(OutboxRelay).values(until=soon))
    statements.clear()
    assert relay.send().sent == []
    assert "UPDATE" in statements
