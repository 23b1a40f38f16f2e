"""The inbox: a task whose message arrives twice changes the database once."""

from __future__ import annotations

import logging
import threading

import pytest
from celery import chain, group
from celery.app.trace import trace_task
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerLostError,
)
from pyramid.exceptions import ConfigurationError
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session
from support import DEADLINE, unique
from transactional import TransactionalApp

from pyramid_tasks import AfterTask, BeforeTask
from pyramid_tasks._celery import as_current_app
from pyramid_tasks.outbox.inbox_rows import purge
from pyramid_tasks.outbox.inbox_table import InboxRow
from pyramid_tasks.outbox.relay import Relay
from pyramid_tasks.outbox.table import OutboxMessage, database_time


class App(TransactionalApp):
    """An application with a task, ``work``, that adds a row to a table and returns."""

    def __init__(self, engine, hook=lambda request: None, **more):
        self.hook = hook
        self.events = []
        self.options = more.pop("options", {"inbox": True})
        settings = {"celery.result_backend": "cache+memory://"} | more
        super().__init__(engine, settings, self.configure)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS effects"))
            connection.execute(text("CREATE TABLE effects (n INTEGER PRIMARY KEY)"))

    def configure(self, config):
        for event in BeforeTask, AfterTask:
            config.add_subscriber(lambda event: self.events.append(type(event)), event)

    def add_tasks(self, config):
        config.register_task(self.work, name="work", **self.options)
        config.register_task(lambda request, *args: args, name="next", inbox=True)
        config.register_task(lambda request, task_id: None, name="after an error")

    def work(self, request, n=1):
        value = self.hook(request)
        request.dbsession.connection().execute(
            text("INSERT INTO effects VALUES (:n)"), {"n": n + self.effects()}
        )
        return value

    def run(self, task_id, *, redelivered=False, **message):
        """Run the task as a worker would, and return its state and its result."""
        message |= {"id": task_id, "delivery_info": {"redelivered": redelivered}}
        task = self.celery.tasks["work"]
        with as_current_app(self.celery):
            value, info, *_ = trace_task(
                task, task_id, (), {}, message, app=self.celery, eager=True
            )
        return (info.state, info.retval) if info else ("SUCCESS", value)

    def count(self, what):
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(what))

    def effects(self):
        return self.count(text("effects"))


@pytest.fixture
def task_id():
    return unique()


def test_effects_once(engine, task_id, caplog):
    """A message that arrives again gets the value of the first run, and no event."""
    caplog.set_level(logging.INFO, "pyramid_tasks")
    app = App(engine, lambda request: (1, {"two": None}))
    assert app.run(task_id) == ("SUCCESS", (1, {"two": None}))
    events, app.events = app.events, []
    assert events == [BeforeTask, AfterTask]
    assert f"work[{task_id}] has run before" not in caplog.text
    assert app.run(task_id, redelivered=True) == ("SUCCESS", [1, {"two": None}])
    assert f"work[{task_id}] has run before" in caplog.text
    assert app.events == []
    assert app.effects() == 1
    app.run(task_id.upper())
    assert app.effects() == 2


def test_two_at_the_same_time(engine, task_id, caplog):
    """Both run, one commits; the other has its value, and no error is logged."""
    caplog.set_level(logging.INFO)
    values, is_running, may_go_on = iter("ab"), threading.Event(), threading.Event()

    def hook(request):
        value = next(values)
        if value == "a":
            is_running.set()
            may_go_on.wait(DEADLINE)
        return value

    app = App(engine, hook)
    results = []
    slow = threading.Thread(target=lambda: results.append(app.run(task_id)))
    slow.start()
    assert is_running.wait(DEADLINE)
    assert app.run(task_id) == ("SUCCESS", "b")
    may_go_on.set()
    slow.join(DEADLINE)
    assert results == [("SUCCESS", "b")]
    assert app.effects() == 1
    assert app.events.count(AfterTask) == 1
    assert f"work[{task_id}] has run before" in caplog.text
    assert not [each for each in caplog.records if each.exc_info]


