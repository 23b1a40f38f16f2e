"""An application with an outbox in this process, and its databases."""

from __future__ import annotations

from contextlib import contextmanager
from weakref import WeakKeyDictionary

import pytest
from pyramid.scripting import prepare

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from databases import database
from sqlalchemy import create_engine, event, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from transactional import TransactionalApp

from pyramid_tasks.contrib.outbox_table import OutboxMessage, metadata
from pyramid_tasks.outbox.relay import Relay


@pytest.fixture(autouse=True)
def _declared(monkeypatch):
    """Forget where other tests have declared the tables."""
    monkeypatch.setattr("pyramid_tasks.outbox.tables._declared", WeakKeyDictionary())


def engine_of(*kinds):
    """Return a fixture: an engine of each of these databases, with the table."""

    @pytest.fixture(params=kinds)
    def engine(request, tmp_path):
        with database(request.param, tmp_path) as url:
            engine = create_engine(url)
            metadata.create_all(engine)
            yield engine
            engine.dispose()

    return engine


engine = engine_of("sqlite", "postgresql", "mariadb")
sqlite = engine_of("sqlite")  # for claims that hold on every database
postgresql = engine_of("postgresql")  # for claims about its NOTIFY


@pytest.fixture
def outbox_ini(write_ini):
    """Return a function that writes an ini for an application with an outbox."""
    return lambda url: write_ini(
        f"[app:main]\nuse = call:outboxapp:main\nsqlalchemy.url = {url}\n"
        "celery.broker_url = memory://localhost\npyramid_tasks.delivery = outbox\n"
        "tm.manager_hook = pyramid_tm.explicit_manager\n"
    )


def record(request, x): ...


class App(TransactionalApp):
    """An application with an outbox, and the messages at its broker."""

    def __init__(self, engine, configure=None, *, down=False, queue=None, **settings):
        settings = {
            "celery.broker_transport_options": {"polling_interval": 0.01},
            "pyramid_tasks.delivery": "outbox",
        } | settings
        if down:
            settings["celery.broker_url"] = "redis://:secret@localhost:1/0"
        super().__init__(engine, settings, configure, queue)

    @classmethod
    def with_rows(cls, engine, *values, **settings):
        """Make an application whose outbox has tasks that its broker missed."""
        cls(engine, down=True).defer(*values)
        return cls(engine, **settings)

    def add_tasks(self, config):
        config.register_task(record, name="record")

    def before_sending(self, hook):
        """Call a function with the argument of each task before it is sent."""
        send_task = self.celery.send_task

        def send(name, args, kwargs, **options):
            hook(*args)
            return send_task(name, args, kwargs, **options)

        self.celery.send_task = send

    def fail_to_send(self, *errors):
        """Raise an error for each of the tasks that are sent next."""
        errors = list(errors)

        def fail(x):
            if errors:
                raise errors.pop(0)

        self.before_sending(fail)

    def fail_to_delete(self, times):
        """Raise an error so many times when rows are deleted."""
        errors = [OperationalError("DELETE", {}, Exception("locked"))] * times

        @event.listens_for(self.engine, "before_cursor_execute")
        def fail(connection, cursor, statement, *_):
            if statement.startswith("DELETE") and errors:
                raise errors.pop()

    @contextmanager
    def request(self):
        with prepare(registry=self.registry) as env:
            yield env["request"]

    def defer(self, *values, task="record", **options):
        """Defer tasks in a transaction, and commit it."""
        with self.request() as request, request.tm:
            results = [
                request.defer_task_with_options(task, [value], **options)
                for value in values
            ]
        self.flush()
        return results

    def relay(self, **options):
        return Relay(self.registry, self.engine, **options)

    def values(self):
        """Return the arguments of the tasks in the queue, and empty it."""
        return [message.payload[0][0] for message in self.received()]

    def rows(self):
        self.flush()
        in_order = select(OutboxMessage).order_by(OutboxMessage.id)
        with Session(self.engine) as session:
            return session.scalars(in_order).all()

    def update(self, *where, **values):
        """Change rows of the outbox."""
        with self.engine.begin() as connection:
            connection.execute(update(OutboxMessage).where(*where).values(**values))

    def make_due(self):
        self.update(not_before=0)


@pytest.fixture
def make_app():
    """Return the class of the applications: ``make_app(engine, down=True)``.

    With ``down``, the broker is; so what is deferred stays in the outbox.
    """
    return App
