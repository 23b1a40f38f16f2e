"""Whether a process grows with the tasks it runs."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .applications import configure, plain_celery
from .brokers import Broker
from .measuring import OURS, PLAIN, Effort, Sample, rows, take_turns
from .report import Section
from .scripts import run_script
from .trace import tracer


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    first, number = effort.pick(10_000, 100), effort.pick(200_000, 500)
    cases: dict[str, Callable[[], Sample]] = {
        label: partial(
            run_script,
            "from benchmarks.leaks import measure\n"
            f"measure({label!r}, {first}, {number})",
        )
        for label in (PLAIN, OURS)
    }
    samples = take_turns("leaks", cases, effort.turns(5), warm_up=False)
    note = (
        f"Resident memory of a process after its first {first:,} tasks, and how much "
        f"it grows in the next {number:,}, in KiB. The tasks do nothing."
    )
    found = [
        *rows(samples, "memory", "KiB", "after the first"),
        *rows(samples, "growth", "KiB", "growth"),
    ]
    return [Section(f"Memory of {number:,} tasks", "leaks", note, found)]


def measure(label: str, first: int, number: int) -> None:
    """Measure one side, in a process of its own, and print JSON."""
    settings = Broker("memory://").settings()
    if label == OURS:
        app = configure(settings).make_celery_app()
    else:
        app = plain_celery(settings)
    trace = tracer(app, "nothing")
    for _ in range(first):
        trace()
    memory = _resident()
    for _ in range(number):
        trace()
    print(json.dumps({"memory": memory, "growth": _resident() - memory}))


def _resident() -> float:
    """Return the resident memory in KiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
