"""A sample application for each test, on a SQLite file of its own."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import support
from pyramid.scripting import prepare
from sampleapp import main
from sampleapp.db import ENGINE
from sampleapp.models import Import
from sqlalchemy.orm import Session
from webtest import TestApp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Site:
    """A running sample: its pages, its tasks, its database."""

    def __init__(self, settings: dict[str, Any]) -> None:
        wsgi_app = main({}, **settings)
        self.registry = wsgi_app.registry
        self.pages = TestApp(wsgi_app)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that commits at the end, beside those of the application."""
        session = Session(self.registry[ENGINE], expire_on_commit=False)
        with session, session.begin():
            yield session

    @contextmanager
    def request(self) -> Iterator[Any]:
        """Give a request outside a view."""
        with prepare(registry=self.registry) as env:
            yield env["request"]

    def run(self, task: Callable[..., Any], *args: Any) -> Any:
        """Run a task as a worker does; return Celery's result."""
        with self.request() as request:
            return request.defer_task(task, *args)

    def add(self, text: str = "", **values: Any) -> int:
        """Store an import without deferring its task; return its id."""
        with self.session() as session:
            values = {"name": "test.csv", "task_id": "test", "text": text, **values}
            record = Import(**values)
            session.add(record)
            session.flush()
            return record.id

    def get(self, import_id: int) -> Import:
        """Read an import as it is now."""
        with self.session() as session:
            return session.get_one(Import, import_id)

    def count(self, model: type) -> int:
        """Return how many rows a table has."""
        with self.session() as session:
            return session.query(model).count()

    def json(self, import_id: int) -> dict[str, Any]:
        """Read an import as a program does."""
        headers = {"Accept": "application/json"}
        return self.pages.get(f"/imports/{import_id}", headers=headers).json


@pytest.fixture
def free_port() -> int:
    """Return a port that is free now."""
    return support.free_port()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return a function that starts a sample, with other settings."""
    settings = {
        "sqlalchemy.url": f"sqlite:///{tmp_path}/sample.sqlite",
        "celery.broker_url": "memory://",
        "celery.result_backend": "cache+memory://",
        "celery.task_always_eager": "true",
        "pyramid_tasks.context": "host",
    }
    sites = []

    def make(**changes: Any) -> Site:
        sites.append(Site({**settings, **changes}))
        return sites[-1]

    yield make
    for site in sites:
        site.registry[ENGINE].dispose()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """Return a sample that runs its tasks when they are sent."""
    return make_site()


@pytest.fixture
def waiting_site(make_site: Callable[..., Site]) -> Site:
    """Return a sample without a worker: its tasks stay in the queue."""
    return make_site(**{"celery.task_always_eager": "false"})
