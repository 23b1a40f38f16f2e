"""How fast a relay drains an outbox, and whether a batch costs more in a full one."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.relay import Relay

from .applications import configure, nothing_with_request, plain_celery
from .brokers import REDIS, broker, database, purge
from .measuring import PLAIN, Effort, Row, Sample, rows, take_turns
from .report import Section
from .transactions import create_tables, disconnect, transact

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.registry import Registry

NOTE = """\
A relay drains an outbox in PostgreSQL to Redis, in one process: messages per second,
beside a loop of `Task.apply_async` of plain Celery, and how much the resident memory of
the process grows meanwhile, in KiB. *A batch*: milliseconds in which a relay reads,
sends and deletes 100 rows, while so many rows wait and so many are set aside; there the
ratios are to the batch with the fewest rows."""

_FILL = text(
    "INSERT INTO pyramid_tasks_outbox (task, task_id, message, created, not_before, "
    "attempts, set_aside) SELECT task, 'id ' || number, message, created, 0, 0, :aside "
    "FROM (SELECT * FROM pyramid_tasks_outbox ORDER BY id LIMIT 1) AS first, "
    "generate_series(1, :count) AS number"
)


class _Site:
    """Plain Celery, and an outbox that is filled without deferring."""

    def __init__(self, registry: Registry, plain: Celery) -> None:
        self.registry = registry
        self.plain = plain
        self.ours: Celery = registry["pyramid_tasks"].app
        self.engine = get_outbox(registry).get_engine()

    def relay(self) -> Relay:
        """Return a new relay."""
        return Relay(self.registry, self.engine)

    def fill(self, count: int, *, aside: bool = False) -> None:
        """Add copies of the first row, of which there is always one."""
        with self.engine.begin() as connection:
            connection.execute(_FILL, {"count": count, "aside": aside})
            connection.execute(text("ANALYZE pyramid_tasks_outbox"))

    def put_first(self) -> None:
        """Empty the outbox but for one row."""
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE pyramid_tasks_outbox"))
        transact(
            self.registry, lambda request: request.defer_task(nothing_with_request)
        )


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    with ExitStack() as stack:
        url = stack.enter_context(database())
        here = stack.enter_context(broker(REDIS))
        settings = {
            "sqlalchemy.url": url,
            "pyramid_tasks.delivery": "outbox",
            "pyramid_tasks.outbox_send": "relay",
        }
        registry = configure(here.settings(), **settings).registry
        create_tables(registry)
        stack.callback(disconnect, registry)
        site = _Site(registry, plain_celery(here.settings()))
        for app in site.plain, site.ours:
            stack.callback(app.close)
        found = [*_drain(site, effort), *_batches(site, effort)]
    return [Section("The relay", "relay", NOTE, found)]


def _drain(site: _Site, effort: Effort) -> list[Row]:
    count = effort.pick(50_000, 200)
    apply_async = site.plain.tasks["nothing"].apply_async

    def plain() -> None:
        for _ in range(count):
            apply_async()

    def relay() -> None:
        site.relay().run_once()

    def prepare() -> None:
        # The first rows import what there is to import, and make the connections.
        site.put_first()
        site.fill(1000)
        relay()
        purge(site.ours, 1001)
        site.put_first()
        site.fill(count - 1)

    cases = {
        PLAIN: _case(plain, count, site.plain, apply_async),
        "relay": _case(relay, count, site.ours, prepare),
    }
    found = take_turns("relay", cases, effort.turns(1), warm_up=False)
    return [
        *rows(found, "per second", "per second", f"{count:,} messages"),
        *rows(found, "growth", "KiB", "growth of the memory"),
    ]


def _case(
    run: Callable[[], None], count: int, app: Celery, prepare: Callable[[], object]
) -> Callable[[], Sample]:
    def measure() -> Sample:
        prepare()
        gc.collect()
        memory, begin = _resident(), time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
        growth = _resident() - memory
        purge(app, count)
        return {"per second": count / seconds, "growth": growth}

    return measure


def _batches(site: _Site, effort: Effort) -> list[Row]:
    """Measure batches in an outbox that becomes fuller."""
    found: list[Row] = []
    number = effort.pick(20, 2)
    waiting, aside = 0, effort.pick(100_000, 100)
    relay = site.relay()
    site.put_first()
    for size, set_aside in (
        (effort.pick(1000, 500), 0),
        (effort.pick(100_000, 600), 0),
        (effort.pick(1_000_000, 700), 0),
        (effort.pick(1_000_000, 700), aside),
    ):
        # Rows that are set aside come first, where they would be in the way.
        if set_aside:
            site.put_first()
            site.fill(set_aside, aside=True)
            waiting = 0
        site.fill(size - waiting)
        times = []
        for _ in range(number):
            times.append(_timed(relay))
            site.fill(100)  # as many as were sent
        waiting = size
        purge(site.ours, 100 * number)
        label = f"a batch: {size:,} rows wait, {set_aside:,} set aside"
        plain = found[0].values if found else []
        found.append(Row(label, "ms", times, plain))
    return found


def _timed(relay: Relay) -> float:
    begin = time.perf_counter()
    relay.send()
    return 1000 * (time.perf_counter() - begin)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
