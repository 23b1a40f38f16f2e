"""What deferring costs: one task, many at once, and one in a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pyramid.scripting import prepare

from .applications import configure, nothing_with_request, plain_celery
from .brokers import SERVERS, Broker, broker, database, purge
from .measuring import OURS, PLAIN, Effort, Row, Sample, rows, take_turns, timed
from .report import Section
from .transactions import create_tables, disconnect, transact

if TYPE_CHECKING:
    from celery import Celery

NOTE = """\
Deferring a task that does nothing. *One*: `Task.apply_async` of plain Celery, and
`request.defer_task` with delivery `immediate` and no task context. *1,000 at once*:
each with `apply_async` and the same producer, which is how plain Celery is fastest, and
`request.defer_tasks`. *In a transaction*: a request is made, a row is inserted, a task
is deferred, and the transaction commits, in PostgreSQL; with plain Celery,
`apply_async` follows the commit. Plain Celery does not learn whether RabbitMQ has a
message, unless `confirm_publish` is set, as it is for the deliveries; that is a row of
its own, *confirmed*. On the memory transport in microseconds for each task (of
processor time, but for transactions), else how many tasks one process defers per
second."""

_AT_ONCE = 1000
CONFIRMING = "plain Celery, confirmed"

#: What is done a number of times by either side.
Call = Callable[[], object]


class _Site:
    """Plain Celery, and an application with this package, on one broker."""

    def __init__(self, name: str, here: Broker, url: str, effort: Effort) -> None:
        self.name = name
        self.effort = effort
        self.plain = plain_celery(here.settings())
        options = {"broker_transport_options": {"confirm_publish": True}}
        self.confirming = plain_celery(here.settings() | options)
        settings = {"sqlalchemy.url": url, "pyramid_tasks.delivery": "immediate"}
        self.registry = configure(here.settings(), **settings).registry
        self.ours: Celery = self.registry["pyramid_tasks"].app

    def measure(
        self,
        title: str,
        calls: Mapping[str, Call],
        number: int,
        *,
        tasks: int = 1,
        cpu: bool = True,
    ) -> Iterator[Row]:
        """Compare calls, each of which sends a number of tasks."""
        in_memory = self.name == "memory"
        unit = "µs" if in_memory else "per second"
        cases = {
            label: self._purging(
                timed(call, number, tasks, cpu=cpu and in_memory),
                {PLAIN: self.plain, CONFIRMING: self.confirming}.get(label, self.ours),
                number * tasks,
            )
            for label, call in calls.items()
        }
        title = f"{self.name}, {title}"
        found = take_turns(f"defer: {title}", cases, self.effort.turns(30))
        yield from rows(found, unit, unit, title)

    def _purging(
        self, run: Callable[[], Sample], app: Celery, count: int
    ) -> Callable[[], Sample]:
        def run_and_purge() -> Sample:
            sample = run()
            purge(app, count)
            return sample

        return run_and_purge


def run(effort: Effort) -> list[Section]:
    """Measure it on the memory transport, Redis and RabbitMQ."""
    found: list[Row] = []
    for name, server in {"memory": "memory://", **SERVERS}.items():
        with _site(name, server, effort) as site:
            found += [*_one(site), *_at_once(site), *_in_transaction(site)]
    return [Section("Deferring", "defer", NOTE, found)]


@contextmanager
def _site(name: str, server: str, effort: Effort) -> Iterator[_Site]:
    with database() as url, broker(server) as here:
        site = _Site(name, here, url, effort)
        create_tables(site.registry)
        try:
            yield site
        finally:
            disconnect(site.registry)
            site.plain.close()
            site.confirming.close()
            site.ours.close()


def _one(site: _Site) -> Iterator[Row]:
    apply_async = site.plain.tasks["nothing"].apply_async
    with prepare(registry=site.registry) as env:
        defer_task = env["request"].defer_task
        calls: dict[str, Call] = {
            PLAIN: apply_async,
            OURS: partial(defer_task, nothing_with_request),
        }
        yield from site.measure("one", calls, site.effort.pick(1000, 20))


def _at_once(site: _Site) -> Iterator[Row]:
    apply_async = site.plain.tasks["nothing"].apply_async
    count = site.effort.pick(_AT_ONCE, 20)

    def plain() -> None:
        with site.plain.producer_or_acquire() as producer:
            for _ in range(count):
                apply_async((), producer=producer)

    with prepare(registry=site.registry) as env:
        defer_tasks = env["request"].defer_tasks
        calls: dict[str, Call] = {
            PLAIN: plain,
            OURS: lambda: defer_tasks(nothing_with_request, [()] * count),
        }
        yield from site.measure("1,000 at once", calls, 1, tasks=count)


def _in_transaction(site: _Site) -> Iterator[Row]:
    apply_async = site.plain.tasks["nothing"].apply_async

    def deferring(delivery: str) -> Call:
        return lambda: transact(
            site.registry,
            lambda request: request.defer_task_with_options(
                nothing_with_request, delivery=delivery
            ),
        )

    calls: dict[str, Call] = {
        PLAIN: lambda: transact(site.registry, then=lambda _: apply_async()),
    }
    if site.name == "RabbitMQ":
        confirming = site.confirming.tasks["nothing"].apply_async
        calls[CONFIRMING] = lambda: transact(site.registry, then=lambda _: confirming())
    calls |= {
        "commit": deferring("commit"),
        "outbox": deferring("outbox"),
    }
    number = site.effort.pick(300, 5)
    yield from site.measure("in a transaction", calls, number, cpu=False)
