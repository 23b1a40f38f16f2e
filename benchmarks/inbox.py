"""What an inbox costs: a task that inserts a row, with it and without."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import zope.sqlalchemy
from celery.app.trace import build_tracer
from sqlalchemy import text

from .applications import configure
from .brokers import Broker, database
from .measuring import Effort, rows, take_turns, timed
from .report import Section
from .transactions import create_tables, disconnect

if TYPE_CHECKING:
    from celery import Celery

NOTE = """\
Microseconds from handing over a message to the end of a task that inserts a row, in one
process, with a transaction of PostgreSQL. The first row is a task without an inbox; the
others are compared with it."""


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    with ExitStack() as stack:
        url = stack.enter_context(database())
        config = configure(Broker("memory://").settings(), **{"sqlalchemy.url": url})
        config.include("benchmarks.transactions")
        config.register_task(insert, name="insert")
        config.register_task(insert, name="insert once", inbox=True)
        app = config.make_celery_app()
        create_tables(config.registry)
        stack.callback(disconnect, config.registry)
        number = effort.pick(300, 20)
        cases = {
            "without an inbox": timed(_tracer(app, "insert"), number, cpu=False),
            "with an inbox": timed(_tracer(app, "insert once"), number, cpu=False),
            "with an inbox, again": timed(
                _tracer(app, "insert once", "again"), number, cpu=False
            ),
        }
        found = take_turns("inbox", cases, effort.turns(15))
    figures = list(rows(found, "µs", "µs"))
    return [Section("The inbox", "inbox", NOTE, figures, "a task without an inbox")]


def insert(request: Any) -> None:
    """Insert a row."""
    request.dbsession.execute(text("INSERT INTO work VALUES (1)"))
    zope.sqlalchemy.mark_changed(request.dbsession, request.tm)


def _tracer(app: Celery, name: str, task_id: str | None = None) -> Callable[[], object]:
    """Return a function that runs a task as a worker does, each time with a new id."""
    trace = build_tracer(name, app.tasks[name], app.loader, "benchmark", app=app)

    def run() -> None:
        own = task_id or str(uuid4())
        trace(own, (), {}, {"id": own, "delivery_info": {}})

    return run
