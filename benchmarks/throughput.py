"""End to end: how many tasks per second a worker runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .brokers import SERVERS, Broker, broker
from .measuring import OURS, PLAIN, Effort, Row, Sample, rows, take_turns
from .report import Section
from .workers import Ours, Plain, worker

NOTE = """\
Tasks per second of one worker that finds its queue full: the tasks append one byte to a
file, without results. The queue is filled before the worker starts, and the clock runs
from the first twentieth of the tasks to the last one. Each run has a worker and a queue
of its own, and both sides take turns. The options of the worker are `--pool` and
`--concurrency`, the rest is Celery's default but for remote control, gossip, mingle and
heartbeat, which are off."""

POOLS = {
    "prefork, 1 process": ("--pool=prefork", "--concurrency=1"),
    "prefork, 2 processes": ("--pool=prefork", "--concurrency=2"),
    "2 threads": ("--pool=threads", "--concurrency=2"),
}


def run(effort: Effort) -> list[Section]:
    """Measure it on Redis and RabbitMQ, with each pool."""
    found: list[Row] = []
    number = effort.pick(20_000, 200)
    for name, url in SERVERS.items():
        for pool, options in POOLS.items():
            title = f"{name}, {pool}"
            with tempfile.TemporaryDirectory() as folder, broker(url) as here:
                cases: dict[str, Callable[[], Sample]] = {
                    label: partial(_run, here, side, Path(folder), number, options)
                    for label, side in ((PLAIN, Plain), (OURS, Ours))
                }
                samples = take_turns(
                    f"throughput: {title}", cases, effort.turns(5), warm_up=False
                )
            found += rows(samples, "per second", "per second", title)
    title = f"End to end, {number:,} tasks a run"
    return [Section(title, "throughput", NOTE, found)]


def _run(
    here: Broker,
    make_side: Callable[..., Plain | Ours],
    folder: Path,
    number: int,
    options: tuple[str, ...],
) -> Sample:
    try:
        side = make_side(folder, here.settings())
        apply_async = side.app.tasks["count"].apply_async
        with side.app.producer_or_acquire() as producer:
            for _ in range(number):
                apply_async((), producer=producer)
        side.app.close()
        with worker(side, *options) as running:
            begin, at_first = running.wait_recorded(number // 20)
            end, at_last = running.wait_recorded(number)
        return {"per second": (at_last - at_first) / (end - begin)}
    finally:
        here.clean()
