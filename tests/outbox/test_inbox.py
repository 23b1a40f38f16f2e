"""The inbox: a task whose message arrives twice changes the database once."""

from __future__ import annotations

import logging
from contextlib import suppress
from unittest.mock import ANY, Mock, call, patch

import pytest
from celery import VERSION as CELERY
from celery import Task, chain, group
from celery.app.trace import trace_task
from celery.events import EventDispatcher
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerLostError,
)
from celery.worker.state import active_requests
from databases import engine_with_schemas, execute
from kombu import Message
from kombu.exceptions import DecodeError
from pyramid.exceptions import ConfigurationError
from pyramid.scripting import prepare
from sqlalchemy import create_engine, event, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from support import DEADLINE, unique, wait_until
from transactional import TransactionalApp, invoke

from pyramid_tasks import AfterTask, BeforeTask
from pyramid_tasks._celery import as_current_app
from pyramid_tasks.exceptions import OutboxTableMissing
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.inbox import check_database
from pyramid_tasks.outbox.inbox_command import inbox
from pyramid_tasks.outbox.inbox_rows import purge
from pyramid_tasks.outbox.models import InboxRow, OutboxMessage, database_time
from pyramid_tasks.outbox.relay import Relay
from pyramid_tasks.outbox.tables import create_tables
from pyramid_tasks.testing import start_worker

#: A name that is longer than the column of the table.
LONG = "x" * 256


class App(TransactionalApp):
    """An application with a task, ``work``, that adds a row to a table and returns."""

    def __init__(self, engine, hook=lambda request: None, **more):
        self.hook = hook
        self.events = []
        self.options = more.pop("options", {"inbox": True})
        settings = {"celery.result_backend": "cache+memory://"} | more
        super().__init__(engine, settings, self.configure)
        create = "CREATE TABLE effects (n INTEGER PRIMARY KEY)"
        execute(engine, "DROP TABLE IF EXISTS effects", create)

    def configure(self, config):
        for each in BeforeTask, AfterTask:
            config.add_subscriber(lambda event: self.events.append(type(event)), each)

    def add_tasks(self, config):
        config.register_task(self.work, name="work", **self.options)
        config.register_task(lambda request, *args: args, name="next", inbox=True)
        config.register_task(lambda request: "long", name=LONG, inbox=True)
        config.register_task(lambda request, task_id: None, name="after an error")

    def work(self, request_, n=1, request=None):
        value = self.hook(request_)
        insert = text(f"INSERT INTO effects VALUES ({n + self.effects()})")
        request_.dbsession.connection().execute(insert)
        return value

    def run(self, task_id, *, name="work", redelivered=False, **message):
        """Run the task as a worker would, and return its state and its result."""
        message |= {"id": task_id, "delivery_info": {"redelivered": redelivered}}
        app, task = self.celery, self.celery.tasks[name]
        with as_current_app(app):
            found = trace_task(task, task_id, (), {}, message, app=app, eager=True)
        value, info, *_ = found
        return (info.state, info.retval) if info else ("SUCCESS", value)

    def be_overtaken(self, task_id, end):
        """Have another run of the message succeed, before a function ends the task."""

        def hook(request):
            self.hook = lambda request: "first"
            assert self.run(task_id) == ("SUCCESS", "first")
            return end()

        self.hook = hook

    def count(self, what):
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(what))

    def effects(self):
        return self.count(text("effects"))


@pytest.fixture
def task_id():
    return unique()


def test_effects_once(engine, task_id, caplog):
    """A message that arrives again gets the value of the first run, and no event.

    With the outbox, the tasks that a task defers are deferred once.
    """
    caplog.set_level(logging.INFO, "pyramid_tasks")
    down = {"pyramid_tasks.delivery": "outbox", "celery.broker_url": "redis://x:1/0"}
    app = App(engine, lambda request: (request.defer_task("next").id, None), **down)
    state, value = app.run(task_id)
    assert (state, type(value)) == ("SUCCESS", tuple)
    events, app.events = app.events, []
    assert events == [BeforeTask, AfterTask]
    assert f"work[{task_id}] has run before" not in caplog.text
    assert app.run(task_id, redelivered=True) == ("SUCCESS", [*value])
    assert f"work[{task_id}] has run before" in caplog.text
    assert app.events == []
    assert app.effects() == app.count(OutboxMessage) == 1
    app.run(task_id.upper())
    assert app.effects() == 2
    assert app.run(task_id, name="next", redelivered=True) == ("SUCCESS", ())
    assert app.run(task_id, name=LONG) == ("SUCCESS", "long")


