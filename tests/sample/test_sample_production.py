"""The sample on production.ini: PostgreSQL, RabbitMQ and Redis."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import VERSION
from kombu import Connection, Queue
from support import DEADLINE, Process, need_service, serve, start_worker, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE = Path(__file__).parents[2] / "sample"
CSV = """\
date,category,amount
2024-05-01,Rent,950.00
2024-05-02,Groceries,42.10
2024-05-03,Groceries,0.90
2024-05-32,Groceries,1.00
"""

RABBITMQ = "amqp://guest:guest@127.0.0.1//"
POSTGRESQL = "postgresql://postgres@127.0.0.1"
psycopg = pytest.importorskip("psycopg")

pytestmark = pytest.mark.acceptance


class Production:
    """A web process and a worker on an ini that inherits from production.ini."""

    def __init__(self, url: str, worker: Process) -> None:
        self.url = url
        self.worker = worker

    def call(self, path: str, csv: str | None = None) -> dict[str, Any]:
        """Send a CSV file, or get JSON."""
        headers = {"Accept": "application/json", "Content-Type": "text/csv"}
        data = None if csv is None else csv.encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return dict(json.load(response))

    def wait_for_end(self, path: str) -> dict[str, Any]:
        """Wait until an import is done or has failed, and return it."""
        wait_until(lambda: self.call(path)["status"] in {"done", "failed"})
        return self.call(path)


@pytest.fixture
def name() -> str:
    """Return a name for the database, the queue and the keys of one test."""
    need_service("PostgreSQL", 5432, "service postgresql start")
    need_service("RabbitMQ", 5672, "service rabbitmq-server start")
    need_service("Redis", 6379, "service redis-server start")
    return f"sampleapp_test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def database(name: str) -> Iterator[str]:
    """Return the URL of a new database."""
    with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{POSTGRESQL}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def queue(name: str) -> Iterator[str]:
    """Return the name of a queue that is deleted after the test."""
    yield name
    with Connection(RABBITMQ) as connection:
        connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(name)


@pytest.fixture
def results(name: str) -> Iterator[Callable[[str], Any]]:
    """Return a function that reads the result of a task from Redis."""
    redis = pytest.importorskip("redis").Redis()

    def get(task_id: str) -> Any:
        found = redis.get(f"{name}_celery-task-meta-{task_id}")
        return found and json.loads(found)

    yield get
    redis.delete(name, *redis.keys(f"{name}*"))
    redis.close()


@pytest.fixture
def ini(tmp_path: Path, database: str, queue: str, name: str, free_port: int) -> Path:
    """Return an ini with production.ini below it."""
    if VERSION < (5, 5):
        pytest.skip("production.ini needs Celery 5.5")
    path = tmp_path / "test.ini"
    path.write_text(f"""
[app:main]
use = config:{SAMPLE}/production.ini
sampleapp.seconds_per_chunk = 1
sqlalchemy.url = {database.replace("postgresql:", "postgresql+psycopg:")}
celery.task_default_queue = {queue}
celery.result_backend_transport_options.global_keyprefix = {name}_

[celery:main]
use = config:{SAMPLE}/production.ini
worker_concurrency = 1

[server:main]
use = config:{SAMPLE}/production.ini
listen = localhost:{free_port}
""")
    return path


@pytest.fixture
def production(ini: Path, free_port: int) -> Iterator[Production]:
    """Return the sample on production.ini, running."""
    node = f"--hostname={uuid.uuid4().hex}"
    with (
        serve(ini, free_port, cwd=ini.parent) as url,
        start_worker(ini, node, cwd=ini.parent) as worker,
    ):
        yield Production(url, worker)


def test_import(
    production: Production, queue: str, results: Callable[[str], Any]
) -> None:
    """A file goes through PostgreSQL, a quorum queue and Redis."""
    record = production.call("/imports", CSV)
    path = f"/imports/{record['id']}"
    found = production.wait_for_end(path)
    assert found["error"] is None
    assert found["totals"] == {"Groceries": "43.00", "Rent": "950.00"}
    assert [row["line"] for row in found["bad_rows"]] == [5]
    assert found["notice"].endswith(f" rows: {production.url}{path}")

    result = wait_until(lambda: results(record["task_id"]))
    assert result["status"] == "SUCCESS"
    assert result["result"] == {"rows": 4, "bad": 1}

    arguments = {"x-queue-type": "quorum"}
    with Connection(RABBITMQ) as connection:
        declared = Queue(queue, queue_arguments=arguments, channel=connection)
        # Refused by RabbitMQ if the queue is of another type.
        assert declared.queue_declare().queue == queue


@pytest.mark.usefixtures("results")
def test_worker_process_dies(production: Production, database: str) -> None:
    """A task whose process is killed is delivered again, and starts over."""
    csv = "2024-05-01,Rent,0.01\n" * 1000
    path = f"/imports/{production.call('/imports', csv)['id']}"
    wait_until(lambda: production.call(path)["rows_done"] == 500)

    pid = production.worker.popen.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)

    found = production.wait_for_end(path)
    assert found["error"] is None
    assert found["rows_done"] == 1000
    assert found["totals"] == {"Rent": "10.00"}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT attempt FROM import").fetchall() == [(2,)]
