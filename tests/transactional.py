"""An application with transactions, and the messages at its broker in memory."""

from __future__ import annotations

from types import SimpleNamespace

import zope.sqlalchemy
from click.testing import CliRunner
from kombu import Connection
from pyramid.config import Configurator
from sqlalchemy.orm import Session
from support import DEADLINE, unique

from pyramid_tasks.outbox.command import outbox
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.manage import get_status
from pyramid_tasks.registry import get_tasks


class TransactionalApp:
    """An application whose requests have a session of a database."""

    def __init__(self, engine, settings, configure, queue=None):
        self.engine = engine
        self.queue = queue or unique()
        # Two threads that find no queue in memory make two, and one of them is lost.
        with Connection("memory://localhost") as connection:
            connection.default_channel.queue_declare(self.queue)
        settings = {
            "celery.broker_url": "memory://localhost",
            "celery.task_default_queue": self.queue,
            "tm.manager_hook": "pyramid_tm.explicit_manager",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        with Configurator(settings=settings) as config:
            config.include("pyramid_tm")
            config.include("pyramid_tasks.contrib.pyramid_tm")
            self.add_tasks(config)
            config.add_request_method(self.dbsession, reify=True)
            if configure:
                configure(config)
        self.registry = config.registry
        self.celery = get_tasks(config.registry).app

    def dbsession(self, request):
        session = Session(self.engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    def flush(self):
        """Wait for the thread that sends what this process has committed."""
        assert get_outbox(self.registry).sender.flush(DEADLINE)

    def waiting(self):
        """Return how many messages wait in the outbox."""
        self.flush()
        with self.engine.connect() as connection:
            return get_status(connection).waiting

    def received(self, queue=None):
        """Return the messages that are in a queue, and empty it."""
        self.flush()
        messages = []
        with Connection("memory://localhost") as connection:
            channel = connection.channel()
            while message := channel.basic_get(queue or self.queue, no_ack=True):
                messages.append(message)
        return messages


class Resource:
    """A resource of a transaction that does something in one phase of the commit."""

    def __init__(self, phase, act):
        self.phase, self.act = phase, act

    def sortKey(self):  # noqa: N802 the interface
        return "a"

    def __getattr__(self, name):
        if name == "savepoint":
            raise AttributeError(name)
        return lambda _: name == self.phase and self.act()


def invoke(app, *arguments, group=outbox):
    """Run a command in this process, and return its status and what it prints."""
    obj = SimpleNamespace(app=getattr(app, "celery", app))
    result = CliRunner().invoke(group, arguments, obj=obj)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def fail(app, *arguments, status=1):
    """Run a command that ends with a status, and return what it prints."""
    found, output = invoke(app, *arguments)
    assert found == status, output
    return output
