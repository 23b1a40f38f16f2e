"""How long from ``defer_task`` in a transaction to the start of the task."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .applications import note_delay_with_request
from .brokers import REDIS, broker, database
from .measuring import PLAIN, Effort, Row, Sample, rows, take_turns
from .report import Section
from .transactions import create_tables, disconnect, transact
from .workers import Ours, Plain, Worker, worker

if TYPE_CHECKING:
    from pyramid.registry import Registry

NOTE = """\
Milliseconds from deferring a task in a transaction, which has inserted a row, to the
first line of the task and to the end of the commit, 100 times a second, with
PostgreSQL and Redis. With plain Celery, `apply_async` follows the commit: the clock
runs from where the others defer, and stops when it has returned. Each turn is 50
transactions, of which the median and the 95th percentile are taken; the columns are
about those of all turns."""

_PER_SECOND = 100

MEASURES = (
    "task starts, median",
    "task starts, 95th percentile",
    "commit ends, median",
    "commit ends, 95th percentile",
)


def run(effort: Effort) -> list[Section]:
    """Measure it for each delivery."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(database())
        here = stack.enter_context(broker(REDIS))
        plain = Plain(folder, here.settings())
        ours = Ours(folder, here.settings(), **{"sqlalchemy.url": url})
        registry = ours.app.loader.registry
        create_tables(registry)
        stack.callback(disconnect, registry)
        for side in plain, ours:
            stack.callback(side.app.close)
        at_plain = stack.enter_context(worker(plain, "--concurrency=1"))
        at_ours = stack.enter_context(worker(ours, "--concurrency=1"))
        apply_async = plain.app.tasks["note_delay"].apply_async
        number = effort.pick(50, 4)
        cases = {
            PLAIN: _case(at_plain, number, _after(registry, apply_async)),
            **{
                delivery: _case(at_ours, number, _within(registry, delivery))
                for delivery in ("immediate", "commit", "outbox")
            },
        }
        samples = take_turns("deliveries", cases, effort.turns(15))
    found: list[Row] = []
    for measure in MEASURES:
        found += rows(samples, measure, "ms", measure)
    return [Section("Latency in a transaction", "deliveries", NOTE, found)]


def _after(
    registry: Registry, apply_async: Callable[..., object]
) -> Callable[[], float]:
    def once() -> float:
        sent: list[float] = []
        transact(
            registry,
            lambda _: sent.append(time.monotonic()),
            lambda _: apply_async(sent),
        )
        return sent[0]

    return once


def _within(registry: Registry, delivery: str) -> Callable[[], float]:
    def once() -> float:
        sent: list[float] = []

        def defer(request: Any) -> None:
            sent.append(time.monotonic())
            request.defer_task_with_options(
                note_delay_with_request, sent, delivery=delivery
            )

        transact(registry, defer)
        return sent[0]

    return once


def _case(
    running: Worker, number: int, once: Callable[[], float]
) -> Callable[[], Sample]:
    def run() -> Sample:
        before = running.record.stat().st_size
        begin = time.monotonic()
        ends = []
        for index in range(number):
            time.sleep(max(0.0, begin + index / _PER_SECOND - time.monotonic()))
            sent = once()
            ends.append(1000 * (time.monotonic() - sent))
        starts = running.read_delays(before, number)
        summary = [figure for times in (starts, ends) for figure in _summary(times)]
        return dict(zip(MEASURES, summary, strict=True))

    return run


def _summary(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=20)[-1]