def test_two_at_the_same_time(engine, task_id, caplog):
    """Both run, one commits; the other has its value, and no error is logged."""
    caplog.set_level(logging.INFO)
    app = App(engine)
    app.be_overtaken(task_id, lambda: "second")
    assert app.run(task_id) == ("SUCCESS", "first")
    assert app.effects() == 1
    assert app.events.count(AfterTask) == 1
    assert f"work[{task_id}] has run before" in caplog.text
    assert not [each for each in caplog.records if each.exc_info]


def test_error_that_the_first_run_causes(engine, task_id):
    """A task that fails as the first run has committed meanwhile has its value.

    One that asks to be ignored has not failed.
    """
    app = App(engine)
    app.be_overtaken(task_id, lambda: 1 / 0)
    assert app.run(task_id) == ("SUCCESS", "first")
    app.be_overtaken("other", Mock(side_effect=Ignore))
    assert app.run("other")[0] == "IGNORED"
    app.hook = lambda request: 1 / 0
    state, error = app.run(unique())
    assert (state, type(error)) == ("FAILURE", ZeroDivisionError)


@pytest.mark.parametrize(
    "ending",
    [
        *(ValueError("x"), Ignore(), Reject("x"), Retry(), SoftTimeLimitExceeded()),
        *("doom", "unfinished"),
    ],
    ids=repr,
)
def test_no_row_without_a_commit(sqlite, task_id, ending):
    """A task that did not commit runs again."""
    app = App(sqlite, Mock(side_effect=ending))
    if ending == "doom":
        app.hook = lambda request: request.tm.doom()
    if ending == "unfinished":
        app.hook = lambda request: (each for each in "ab")
    app.run(task_id)
    assert (app.effects(), app.count(InboxRow)) == (0, 0)
    app.hook = lambda request: "again"
    assert app.run(task_id) == ("SUCCESS", "again")
    assert app.effects() == 1


@pytest.mark.parametrize("throw", [False, True])
def test_retry_that_does_not_end_the_task(sqlite, task_id, throw):
    """A task that has sent a retry has no row, though it goes on: the retry runs."""

    def hook(request):
        task = request.current_task
        if task.request.retries == 0:
            with suppress(Retry):
                task.retry(throw=throw)
        return task.request.retries

    app = App(sqlite, hook)
    assert app.run(task_id)[0] == "RETRY"
    assert app.effects() == 0
    (message,) = app.received()
    assert message.headers["id"] == task_id
    assert app.run(task_id, retries=message.headers["retries"]) == ("SUCCESS", 1)
    assert app.run(task_id) == ("SUCCESS", 1)
    assert app.effects() == 1


def test_limit_while_the_value_is_written(sqlite, task_id):
    """The time limit of a task is its error, and nothing is committed."""
    value = Mock(__json__=Mock(side_effect=SoftTimeLimitExceeded))
    app = App(sqlite, lambda request: value)
    state, error = app.run(task_id)
    assert (state, type(error)) == ("FAILURE", SoftTimeLimitExceeded)
    assert app.effects() == 0


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(ValueError, DecodeError), (SoftTimeLimitExceeded, SoftTimeLimitExceeded)],
)
def test_value_that_cannot_be_read(sqlite, task_id, monkeypatch, reason, expected):
    """It fails the repeated task, as does the time limit that strikes meanwhile."""
    app = App(sqlite, lambda request: "value")
    app.run(task_id)
    fail = Mock(side_effect=DecodeError(reason()))  # kombu makes one of any error
    monkeypatch.setattr("pyramid_tasks.outbox.inbox.loads", fail)
    state, error = app.run(task_id)
    assert (state, type(error)) == ("FAILURE", expected)
    assert app.effects() == 1


