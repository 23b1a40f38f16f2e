"""How long from ``defer_task`` to the start of the task, for each delivery.

    python benchmarks/delivery_latency.py [REPETITIONS]

Needs PostgreSQL and Redis on this machine. Each transaction writes one row; the three
deliveries take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.scripting import prepare
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pyramid_tasks import task

SERVER = os.environ.get("BENCHMARK_DATABASE", "postgresql+psycopg://postgres@localhost")
BROKER = os.environ.get("BENCHMARK_REDIS", "redis://localhost:6379/0")
DELIVERIES = ("immediate", "commit", "outbox")


@task(tm=False, ignore_result=True)
def note_start(request: Any, key: str) -> None:
    """Say when the task started."""
    now = time.time()
    client = request.registry["redis"]
    client.rpush(key, now)
    client.expire(key, 60)


def dbsession(request: Any) -> Session:
    """Return the session of a request, part of its transaction."""
    session = Session(request.registry["engine"])
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def main(_: Any, **settings: Any) -> Any:
    """Make the application, for this process and for the worker."""
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.registry["engine"] = create_engine(settings["sqlalchemy.url"])
        config.registry["redis"] = Redis.from_url(BROKER)
        config.add_request_method(dbsession, reify=True)
        config.register_task(note_start, name="note_start")
        return config.make_wsgi_app()


def measure(registry: Any, delivery: str) -> tuple[float, float]:
    """Return the milliseconds to the start of the task, and to the end of the commit.

    Both from the call of ``defer_task``.
    """
    key = f"benchmark_{uuid.uuid4().hex}"
    with prepare(registry=registry) as env:
        request = env["request"]
        request.tm.begin()
        request.dbsession.execute(text("INSERT INTO work VALUES (1)"))
        zope.sqlalchemy.mark_changed(request.dbsession, request.tm)
        begin = time.time()
        request.defer_task_with_options("note_start", [key], delivery=delivery)
        request.tm.commit()
        committed = time.time()
    _, started = registry["redis"].blpop([key], timeout=60)
    return 1000 * (float(started) - begin), 1000 * (committed - begin)


def run(repetitions: int, url: str, folder: Path) -> None:
    """Start a worker, measure, and print a table."""
    settings = {
        "sqlalchemy.url": url,
        "celery.broker_url": BROKER,
        "celery.task_default_queue": f"benchmark_{uuid.uuid4().hex}",
    }
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    ini = folder / "benchmark.ini"
    ini.write_text(f"[app:main]\nuse = call:delivery_latency:main\n{lines}\n")
    command = ["celery", "-A", "pyramid_tasks.loaders", "--ini", str(ini)]
    subprocess.run(
        [sys.executable, "-m", *command, "outbox", "create"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL,
    )
    registry = main({}, **settings).registry
    with registry["engine"].begin() as connection:
        connection.execute(text("CREATE TABLE work (x integer)"))
    with subprocess.Popen(
        [sys.executable, "-m", *command, "worker", "-c", "1", "-l", "error"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as worker:
        try:
            found: dict[str, list[tuple[float, float]]] = {}
            for number in range(-10, repetitions):
                for delivery in DELIVERIES:
                    times = measure(registry, delivery)
                    if number >= 0:  # the first ones warm everything up
                        found.setdefault(delivery, []).append(times)
        finally:
            worker.terminate()
            queue = settings["celery.task_default_queue"]
            for key in registry["redis"].scan_iter(f"*{queue}"):
                registry["redis"].delete(key)
    registry["engine"].dispose()
    print(f"milliseconds from defer_task, {repetitions} times each")
    print(f"{'delivery':10}{'task starts':>24}{'transaction ends':>24}")
    print(f"{'':10}" + f"{'median':>12}{'95 %':>12}" * 2)
    for delivery, times in found.items():
        columns = zip(*times, strict=True)
        values = [v for column in columns for v in summary(column)]
        print(f"{delivery:10}" + "".join(f"{value:12.1f}" for value in values))


def summary(values: Any) -> tuple[float, float]:
    """Return the median and the 95th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=20)[-1]


if __name__ == "__main__":
    name = f"benchmark_{uuid.uuid4().hex[:12]}"
    server = create_engine(f"{SERVER}/postgres", isolation_level="AUTOCOMMIT")
    with server.connect() as admin, tempfile.TemporaryDirectory() as folder:
        admin.execute(text(f"CREATE DATABASE {name}"))
        try:
            count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
            run(count, f"{SERVER}/{name}", Path(folder))
        finally:
            admin.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