def test_error_that_the_first_run_causes(engine, task_id):
    """A task that fails as the first run has committed meanwhile has its value."""
    app = App(engine)

    def hook(request):
        app.hook = lambda request: "first"
        app.run(task_id)
        raise ValueError("this order has been shipped")

    app.hook = hook
    assert app.run(task_id) == ("SUCCESS", "first")
    app.hook = lambda request: 1 / 0
    state, error = app.run(unique())
    assert (state, type(error)) == ("FAILURE", ZeroDivisionError)


@pytest.mark.parametrize(
    "ending",
    [ValueError("x"), Ignore(), Reject("x"), Retry(), SoftTimeLimitExceeded(), "doom"],
    ids=repr,
)
def test_no_row_without_a_commit(sqlite, task_id, ending):
    """A task that did not commit runs again."""

    def hook(request):
        if ending == "doom":
            request.tm.doom()
        else:
            raise ending

    app = App(sqlite, hook)
    app.run(task_id)
    assert (app.effects(), app.count(InboxRow)) == (0, 0)
    app.hook = lambda request: "again"
    assert app.run(task_id) == ("SUCCESS", "again")
    assert app.effects() == 1


def test_pyramid_retry(sqlite, task_id):
    """A transaction that conflicts is tried again; the attempt that commits counts."""
    pyramid_retry = pytest.importorskip("pyramid_retry")
    attempts = iter([pyramid_retry.RetryableException(), "value"])

    def hook(request):
        value = next(attempts)
        if isinstance(value, Exception):
            raise value
        return value

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


def test_deferred_once(engine, task_id):
    """With the outbox, the tasks that a task defers are deferred once."""
    app = App(
        engine,
        lambda request: request.defer_task("next").id,
        **{"pyramid_tasks.delivery": "outbox", "celery.broker_url": "redis://x:1/0"},
    )
    assert app.run(task_id) == app.run(task_id)
    assert app.count(OutboxMessage) == 1


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


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        ({"inbox": True}, {}, (True, True, True)),
        ({}, {"pyramid_tasks.inbox": "true"}, (True, True, True)),
        ({}, {}, (False, False, None)),
        ({"inbox": False}, {"pyramid_tasks.inbox": "true"}, (False, False, None)),
        ({"tm": False}, {"pyramid_tasks.inbox": "true"}, (False, False, None)),
        (
            {"inbox": True, "acks_late": False, "reject_on_worker_lost": False},
            {},
            (True, False, False),
        ),
    ],
)
def test_options(sqlite, options, settings, expected):
    """An inbox sets when a message is acknowledged, unless the task says otherwise."""
    app = App(sqlite, options=options, **settings)
    task = app.celery.tasks["work"]
    assert (
        getattr(task, "inbox", False),
        task.acks_late,
        task.reject_on_worker_lost,
    ) == expected


def test_inbox_needs_a_transaction(sqlite, configure):
    """Without one, the application does not start."""
    for options, includes in [
        ({"tm": False}, "pyramid_tasks.contrib.pyramid_tm"),
        ({}, ""),
    ]:
        config = configure(**{"pyramid.includes": includes})
        config.register_task(lambda request: None, name="work", inbox=True, **options)
        with pytest.raises(
            ConfigurationError, match="'work' has inbox=True, but no tra"
        ):
            config.commit()


def test_lost_processes(engine, task_id):
    """A task that takes its processes with it fails after some deliveries."""

    class Killed(BaseException):
        pass

    def hook(request):
        raise Killed

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


def test_purge(engine):
    """Old rows are deleted in batches, and no others."""
    InboxRow.metadata.create_all(engine)
    rows = [{"task_id": f"{n}", "delivery": 0, "task": "work"} for n in range(2500)]
    with engine.begin() as connection:
        now = connection.scalar(select(database_time()))
        for n, row in enumerate(rows):
            row["created"] = now - 100 + n / 100 if n < 2200 else now
        connection.execute(insert(InboxRow), rows)
    assert purge(engine, 50, at_most=500) == 1000
    assert purge(engine, 50, stopped=lambda: True) == 0
    assert purge(engine, 50) == 1200
    assert purge(engine, 50) == 0
    app = App(engine, **{"pyramid_tasks.delivery": "outbox"})
    assert app.count(InboxRow) == 300
    app.registry.settings["pyramid_tasks.inbox_keep"] = 0.001
    Relay(app.registry, engine).run_once()
    assert app.count(InboxRow) == 0
