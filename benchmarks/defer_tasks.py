"""How long ``defer_tasks`` takes for many calls, and ``defer_task`` as many times.

    python benchmarks/defer_tasks.py [CALLS] [REPETITIONS]

Needs PostgreSQL and Redis on this machine. What is measured is a transaction, with its
commit; no worker runs. By outbox, the broker is down in one of the cases, so that what
is left is what the database takes.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.scripting import prepare
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_tasks.contrib.outbox_table import metadata

SERVER = os.environ.get("BENCHMARK_DATABASE", "postgresql+psycopg://postgres@localhost")
BROKER = os.environ.get("BENCHMARK_REDIS", "redis://localhost:6379/0")
DOWN = "redis://localhost:1/0"


def work(request: Any, number: int) -> None:
    """Do nothing."""


def make_registry(url: str, broker: str, queue: str) -> Any:
    """Make the application."""
    settings = {
        "celery.broker_url": broker,
        "celery.task_default_queue": queue,
        "celery.task_ignore_result": True,
        "tm.manager_hook": "pyramid_tm.explicit_manager",
        "pyramid_tasks.delivery_timeout": 60,
    }
    engine = create_engine(url)
    metadata.create_all(engine)

    def dbsession(request: Any) -> Session:
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.add_request_method(dbsession, reify=True)
        config.register_task(work, name="work")
    config.registry["engine"] = engine
    return config.registry


def one_by_one(request: Any, calls: int, delivery: str) -> None:
    """Defer each call by itself."""
    for number in range(calls):
        request.defer_task_with_options("work", [number], delivery=delivery)


def at_once(request: Any, calls: int, delivery: str) -> None:
    """Defer all calls at once."""
    items = ((number,) for number in range(calls))
    request.defer_tasks("work", items, delivery=delivery)


def measure(registry: Any, defer: Callable[..., None], calls: int, how: str) -> float:
    """Return the seconds that one transaction takes."""
    with prepare(registry=registry) as env:
        start = time.perf_counter()
        with env["request"].tm:
            defer(env["request"], calls, how)
        seconds = time.perf_counter() - start
    with registry["engine"].begin() as connection:
        connection.execute(text("DELETE FROM pyramid_tasks_outbox"))
    return seconds


def main(calls: int = 1000, repetitions: int = 5) -> None:
    """Measure, and print the medians."""
    name = f"benchmark_{uuid.uuid4().hex[:12]}"
    server = create_engine(f"{SERVER}/postgres", isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = f"{SERVER}/{name}"
    up, down = (make_registry(url, broker, name) for broker in (BROKER, DOWN))
    cases = {
        "immediate": (up, "immediate"),
        "commit": (up, "commit"),
        "outbox": (up, "outbox"),
        "outbox, broker down": (down, "outbox"),
    }
    try:
        for label, (registry, how) in cases.items():
            seconds: dict[str, list[float]] = {"one_by_one": [], "at_once": []}
            for _ in range(repetitions):
                for defer in one_by_one, at_once:
                    found = measure(registry, defer, calls, how)
                    seconds[defer.__name__].append(found)
                    Redis.from_url(BROKER).delete(name)
            medians = {key: statistics.median(found) for key, found in seconds.items()}
            print(
                f"{label:20} one by one {medians['one_by_one']:.2f} s, "
                f"at once {medians['at_once']:.2f} s"
            )
    finally:
        for registry in up, down:
            registry["engine"].dispose()
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
