"""Delivery by outbox: rows in the database of the application, and their relay."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from celery.canvas import Signature
from kombu import Connection
from kombu.utils.json import loads
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks.exceptions import OutboxError, OutboxTableMissing, ResultNotReady
from pyramid_tasks.registry import get_tasks

pytest.importorskip("pyramid_tm")
pytest.importorskip("sqlalchemy")
pytest.importorskip("zope.sqlalchemy")
import zope.sqlalchemy
from databases import database
from sqlalchemy import MetaData, create_engine, select, text, update
from sqlalchemy.orm import Session

from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.relay import Relay, create_table
from pyramid_tasks.outbox.rows import connect, get_status, send_rows
from pyramid_tasks.outbox.table import OutboxMessage, metadata, outbox_table

DOWN = "redis://localhost:1/0"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request, tmp_path):
    """An engine of each database, with the table."""
    with database(request.param, tmp_path) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def sqlite(tmp_path):
    """An engine of SQLite, with the table, for what is the same everywhere."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


class App:
    """An application with an outbox, and what has arrived at its broker."""

    def __init__(self, engine, *, include="pyramid_tm", configure=None, **settings):
        self.engine = engine
        self.runs = []
        self.queue = settings.pop("queue", None) or unique()
        settings = {
            "celery.broker_url": "memory://localhost",
            "celery.task_default_queue": self.queue,
            "celery.broker_transport_options": {"polling_interval": 0.01},
            "tm.manager_hook": "pyramid_tm.explicit_manager",
            "pyramid_tasks.delivery": "outbox",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        with Configurator(settings=settings) as config:
            config.include("pyramid_tm")
            config.include(f"pyramid_tasks.contrib.{include}")
            config.register_task(self.record, name="record")
            config.register_task(self.nest, name="nest")
            config.add_request_method(self.dbsession, reify=True)
            if configure:
                configure(config)
        self.registry = config.registry
        self.celery = get_tasks(config.registry).app

    def dbsession(self, request):
        session = Session(self.engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    def record(self, request, x):
        self.runs.append(x)

    def nest(self, request, x):
        request.defer_task("record", x)

    @contextmanager
    def request(self):
        with prepare(registry=self.registry) as env:
            yield env["request"]

    def defer(self, *values, **options):
        """Defer tasks in a transaction, and commit it."""
        with self.request() as request, request.tm:
            return [
                request.defer_task_with_options("record", [value], **options)
                for value in values
            ]

    def received(self, queue=None):
        """Return the messages that are in the queue, and empty it."""
        messages = []
        with Connection("memory://localhost") as connection:
            channel = connection.channel()
            while message := channel.basic_get(queue or self.queue, no_ack=True):
                messages.append(message)
        return messages

    def values(self):
        return [message.payload[0][0] for message in self.received()]

    def relay(self, **options):
        return Relay(self.registry, self.engine, **options)


def rows(engine):
    with Session(engine) as session:
        return session.scalars(select(OutboxMessage).order_by(OutboxMessage.id)).all()


def make_due(engine):
    with engine.begin() as connection:
        connection.execute(update(OutboxMessage).values(not_before=0))


def test_task_is_sent_after_the_commit(engine):
    """The row is part of the transaction; after it the task is sent, the row gone."""
    app = App(engine)
    with app.request() as request:
        with request.tm:
            result = request.defer_task("record", 1)
            request.defer_task("record", 2)
            request.dbsession.flush()
            assert app.received() == []
            assert rows(engine) == []
            assert result.ready() is False
            with pytest.raises(ResultNotReady):
                result.get(timeout=1)
        assert result.sent
    first, second = app.received()
    assert first.headers["id"] == result.id
    assert first.headers["ignore_result"] is False
    assert [first.payload[0], second.payload[0]] == [[1], [2]]
    assert rows(engine) == []


@pytest.mark.parametrize("how", ["abort", "error", "doom", "savepoint", "nested"])
def test_nothing_is_sent_that_was_not_committed(engine, how):
    """Abort, exception, doom, and a rollback to a savepoint: 0 sent, 0 stored."""
    app = App(engine)
    if how == "savepoint" and engine.dialect.name == "sqlite":
        pytest.skip("zope.sqlalchemy has no savepoints on SQLite")

    def work(request):
        request.defer_task("record", 1)
        match how:
            case "error":
                raise ValueError(how)
            case "doom":
                request.tm.doom()
            case "abort":
                request.tm.abort()

    with app.request() as request:
        request.tm.begin()
        if how == "savepoint":
            request.dbsession.execute(text("SELECT 1"))
            savepoint = request.tm.savepoint()
            work(request)
            request.dbsession.flush()
            savepoint.rollback()
            request.tm.commit()
        elif how == "nested":
            nested = request.dbsession.begin_nested()
            work(request)
            request.dbsession.flush()
            nested.rollback()
            request.tm.commit()
        elif how == "error":
            with pytest.raises(ValueError, match="error"):
                work(request)
            request.tm.abort()
        else:
            work(request)
            if how == "doom":
                assert request.tm.isDoomed()
                request.tm.abort()
    assert app.received() == []
    assert rows(engine) == []


def test_options_survive(engine):
    """Every option of Celery comes out of the relay as it went into the outbox."""
    queue, task_id = unique(), unique()
    before = datetime.now(UTC)
    (result,) = App(engine, celery__broker_url=DOWN).defer(
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
    (row,) = rows(engine)
    assert loads(row.message)["options"]["eta"] > before

    app = App(engine)
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


def test_arguments_survive(engine):
    """What JSON, and Celery's own additions to it, can say arrives as it was."""
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    values = [{"a": [1, 2.5, None, True]}, "naïve \N{SNOWMAN} \0", 2**70, moment]
    App(engine, celery__broker_url=DOWN).defer(*values)
    app = App(engine)
    app.relay().run_once()
    assert app.values() == values


def test_broker_down(engine):
    """A broker that is down costs no attempt; a relay sends later, in order."""
    results = App(engine, celery__broker_url=DOWN).defer(*range(5))
    assert [result.sent for result in results] == [True] * 5
    app = App(engine, celery__broker_url=DOWN)
    with pytest.raises(OutboxError, match=r"localhost:1/0 is down"):
        app.relay().run_once()
    assert [row.attempts for row in rows(engine)] == [0] * 5

    app = App(engine)
    assert app.relay(batch=2).run_once() == 5
    messages = app.received()
    assert [message.headers["id"] for message in messages] == [
        result.id for result in results
    ]
    assert rows(engine) == []


def test_order_of_a_process_is_kept(engine):
    """What a process has left to the relay, it does not overtake itself."""
    down = App(engine, celery__broker_url=DOWN)
    down.defer(1)
    (row,) = rows(engine)
    assert get_outbox(down.registry).left_last == row.id
    app = App(engine)
    get_outbox(app.registry).left_last = row.id  # as if it had been this process
    app.defer(2)
    assert app.values() == []
    make_due(engine)
    app.relay().run_once()
    assert app.values() == [1, 2]
    app.defer(3)
    assert app.values() == [3]
    assert rows(engine) == []


def test_refused_message_is_set_aside(engine, caplog):
    """A message that cannot be sent is tried a few times; the others go on."""
    down = App(engine, celery__broker_url=DOWN)
    down.defer(1, 2, 3)
    with engine.begin() as connection:
        second = rows(engine)[1].id
        connection.execute(
            update(OutboxMessage)
            .where(OutboxMessage.id == second)
            .values(task="no.such.task")
        )
    app = App(engine, pyramid_tasks__outbox_max_attempts="3")
    assert app.relay().run_once() == 2
    assert app.values() == [1, 3]
    for attempts in 1, 2, 3:
        (row,) = rows(engine)
        assert (row.attempts, row.set_aside) == (attempts, attempts == 3)
        make_due(engine)
        assert app.relay().run_once() == 0
    assert "no.such.task" in row.error
    assert "is set aside" in caplog.text
    status = get_status(engine)
    assert (status.waiting, status.set_aside) == (0, 1)


def test_message_that_the_broker_chokes_on_is_set_aside(sqlite):
    """An error of the transport is the message's, when a new connection has it too."""
    App(sqlite, celery__broker_url=DOWN).defer(1, 2)
    app = App(sqlite)
    apply_async = app.celery.tasks["record"].apply_async

    def choke(args, kwargs, **options):
        if args == [1]:
            raise ConnectionResetError("Shortstring overflow")
        return apply_async(args, kwargs, **options)

    app.celery.tasks["record"].apply_async = choke
    assert app.relay().run_once() == 1
    assert app.values() == [2]
    (row,) = rows(sqlite)
    assert row.attempts == 1
    assert "overflow" in row.error


def test_refusal_after_the_commit_does_not_reach_the_request(sqlite):
    """What the web process is refused, it counts, and leaves to the relay."""
    app = App(sqlite)
    app.celery.tasks["record"].apply_async = lambda *_, **__: 1 / 0
    app.defer(1)
    (row,) = rows(sqlite)
    assert row.attempts == 1
    assert "ZeroDivisionError" in row.error


def test_lease(engine):
    """A relay leaves a row for a while to the process that wrote it."""
    app = App(engine, pyramid_tasks__outbox_lease="60")
    with app.request() as request, request.tm:
        request.defer_task("record", 1)
        # Killed here: nothing is sent after the commit.
        request.tm.get()._data.clear()
        for resource in request.tm.get()._resources:
            if hasattr(resource, "messages"):
                resource.messages.clear()
    assert app.relay().run_once() == 0
    make_due(engine)
    assert app.relay().run_once() == 1
    assert app.values() == [1]


def test_relay_stops_after_the_current_message(engine):
    """What a relay has sent when it is told to stop is deleted, and no more sent."""
    App(engine, celery__broker_url=DOWN).defer(1, 2, 3)
    app = App(engine)
    relay = app.relay()
    apply_async = app.celery.tasks["record"].apply_async

    def send(*args, **options):
        relay.stop()
        return apply_async(*args, **options)

    app.celery.tasks["record"].apply_async = send
    relay.run()
    assert app.values() == [1]
    assert len(rows(engine)) == 2


def test_two_relays_share(engine):
    """Rows that one relay is sending are left alone by another."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no SKIP LOCKED")
    down = App(engine, celery__broker_url=DOWN)
    down.defer(1, 2, 3)
    app = App(engine)
    others = []
    apply_async = app.celery.tasks["record"].apply_async

    def send(*args, **options):
        if not others:
            others.append(None)
            others.append(App(engine, queue=app.queue).relay().run_once())
        return apply_async(*args, **options)

    app.celery.tasks["record"].apply_async = send
    assert app.relay(batch=2).run_once() == 2
    assert others == [None, 1]
    assert app.values() == [3, 1, 2]


def test_requests_do_not_wait_for_a_relay(engine):
    """While a relay waits for its broker, a request can still defer tasks."""
    App(engine, celery__broker_url=DOWN).defer(1, 2, 3)
    app = App(engine)
    seconds = []
    apply_async = app.celery.tasks["record"].apply_async

    def send(*args, **options):
        if not seconds:
            seconds.append(time.monotonic())
            App(engine, celery__broker_url=DOWN).defer(4)
            seconds.append(time.monotonic())
        return apply_async(*args, **options)

    app.celery.tasks["record"].apply_async = send
    app.relay(batch=2).run_once()
    assert seconds[1] - seconds[0] < 4
    assert app.values() == [1, 2, 3, 4]


def test_message_is_sent_once_by_two_who_want_it(engine):
    """Two who take the same row do not both send it, if the row is gone."""
    App(engine, celery__broker_url=DOWN).defer(1)
    ids = [row.id for row in rows(engine)]
    app = App(engine)
    for _ in range(2):
        send_rows(app.celery, engine, ids=ids, timeout=2, max_attempts=5)
    assert app.values() == [1]


@pytest.mark.server
def test_relay_is_woken(tmp_path):
    """On PostgreSQL a relay hears of what a web process could not send."""
    with database("postgresql", tmp_path) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        app = App(engine)
        relay = app.relay(interval=600)
        ready = threading.Event()
        thread = threading.Thread(target=relay.run, args=(ready.set,))
        thread.start()
        assert ready.wait(60)
        # The first wait may not have begun, but listening has, or will look first.
        App(engine, celery__broker_url=DOWN).defer(1)
        deadline = time.monotonic() + 60
        while rows(engine) and time.monotonic() < deadline:
            time.sleep(0.05)
        relay.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert app.values() == [1]
        engine.dispose()


def test_without_a_transaction_it_is_sent_at_once(sqlite):
    """A script that began no transaction sends at once."""
    app = App(sqlite)
    with app.request() as request:
        request.defer_task("record", 1)
    assert app.values() == [1]


def test_delivery_of_one_call(sqlite):
    """delivery= chooses for one call, whatever the default is."""
    app = App(sqlite, pyramid_tasks__delivery="commit", celery__broker_url=DOWN)
    app.defer(1, delivery="outbox")
    assert len(rows(sqlite)) == 1


def test_eager_tasks_run_after_the_commit(sqlite):
    """With task_always_eager a task runs at the commit, and can defer another."""
    app = App(sqlite, celery__task_always_eager=True)
    with app.request() as request, request.tm:
        request.defer_task("nest", 1)
        assert app.runs == []
    assert app.runs == [1]
    assert rows(sqlite) == []


def test_include_by_itself(sqlite):
    """Including pyramid_tasks.contrib.outbox chooses it as well."""
    app = App(sqlite, include="outbox", celery__broker_url=DOWN)
    app.registry.settings.pop("pyramid_tasks.delivery")
    app = App(sqlite, include="outbox", pyramid_tasks__delivery="outbox")
    assert get_tasks(app.registry).delivery == "outbox"
    app.defer(1)
    assert app.values() == [1]


def test_call_is_checked_when_deferred(sqlite):
    """A call that could not work fails in the code that made it."""
    app = App(sqlite)
    with app.request() as request, request.tm:
        with pytest.raises(TypeError):
            request.defer_task("record")
        with pytest.raises(Exception, match="not JSON serializable"):
            request.defer_task("record", object())
        with pytest.raises(TypeError, match="record .* stores JSON"):
            request.defer_task_with_options("record", [1], router=object())
        argument = [1]
        request.defer_task("record", argument)
        argument.append(2)
    assert app.values() == [[1]]


def test_missing_table(tmp_path):
    """Without the table, the code that defers is told how to make it."""
    engine = create_engine(f"sqlite:///{tmp_path}/empty.sqlite")
    app = App(engine)
    with app.request() as request:
        request.tm.begin()
        with pytest.raises(OutboxTableMissing, match="outbox create"):
            request.defer_task("record", 1)
        request.tm.abort()
    assert create_table(engine) is True
    assert create_table(engine) is False
    app.defer(1)
    assert app.values() == [1]


def test_set_task_outbox(sqlite):
    """The session can be any, and so can the engine of the relay."""

    def session(request):
        return request.dbsession

    for name in session, "dbsession":
        app = App(
            sqlite, configure=lambda config, name=name: config.set_task_outbox(name)
        )
        app.defer(1)
        assert app.values() == [1]
    assert get_outbox(app.registry).get_engine() is sqlite
    for engine in sqlite, lambda registry: sqlite:
        app = App(
            None,
            configure=lambda config, engine=engine: config.set_task_outbox(
                session, engine
            ),
        )
        assert get_outbox(app.registry).get_engine() is sqlite


def test_session_that_is_not_there(sqlite):
    """A request without the session is told what to configure."""
    app = App(sqlite, configure=lambda config: config.set_task_outbox("db"))
    with (
        app.request() as request,
        request.tm,
        pytest.raises(OutboxError, match=r"no request.db\. .*set_task_outbox"),
    ):
        request.defer_task("record", 1)


def test_setting_that_is_no_number(sqlite):
    """A setting that cannot be read is named, before anything is deferred."""
    with pytest.raises(ConfigurationError, match="outbox_lease = soon"):
        App(sqlite, pyramid_tasks__outbox_lease="soon")


def test_without_sqlalchemy(sqlite, monkeypatch):
    """Choosing the outbox without SQLAlchemy says what to install."""
    monkeypatch.setattr("pyramid_tasks.outbox.delivery.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pyramid-tasks\[outbox\]"):
        App(sqlite)
    App(sqlite, pyramid_tasks__delivery="commit")


def test_eta_in_words(sqlite):
    """A time that the caller gave as text is sent as that."""
    App(sqlite, celery__broker_url=DOWN).defer(1, eta="2034-05-01T12:00:00Z")
    app = App(sqlite)
    assert app.relay().run_once() == 1
    (message,) = app.received()
    assert message.headers["eta"].startswith("2034-05-01T12:00:00")


def test_row_that_a_relay_has_is_not_waited_for(engine):
    """A request that fails to send does not wait for rows that a relay has locked."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no SKIP LOCKED")
    App(engine, celery__broker_url=DOWN).defer(1, 2)
    ids = [row.id for row in rows(engine)]
    app = App(engine, celery__broker_url=DOWN)
    with connect(engine) as relay:
        relay.execute(
            select(OutboxMessage.id).where(OutboxMessage.id == ids[0]).with_for_update()
        )
        start = time.monotonic()
        result = send_rows(app.celery, engine, ids=ids, timeout=2, max_attempts=5)
        assert time.monotonic() - start < 10
    assert result.taken == 1
    assert result.broker_down is not None


def test_application_without_outbox():
    """An application without transactions is told what to include."""
    with pytest.raises(OutboxError, match="contrib.pyramid_tm"):
        get_outbox({})


def test_task_deferred_by_a_task_names_its_parent(sqlite):
    """What a relay sends has the same parents as what the task would have sent."""
    app = App(sqlite, celery__broker_url=DOWN)
    parent = SimpleNamespace(request=SimpleNamespace(root_id="root", id="parent"))
    # As while a task runs.
    type(app.celery).current_worker_task = parent
    try:
        app.defer(1)
    finally:
        del type(app.celery).current_worker_task
    app = App(sqlite)
    app.relay().run_once()
    (message,) = app.received()
    assert message.headers["root_id"] == "root"
    assert message.headers["parent_id"] == "parent"


def test_table_for_alembic():
    """The table can be added to the metadata of an application, more than once."""
    own = MetaData()
    table = outbox_table(own)
    assert outbox_table(own) is table
    assert set(own.tables) == {"pyramid_tasks_outbox"}
    assert table.c.keys() == OutboxMessage.__table__.c.keys()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_does_not_answer_holds_nobody_up(sqlite, scheme):
    """A broker that accepts connections and says nothing costs the timeout, once."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        server.listen()
        app = App(
            sqlite,
            celery__broker_url=f"{scheme}://localhost:{server.getsockname()[1]}//",
            pyramid_tasks__delivery_timeout="0.5",
        )
        start = time.monotonic()
        app.defer(1, 2, 3)
        assert time.monotonic() - start < 2
    assert len(rows(sqlite)) == 3


def test_database_gone_after_the_commit(sqlite, caplog):
    """An error of the database after the commit is logged, and nobody's failure."""
    app = App(sqlite)
    with app.request() as request, request.tm:
        request.defer_task("record", 1)
        (outgoing,) = [
            resource
            for resource in request.tm.get()._resources
            if hasattr(resource, "messages")
        ]
        prepare_ids = outgoing.prepare

        def prepare(messages):
            prepare_ids(messages)
            outgoing.engine = create_engine("sqlite:////nowhere/x.sqlite")

        outgoing.prepare = prepare
    assert "left to the relay" in caplog.text
    assert len(rows(sqlite)) == 1


def test_connection_locks_little(engine):
    """MariaDB and MySQL do not lock the gaps between rows."""
    with connect(engine) as connection:
        if engine.dialect.name == "mysql":
            assert connection.get_isolation_level() == "READ COMMITTED"
