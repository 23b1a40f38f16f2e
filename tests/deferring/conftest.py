"""An application with each delivery, and the messages at its broker."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
from pyramid.request import Request
from pyramid.scripting import prepare
from sqlalchemy import create_engine
from transactional import TransactionalApp

from pyramid_tasks.contrib.outbox_table import metadata


def add(request, x, y=0):
    return x + y


def total(request, numbers):
    return sum(numbers)


def bound(self, request, x):
    return self.name, x


class App(TransactionalApp):
    """An application with each delivery, and the messages at its broker."""

    def __init__(self, engine, configure=None, **settings):
        settings = {
            "celery.result_backend": "cache+memory://",
            "pyramid_tasks.context": "host",
        } | settings
        super().__init__(engine, settings, configure)

    def add_tasks(self, config):
        config.register_task(add, name="add")
        config.register_task(add, name="by yaml", serializer="yaml")
        config.register_task(total, name="total")
        config.register_task(bound, name="bound", bind=True)

    @contextmanager
    def request(self, *, transaction=True):
        request = Request.blank("/", base_url="https://example.com")
        with (
            prepare(request, self.registry),
            request.tm if transaction else nullcontext(),
        ):
            yield request

    def has_sent_nothing(self):
        """Whether neither the broker nor the outbox has a message."""
        return not self.received() and not self.waiting()


@pytest.fixture
def engine(tmp_path):
    """An engine of SQLite, with the table of the outbox."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def make_app(engine):
    """Return a function that makes an application."""

    def make_app(configure=None, *, engine=engine, **settings):
        return App(engine, configure, **settings)

    return make_app


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture(params=["immediate", "commit", "outbox"])
def delivery(request):
    """Give each delivery."""
    return request.param


@pytest.fixture(params=["commit", "outbox"])
def transactional(request):
    """Give each delivery that waits for a transaction."""
    return request.param
