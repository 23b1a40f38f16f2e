"""How long from deferring a task to its start, at a steady rate."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from .brokers import SERVERS, broker
from .measuring import OURS, PLAIN, Effort, Row, Sample, rows, take_turns
from .report import Section
from .workers import Ours, Plain, Side, Worker, worker

NOTE = """\
Milliseconds from calling `Task.apply_async` (plain Celery) or `request.defer_task` to
the first line of the task, 100 times a second, in a worker with one process of the
prefork pool. Each turn is 500 tasks, of which the median and the 99th percentile are
taken; the columns are about those of all turns."""

_PER_SECOND = 100


def run(effort: Effort) -> list[Section]:
    """Measure it on Redis and RabbitMQ."""
    found: list[Row] = []
    number = effort.pick(500, 20)
    for name, url in SERVERS.items():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            here = stack.enter_context(broker(url))
            sides: dict[str, Side] = {
                PLAIN: Plain(folder, here.settings()),
                OURS: Ours(folder, here.settings()),
            }
            cases: dict[str, Callable[[], Sample]] = {}
            for label, side in sides.items():
                running = stack.enter_context(worker(side, "--concurrency=1"))
                send = stack.enter_context(side.sender())
                cases[label] = _case(send, running, number)
            samples = take_turns(f"latency: {name}", cases, effort.turns(6))
        for measure in "median", "99th percentile":
            found += rows(samples, measure, "ms", f"{name}, {measure}")
    title = f"Latency at {_PER_SECOND} tasks per second"
    return [Section(title, "latency", NOTE, found)]


def _case(
    send: Callable[..., object], running: Worker, number: int
) -> Callable[[], Sample]:
    def run() -> Sample:
        before = running.record.stat().st_size
        begin = time.monotonic()
        for index in range(number):
            time.sleep(max(0.0, begin + index / _PER_SECOND - time.monotonic()))
            send("note_delay", time.monotonic())
        delays = running.read_delays(before, number)
        return {
            "median": statistics.median(delays),
            "99th percentile": statistics.quantiles(delays, n=100)[-1],
        }

    return run
