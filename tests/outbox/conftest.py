"""An application with an outbox in this process, and its databases."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pyramid.scripting import prepare

pytest.importorskip("pyramid_tm")
pytest.importorskip("sqlalchemy")
pytest.importorskip("zope.sqlalchemy")
from databases import database
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session
from transactional import TransactionalApp

from pyramid_tasks.contrib.outbox_table import OutboxMessage, metadata
from pyramid_tasks.outbox.relay import Relay

DOWN = "redis://:secret@localhost:1/0"


@contextmanager
def engine_with_table(kind, folder):
    with database(kind, folder) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request, tmp_path):
    """An engine of each database, with the table."""
    with engine_with_table(request.param, tmp_path) as engine:
        yield engine


@pytest.fixture
def sqlite(tmp_path):
    """An engine of SQLite, with the table, for claims that hold on every database."""
    with engine_with_table("sqlite", tmp_path) as engine:
        yield engine


@pytest.fixture
def postgresql(tmp_path):
    """An engine of PostgreSQL, with the table, for claims about its NOTIFY."""
    with engine_with_table("postgresql", tmp_path) as engine:
        yield engine


def record(request, x): ...


class App(TransactionalApp):
    """An application with an outbox, and the messages at its broker."""

    def __init__(self, engine, configure=None, *, down=False, queue=None, **settings):
        settings = {
            "celery.broker_transport_options": {"polling_interval": 0.01},
            "pyramid_tasks.delivery": "outbox",
            **({"celery.broker_url": DOWN} if down else {}),
        } | settings
        super().__init__(engine, settings, configure, queue)

    def add_tasks(self, config):
        config.register_task(record, name="record")

    def before_sending(self, hook):
        """Call a function with the argument of each task before it is sent."""
        send_task = self.celery.send_task

        def send(name, args, kwargs, **options):
            hook(*args)
            return send_task(name, args, kwargs, **options)

        self.celery.send_task = send

    @contextmanager
    def request(self):
        with prepare(registry=self.registry) as env:
            yield env["request"]

    def defer(self, *values, **options):
        """Defer tasks in a transaction, and commit it."""
        with self.request() as request, request.tm:
            results = [
                request.defer_task_with_options("record", [value], **options)
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
        with Session(self.engine) as session:
            return session.scalars(
                select(OutboxMessage).order_by(OutboxMessage.id)
            ).all()

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