def test_call_by_another_task(sqlite, task_id):
    """It is a part of that task, and has events, but no row of its own."""
    app = App(sqlite, lambda request: app.celery.tasks["next"](3))
    assert app.run(task_id) == ("SUCCESS", (3,))
    assert app.count(InboxRow) == 1
    assert app.events == [BeforeTask, BeforeTask, AfterTask, AfterTask]


def test_argument_of_any_name(sqlite, task_id):
    """A parameter may have the name that the inbox gives to its own."""
    app = App(sqlite)
    app.celery.tasks["work"].apply(kwargs={"request": 1}, throw=True)
    assert app.effects() == 1


def test_pyramid_retry(sqlite, task_id):
    """A transaction that conflicts is tried again; the attempt that commits counts."""
    pyramid_retry = pytest.importorskip("pyramid_retry")
    hook = Mock(side_effect=[pyramid_retry.RetryableException(), "value"])
    settings = {"pyramid.includes": "pyramid_retry", "retry.attempts": 2}
    app = App(sqlite, hook, **settings)
    assert app.run(task_id) == app.run(task_id) == ("SUCCESS", "value")
    assert app.effects() == 1
    assert app.events == [BeforeTask, BeforeTask, AfterTask]


def test_value_that_cannot_be_stored(sqlite, task_id):
    """It fails the task before the commit, as the result backend would afterwards."""
    app = App(sqlite, lambda request: object())
    state, error = app.run(task_id)
    assert state == "FAILURE"
    assert str(error) == "Object of type object is not JSON serializable"
    assert app.effects() == 0


@pytest.mark.skipif(CELERY < (5, 5), reason="Celery has pydantic=True since 5.5")
def test_model(sqlite, task_id, monkeypatch):
    """A model is the dictionary that Celery makes of it, each time."""
    pydantic = pytest.importorskip("pydantic")

    class Receipt(pydantic.BaseModel):
        total: int
        note: str = ""

    monkeypatch.setitem(App.work.__annotations__, "return", Receipt)
    options = {"pydantic_dump_kwargs": {"exclude_defaults": True}}
    options |= {"inbox": True, "pydantic": True}
    app = App(sqlite, lambda request: Receipt(total=5), options=options)
    for _ in range(2):
        assert app.run(task_id) == ("SUCCESS", {"total": 5})
    assert app.effects() == 1


@pytest.mark.parametrize(
    "unused",
    [
        {"options": {"inbox": True, "ignore_result": True}},
        {"celery.result_backend": "disabled"},
    ],
    ids=str,
)
def test_value_that_nobody_asks_for(sqlite, task_id, unused):
    """It is not stored, and need not be serializable."""
    app = App(sqlite, lambda request: object(), **unused)
    app.run(task_id)
    assert app.run(task_id) == ("SUCCESS", None)
    assert app.effects() == 1


def test_value_for_a_chord(sqlite, task_id):
    """A chord gets the value of a task whose own result nobody asks for."""
    options = {"inbox": True, "ignore_result": True}
    app = App(sqlite, lambda request: 10, options=options)
    chord = app.celery.signature("next")
    for _ in range(2):
        assert app.run(task_id, chord=chord) == ("SUCCESS", 10)
    assert app.effects() == 1


def test_followers_have_the_same_ids(sqlite, task_id):
    """Linked tasks, whatever they are, get the ids that they had the first time."""

    def follower(*args):
        return app.celery.signature("next", args)

    app = App(sqlite, lambda request: "value")
    chain = follower(1) | follower(2)
    linked = {"callbacks": [follower(0), chain, group(follower(3), follower(4))]}
    failed = {"errbacks": [app.celery.signature("after an error")]}
    sent = []
    for _ in range(2):
        app.run(task_id, **linked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "hook", lambda request: 1 / 0)
            app.run(f"{task_id} failed", **failed)
        received = app.received()
        sent.append({each.headers["id"]: each.payload[0] for each in received})
    assert len(sent[0]) == 5
    assert sent[0] == sent[1]


