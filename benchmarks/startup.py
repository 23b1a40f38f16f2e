"""How long a worker takes from exec to "ready"."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .brokers import SERVERS, broker
from .measuring import OURS, PLAIN, Effort, Row, Sample, rows, take_turns
from .report import Section
from .workers import Ours, Plain, Side, worker

NOTE = """\
Seconds from exec to "ready" of a worker with two processes of the prefork pool, plain
Celery with the same Pyramid application loaded in its module."""


def run(effort: Effort) -> list[Section]:
    """Measure it on Redis and RabbitMQ."""
    found: list[Row] = []
    for name, url in SERVERS.items():
        with tempfile.TemporaryDirectory() as folder, broker(url) as here:
            cases: dict[str, Callable[[], Sample]] = {
                PLAIN: partial(_start, Plain(Path(folder), here.settings())),
                OURS: partial(_start, Ours(Path(folder), here.settings())),
            }
            samples = take_turns(f"startup: {name}", cases, effort.turns(7))
        found += rows(samples, "s", "s", name)
    return [Section("Start of a worker", "startup", NOTE, found)]


def _start(side: Side) -> Sample:
    with worker(side, "--concurrency=2", "--loglevel=INFO") as running:
        running.wait_ready()
        return {"s": time.perf_counter() - running.begin}
