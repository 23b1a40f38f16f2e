"""What happens to the costs when an application grows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from pyramid.scripting import prepare

from .applications import METHODS, pyramid_part
from .brokers import Broker
from .measuring import OURS, PLAIN, Effort, Row, Sample, rows, take_turns, timed
from .report import Section
from .scripts import run_script
from .trace import tracer

NOTE = """\
For applications with many tasks, and with many request methods: milliseconds to make
the Pyramid application with its tasks, or plain Celery beside it, without imports; and
microseconds to defer one of the tasks and to run it, all of it processor time. At
start-up the cost should be in proportion, and for one task always the same."""

TASKS = (10, 100, 1000, 5000)
REQUEST_METHODS = (10, 200)
_MEASURES = {"start-up": "ms", "defer": "µs", "trace": "µs"}


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    found: list[Row] = []
    sizes = {f"{tasks:,} tasks": (tasks, METHODS) for tasks in TASKS}
    sizes |= {
        f"{methods} request methods": (TASKS[0], methods) for methods in REQUEST_METHODS
    }
    number = effort.pick(2000, 20)
    for size, (tasks, methods) in sizes.items():
        cases: dict[str, Callable[[], Sample]] = {
            label: partial(
                run_script,
                "from benchmarks.growth import measure\n"
                f"measure({label!r}, {tasks}, {methods}, {number})",
            )
            for label in (PLAIN, OURS)
        }
        samples = take_turns(f"growth: {size}", cases, effort.turns(5), warm_up=False)
        for measure, unit in _MEASURES.items():
            found += rows(samples, measure, unit, f"{size}, {measure}")
    return [Section("Growing applications", "growth", NOTE, found)]


def measure(label: str, tasks: int, methods: int, number: int) -> None:
    """Measure one application, in a process of its own, and print JSON."""
    make = _make_ours if label == OURS else _make_plain
    make(2, 1)  # which imports all that there is to import
    begin = time.process_time()
    app, defer = make(tasks, methods)
    found = {"start-up": 1000 * (time.process_time() - begin)}
    for name, call in (("trace", tracer(app, "task_1")), ("defer", defer)):
        timed(call, number)()  # the first ones are slower
        found[name] = timed(call, number)()["µs"]
    print(json.dumps(found))


def _make_plain(tasks: int, methods: int) -> tuple[Celery, Callable[[], object]]:
    pyramid_part({}, methods=methods).make_wsgi_app()
    app = Celery("benchmark", set_as_current=False)
    app.conf.update(Broker("memory://").settings())
    for number in range(tasks):

        def func() -> None:
            """Do nothing."""

        app.task(func, name=f"task_{number}", shared=False)
    app.finalize()
    return app, app.tasks["task_1"].apply_async


def _make_ours(tasks: int, methods: int) -> tuple[Celery, Callable[[], object]]:
    settings = Broker("memory://").settings()
    config = pyramid_part(
        {f"celery.{key}": value for key, value in settings.items()}, methods=methods
    )
    config.include("pyramid_tasks")
    for number in range(tasks):

        def func(_request: Any) -> None:
            """Do nothing."""

        config.register_task(func, name=f"task_{number}")
    config.make_wsgi_app()
    env = prepare(registry=config.registry)
    return config.make_celery_app(), partial(env["request"].defer_task, "task_1")
