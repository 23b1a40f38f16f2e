"""What the fault tests share: a shop under load, and what became of its orders."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import pytest
from support import (
    APPS,
    BIN,
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
        address: Where the web server listens.
        command: What starts a process on the host of the shop, if not on this one.
    """

    application = "outboxapp"
    address = "localhost"
    command: tuple[object, ...] = ()

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
            "[server:main]\nuse = egg:waitress#main\n"
            f"listen = {self.address}:{self.port}\n"
        )
        return path

    @contextmanager
    def serve(self) -> Iterator[Callable[..., tuple[int, str]]]:
        """Start the web server; give a function that places an order."""
        url = f"http://localhost:{self.port}/orders"
        script = APPS / "outboxapp.py"
        with self._start_server("python", script, self.ini, self.port):
            yield lambda number, end="": place(f"{url}/{number}?end={end}", PATIENCE)

    def pserve(self) -> AbstractContextManager[Process]:
        """Start waitress, with its threads."""
        return self._start_server("pserve", self.ini)

    @contextmanager
    def _start_server(self, *command: object) -> Iterator[Process]:
        with self._start(*command) as process:
            process.wait_until(
                lambda: listens(self.port, self.address), timeout=PATIENCE
            )
            yield process

    @contextmanager
    def relay(self, *options: object) -> Iterator[Process]:
        command = "celery", "-A", "pyramid_tasks.loaders", "--ini", self.ini, "outbox"
        with self._start(*command, "run", "--interval", 0.5, *options) as process:
            process.wait_for("The relay is ready.", PATIENCE)
            yield process

    def _start(self, *command: object) -> AbstractContextManager[Process]:
        if self.command:
            command = (*self.command, BIN / str(command[0]), *command[1:])
        return start(*command, cwd=self.folder)

    def worker(self, *options: object) -> AbstractContextManager[Process]:
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
        return len(self.query("SELECT id FROM pyramid_tasks_outbox"))

    def set_aside(self) -> int:
        return len(self.query("SELECT id FROM pyramid_tasks_outbox WHERE set_aside"))

    def sent(self) -> Counter[str]:
        """Return how often each task is in the queue."""
        if not self.server.startswith("amqp"):
            messages = Redis.from_url(self.server).lrange(self.queue, 0, -1)
            return Counter(json.loads(found)["headers"]["id"] for found in messages)
        found: Counter[str] = Counter()
        with Connection(self.server) as connection:
            channel = connection.channel()
            while message := channel.basic_get(self.queue, no_ack=True):
                found[message.headers["id"]] += 1
            channel.queue_delete(self.queue)
        return found

    def wait_until_sent(self, *relays: Process) -> None:
        """Wait until the outbox is empty, or has messages that no relay will send."""
        wait_until(
            lambda: not self.outbox() or self.set_aside(),
            PATIENCE,
            lambda: "".join(relay.output for relay in relays),
        )

    def outcome(self) -> dict[str, int]:
        """Return how many orders there are, and what became of their tasks."""
        tasks = self.orders().values()
        return {"orders": len(tasks), **lost_and_duplicates(tasks, self.sent())}


class Load:
    """Clients that place orders, one after the other, as long as a test lets them.

    Attributes:
        answers: The status and the text of the answer to each order; -1 for none.
        slowest: The longest time that an answer took, in seconds.
    """

    def __init__(self, shop: Shop, clients: int = 4, first: int = 0) -> None:
        self.answers: dict[int, tuple[int, str]] = {}
        self.slowest = self._since = 0.0
        self._url = f"http://{shop.address}:{shop.port}/orders"
        self._stopping = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(first + number, clients))
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

    def forget_slowest(self) -> None:
        """Take the time only of orders that are placed from now on."""
        self.slowest, self._since = 0.0, time.monotonic()

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
            if begin > self._since:
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
    except OSError as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            raise
        return 0, str(error)


def lost_and_duplicates(expected: Iterable[Any], found: Counter[Any]) -> dict[str, int]:
    """Return how many are missing, and how many there are too many."""
    lost = sum(found[key] == 0 for key in expected)
    return {"lost": lost, "duplicates": found.total() - len(found)}


def kill_child(process: Process) -> bool:
    """Kill a child of a process; return whether there was one."""
    pid = process.popen.pid
    with suppress(FileNotFoundError, ProcessLookupError, IndexError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(random.choice(children)), signal.SIGKILL)
        return True
    return False
