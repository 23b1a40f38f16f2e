"""What the fault tests share: a shop under load, and what became of its orders."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import pytest
from support import (
    APPS,
    Process,
    free_port,
    start,
    start_worker,
    unique,
    wait_until,
)

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from kombu import Connection
from redis import Redis
from servers import listens
from sqlalchemy import create_engine, text

#: How much of the full number of repetitions to run; `make faults` says 1.
FRACTION = float(os.environ.get("PYRAMID_TASKS_FAULTS", "0.1"))

#: For a slow machine: a fault test waits long, rather than fail for want of time.
PATIENCE = 180.0


#: The queues of the shops of this process.
QUEUES: list[str] = []


def times(full: int) -> int:
    """Return how many repetitions to run, of the full number."""
    return max(1, round(full * FRACTION))


class Shop:
    """The application of the fault tests, its database and its broker.

    Attributes:
        application: The module of the application.
        server: The URL of the broker, where ``broker`` is that of a proxy.
    """

    application = "outboxapp"

    def __init__(self, folder: Path, url: str, broker: str, **settings: object) -> None:
        self.folder = folder
        self.queue = unique("faults")
        QUEUES.append(self.queue)
        self.broker = self.server = broker
        self.port = free_port()
        self.ini = self.write_ini("shop.ini", url, broker, **settings)
        sys.path.append(str(APPS))
        import_module(self.application).create_tables(url)
        self.engine = create_engine(url, pool_pre_ping=True)

    def write_ini(self, name: str, url: str, broker: str, **settings: object) -> Path:
        lines = {
            "sqlalchemy.url": url,
            "celery.broker_url": broker,
            "celery.task_default_queue": self.queue,
            "celery.worker_prefetch_multiplier": 1,
            "pyramid_tasks.delivery": "outbox",
            "tm.manager_hook": "pyramid_tm.explicit_manager",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        text = "\n".join(f"{key} = {value}" for key, value in lines.items())
        path = self.folder / name
        path.write_text(
            f"[app:main]\nuse = call:{self.application}:main\n{text}\n"
            f"[server:main]\nuse = egg:waitress#main\nlisten = localhost:{self.port}\n"
        )
        return path

    @contextmanager
    def serve(self) -> Iterator[Callable[..., tuple[int, str]]]:
        """Start the web server; give a function that places an order."""
        port = self.port
        with start(
            "python", APPS / "outboxapp.py", self.ini, port, cwd=self.folder
        ) as process:
            wait_until(lambda: listens(port), PATIENCE, lambda: process.output)
            yield lambda number, end="", timeout=PATIENCE: place(
                f"http://localhost:{port}/orders/{number}?end={end}", timeout
            )

    @contextmanager
    def pserve(self) -> Iterator[Process]:
        """Start waitress, with its threads."""
        with start("pserve", self.ini, cwd=self.folder) as process:
            wait_until(lambda: listens(self.port), PATIENCE, lambda: process.output)
            yield process

    @contextmanager
    def relay(self, *options: object) -> Iterator[Process]:
        command = ("celery", "-A", "pyramid_tasks.loaders", "--ini", self.ini)
        with start(
            *command, "outbox", "run", "--interval", 0.5, *options, cwd=self.folder
        ) as process:
            process.wait_for("The relay is ready.", PATIENCE)
            yield process

    def worker(self, *options: object) -> Any:
        return start_worker(self.ini, "-n", unique(), *options, cwd=self.folder)

    def query(self, sql: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(sql)).all())

    def orders(self) -> dict[int, str]:
        """Return the orders that were committed, and the ids of their tasks."""
        return dict(map(tuple, self.query("SELECT id, task_id FROM orders")))

    def runs(self) -> Counter[tuple[int, str]]:
        """Return how often each task ran."""
        return Counter(map(tuple, self.query("SELECT order_id, task_id FROM runs")))

    def outbox(self) -> int:
        (row,) = self.query("SELECT count(*) FROM pyramid_tasks_outbox")
        return int(row[0])

    def sent(self) -> Counter[str]:
        """Return how often each task is in the queue."""
        if self.server.startswith("amqp"):
            return Counter(each.headers["id"] for each in self._in_rabbitmq())
        messages = Redis.from_url(self.server).lrange(self.queue, 0, -1)
        return Counter(json.loads(found)["headers"]["id"] for found in messages)

    def _in_rabbitmq(self) -> Iterator[Any]:
        with Connection(self.server) as connection:
            channel = connection.channel()
            while message := channel.basic_get(self.queue, no_ack=True):
                yield message
            channel.queue_delete(self.queue)


class Load:
    """Clients that place orders, one after the other, as long as a test lets them.

    Attributes:
        answers: The status and the text of the answer to each order; -1 for none.
        slowest: The longest time that an answer took, in seconds.
    """

    def __init__(self, shop: Shop, clients: int = 4) -> None:
        self.answers: dict[int, tuple[int, str]] = {}
        self.slowest = 0.0
        self._url = f"http://localhost:{shop.port}/orders"
        self._stopping = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(number, clients))
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for client in self._clients:
            client.join()

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers had which status."""
        return dict(Counter(status for status, _ in self.answers.values()))

    def promised(self) -> set[int]:
        """Return the orders that were answered with success."""
        return {key for key, (status, _) in self.answers.items() if status == 200}

    def _ask(self, number: int, step: int) -> None:
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                self.answers[number] = place(f"{self._url}/{number}", PATIENCE)
            except OSError as error:
                self.answers[number] = (-1, str(error))
            self.slowest = max(self.slowest, time.monotonic() - begin)
            number += step
            self._stopping.wait(0.05)


def place(url: str, timeout: float) -> tuple[int, str]:
    """Place an order; return the status, 0 for a process that died, and the answer."""
    try:
        with urllib.request.urlopen(url, b"", timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except TimeoutError:
        raise
    except OSError as error:
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise
        return 0, str(error)


def lost_and_duplicates(expected: list[Any], found: Counter[Any]) -> tuple[int, int]:
    """Return how many are missing, and how many there are too many."""
    lost = sum(found[key] == 0 for key in expected)
    return lost, sum(found.values()) - len(found)
