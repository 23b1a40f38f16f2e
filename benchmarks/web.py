"""A web server with eight threads whose requests defer three tasks each."""

from __future__ import annotations

import http.client
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import zope.sqlalchemy
from sqlalchemy import text
from waitress import create_server

from .applications import configure, nothing_with_request, plain_celery
from .brokers import REDIS, broker, database, purge
from .measuring import PLAIN, Effort, Sample, rows, take_turns
from .report import Section
from .transactions import create_tables, disconnect
from .workers import ROOT

NOTE = """\
Requests per second of a waitress with eight threads, asked by eight clients, with
PostgreSQL and Redis. Each request inserts a row and defers three tasks in its
transaction, and a tenth of the requests abort. With plain Celery, an after-commit hook
calls `apply_async`. The clock stops when all tasks are in the queue."""

_THREADS = 8
_TASKS = 3
_ABORTED_OF = 10


def run(effort: Effort) -> list[Section]:
    """Measure it for plain Celery and both deliveries."""
    requests = effort.pick(2000, 40)
    with ExitStack() as stack:
        url = stack.enter_context(database())
        here = stack.enter_context(broker(REDIS))
        settings = here.settings()
        config = configure(settings, **{"sqlalchemy.url": url})
        create_tables(config.registry)
        disconnect(config.registry)
        app = config.make_celery_app()
        stack.callback(app.close)
        cases: dict[str, Callable[[], Sample]] = {}
        for label in PLAIN, "commit", "outbox":
            port = stack.enter_context(_server(settings, url, label))
            cases[label] = _case(port, requests, lambda count: purge(app, count))
        found = take_turns("web", cases, effort.turns(2))
    figures = list(rows(found, "per second", "per second"))
    return [Section(f"{_THREADS} threads of waitress", "web", NOTE, figures)]


def _case(
    port: int, requests: int, wait_sent: Callable[[int], None]
) -> Callable[[], Sample]:
    def ask(numbers: range) -> int:
        """Return how many requests committed."""
        client = http.client.HTTPConnection("localhost", port)
        committed = 0
        for number in numbers:
            client.request("GET", f"/defer?abort={int(number % _ABORTED_OF == 0)}")
            with client.getresponse() as response:
                committed += response.read() == b"true"
        client.close()
        return committed

    def measure() -> Sample:
        parts = [range(first, requests, _THREADS) for first in range(_THREADS)]
        begin = time.perf_counter()
        with ThreadPoolExecutor(_THREADS) as pool:
            committed = sum(pool.map(ask, parts))
        wait_sent(_TASKS * committed)
        seconds = time.perf_counter() - begin
        return {"per second": requests / seconds}

    return measure


@contextmanager
def _server(settings: dict[str, Any], url: str, label: str) -> Iterator[int]:
    """Start a server in a process of its own, and give its port."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENCHMARK_WEB": json.dumps([settings, url, label]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.web import serve; serve()"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as popen:
        try:
            yield int(popen.stdout.readline() if popen.stdout else 0)
        finally:
            popen.kill()


def serve() -> None:
    """Serve what the environment says, and print the port."""
    # It says so for each request that has to wait, as most have here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    settings, url, label = json.loads(os.environ["BENCHMARK_WEB"])
    delivery = "immediate" if label == PLAIN else label
    config = configure(
        settings, **{"sqlalchemy.url": url, "pyramid_tasks.delivery": delivery}
    )
    apply_async = plain_celery(settings).tasks["nothing"].apply_async

    def defer_plain(request: Any) -> None:
        def send(committed: bool) -> None:  # noqa: FBT001 as transaction calls it
            if committed:
                for _ in range(_TASKS):
                    apply_async()

        request.tm.get().addAfterCommitHook(send)

    def defer(request: Any) -> None:
        for _ in range(_TASKS):
            request.defer_task(nothing_with_request)

    def view(request: Any) -> bool:
        request.dbsession.execute(text("INSERT INTO work VALUES (1)"))
        zope.sqlalchemy.mark_changed(request.dbsession, request.tm)
        (defer_plain if label == PLAIN else defer)(request)
        if request.params["abort"] == "1":
            request.tm.doom()
            return False
        return True

    config.add_route("defer", "/defer")
    config.add_view(view, route_name="defer", renderer="json")
    server = create_server(
        config.make_wsgi_app(), host="127.0.0.1", port=0, threads=_THREADS
    )
    print(server.effective_port, flush=True)
    server.run()
