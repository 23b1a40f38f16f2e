"""The inbox: a task whose message arrives twice changes the database once."""

from __future__ import annotations

import logging
import threading

import pytest
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
from pyramid_tasks.outbox.inbox_rows import purge
from pyramid_tasks.outbox.inbox_table import InboxRow
from pyramid_tasks.outbox.table import OutboxMessage, database_time


class App(TransactionalApp):
    """An application with a task, ``work``, that adds a row to a table and returns."""

    def __init__(self, engine, hook=lambda request: None, **more):
        self.hook = hook
        self.events = []
        self.options = {"inbox": True} | more.pop("options", {})
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