@pytest.mark.parametrize("length", [1, 2])
def test_replacement(sqlite, task_id, length):
    """A replacement has the id of its task. What comes before it in a chain has not."""

    def hook(request):
        steps = [app.celery.signature("next", [n]) for n in range(length)]
        request.current_task.replace(chain(steps, app=app.celery))

    app = App(sqlite, hook)
    sent = []
    for _ in range(2):
        app.run(task_id)
        (message,) = app.received()
        ids = [each["options"]["task_id"] for each in message.payload[2]["chain"] or ()]
        sent.append({message.headers["id"], *ids})
    assert len(sent[0]) == length
    assert sent[0] & sent[1] == {task_id}


ON = {"pyramid_tasks.inbox": "true"}
EARLY = {"acks_late": False, "reject_on_worker_lost": False}


class Inbox(Task):
    """The class of tasks that have an inbox, and say one thing about messages."""

    inbox = True
    reject_on_worker_lost = False


class Alone(Task):
    """The class of tasks that have no transaction."""

    tm = False


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        ({"inbox": True}, {}, (True, True, True)),
        ({}, ON, (True, True, True)),
        ({}, {}, (False, False, None)),
        ({"inbox": False}, ON, (False, False, None)),
        ({"tm": False}, ON, (False, False, None)),
        ({"base": Alone}, ON, (False, False, None)),
        (EARLY, ON, (True, False, False)),
        ({"base": Inbox}, {}, (True, True, False)),
        ({"base": Inbox, "inbox": False}, ON, (False, False, False)),
        ({"base": Inbox, **EARLY}, {}, (True, False, False)),
    ],
)
def test_options(sqlite, options, settings, expected):
    """An inbox sets when a message is acknowledged, unless the task says otherwise."""
    app = App(sqlite, options=options, **settings)
    task = app.celery.tasks["work"]
    found = getattr(task, "inbox", False), task.acks_late, task.reject_on_worker_lost
    assert found == expected


def test_option_of_a_class(sqlite, task_id):
    """An inbox works where the class of a task has it, as other options do."""
    app = App(sqlite, options={"base": Inbox})
    for _ in range(2):
        assert app.run(task_id) == ("SUCCESS", None)
    assert app.events == [BeforeTask, AfterTask]
    assert app.effects() == 1


def test_inbox_of_an_annotation(sqlite):
    """An annotation that would give a task an inbox is refused, as it cannot."""
    annotations = {"celery.task_annotations": {"work": {"inbox": True}}}
    App(sqlite, **annotations)
    with pytest.raises(ConfigurationError, match="'work' gets inbox = True from task_"):
        App(sqlite, options={}, **annotations)


def test_inbox_needs_a_transaction(sqlite, configure):
    """Without one, the application does not start."""
    words = "'work' has inbox=True, but no tra"
    both = "pyramid_tm pyramid_tasks.contrib.pyramid_tm"
    for options, names in ({"tm": False}, both), ({}, ""):
        config = configure(**{"pyramid.includes": names})
        config.register_task(lambda request: None, name="work", inbox=True, **options)
        with pytest.raises(ConfigurationError, match=words):
            config.commit()


def test_lost_processes(engine, task_id):
    """A task that takes its processes with it fails after some deliveries."""

    class Killed(BaseException): ...

    hook = Mock(side_effect=Killed)
    app = App(engine, hook, **{"pyramid_tasks.max_deliveries": "3"})
    for number in range(3):
        with pytest.raises(Killed):
            app.run(task_id, redelivered=number > 0)
    state, error = app.run(task_id, redelivered=True)
    assert (state, type(error)) == ("FAILURE", WorkerLostError)
    assert "lost 3 times; see pyramid_tasks.max_deliveries" in str(error)
    app.hook = lambda request: 1 / 0
    for _ in range(4):  # only a process that was lost counts
        state, error = app.run("other", redelivered=True)
        assert type(error) is ZeroDivisionError
    app.hook = lambda request: "done"
    for _ in range(4):
        assert app.run("other", redelivered=True) == ("SUCCESS", "done")


def test_event_of_a_lost_task(sqlite):
    """Whoever monitors the worker is told that the task failed, and runs no more."""
    app = App(sqlite, Mock(side_effect=WorkerLostError("lost")))
    with (
        patch.object(EventDispatcher, "send") as send,
        patch.object(Message, "ack_log_error") as acknowledge,
        start_worker(app.registry, task_events=True),
        prepare(registry=app.registry) as env,
    ):
        result = env["request"].defer_task("work")
        with pytest.raises(WorkerLostError):
            result.get(timeout=DEADLINE)
        failed = call("task-failed", uuid=result.id, exception=ANY, traceback=ANY)
        wait_until(lambda: failed in send.mock_calls)
        assert not active_requests
        assert acknowledge.call_count == 1


def test_inbox_that_cannot_be_read(engine, task_id):
    """A task fails before it runs if the database cannot say whether it has run."""
    hook = Mock()
    app = App(engine, hook)
    execute(engine, "ALTER TABLE pyramid_tasks_inbox RENAME COLUMN result TO other")
    state, error = app.run(task_id)
    assert (state, hook.mock_calls) == ("FAILURE", [])
    assert isinstance(error, DBAPIError)


def test_worker_that_starts_before_the_database(sqlite, caplog):
    """It starts, and says that it could not look for the table."""
    outbox = get_outbox(App(sqlite).registry)
    outbox.engine = create_engine("sqlite:////nowhere/x.sqlite")
    check_database(outbox)
    assert "inbox could not be looked for: unable to open" in caplog.text


@pytest.mark.parametrize("schemas", ["two", "one two"])
def test_schemas(tmp_path, task_id, schemas):
    """The row is in the schema of the setting, or in that of the tenant."""

    class Tenant(App):
        def dbsession(self, request):
            session = super().dbsession(request)
            if schemas != "two":

                @event.listens_for(session, "after_begin")
                def choose(_session, _transaction, connection):
                    connection.execute(text("SET LOCAL search_path TO two, public"))

            return session

    with engine_with_schemas("postgresql", tmp_path, "one", "two") as (engine, _):
        app = Tenant(engine, **{"pyramid_tasks.outbox_schema": schemas})
        app.be_overtaken(task_id, lambda: 1 / 0)
        for each in get_outbox(app.registry).schemas.all(engine):
            create_tables(each)
        for _ in range(6):  # more than may be lost
            assert app.run(task_id, redelivered=True) == ("SUCCESS", "first")
        assert app.effects() == 1
        found = text("two.pyramid_tasks_inbox WHERE delivery = 0")
        assert app.count(found) == 1
        assert invoke(app, "purge", group=inbox) == (0, "Deleted: 0\n")
        app.registry.settings["pyramid_tasks.inbox_keep"] = 0.001
        assert invoke(app, "purge", group=inbox)[0] == 0
        assert app.count(found) == 0
        check_database(get_outbox(app.registry))
        assert engine.pool.checkedin() == 0  # no child of the worker gets a connection
        execute(engine, "DROP TABLE two.pyramid_tasks_inbox")
        assert "no table two.pyramid" in invoke(app, "purge", group=inbox)[1]
        with pytest.raises(OutboxTableMissing, match="no table two.pyramid_tasks_inb"):
            check_database(get_outbox(app.registry))
        with pytest.raises(OutboxTableMissing, match="no table two.pyramid_tasks_inb"):
            Relay(app.registry, engine).run_once()


def test_purge(engine):
    """Old rows are deleted in batches, and no others."""
    InboxRow.metadata.create_all(engine)
    row = {"delivery": 0, "task": "work"}
    with engine.begin() as connection:
        now = connection.scalar(select(database_time()))
        times = [now - 100 + n / 100 if n < 2200 else now for n in range(2500)]
        rows = [row | {"task_id": f"{n}", "created": t} for n, t in enumerate(times)]
        connection.execute(insert(InboxRow), rows)
    assert purge(engine, 50, at_most=500) == 1000
    assert purge(engine, 50) == 1200
    assert purge(engine, 50) == 0
    app = App(engine, **{"pyramid_tasks.delivery": "outbox"})
    assert app.count(InboxRow) == 300
    app.registry.settings["pyramid_tasks.inbox_keep"] = 0.001
    for work in Relay.run_once, Relay.send:
        work(Relay(app.registry, engine))
        assert app.count(InboxRow) == 0
        execute(engine, "INSERT INTO pyramid_tasks_inbox VALUES ('', 0, '', '', '', 0)")
