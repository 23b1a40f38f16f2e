"""The memory of the children of a prefork worker, with and without ``gc.freeze()``."""

from __future__ import annotations

import re
import tempfile
import time
from functools import partial
from pathlib import Path

from .brokers import REDIS, broker
from .measuring import Effort, Sample, rows, take_turns
from .report import Section
from .workers import Ours, Worker, worker

NOTE = """\
Proportional set size (PSS, from `/proc/PID/smaps_rollup`) of each of four children of a
worker with the sample's application, SQLAlchemy and SQLite, when each has run some
hundred tasks: what it has for itself, and its part of what it shares with others.
`gc.freeze()` is called in the parent before each fork, unless
`pyramid_tasks.gc_freeze = false`. In MiB, as the mean of the children."""

_CHILDREN = 4
_DEADLINE = 120.0


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    tasks = _CHILDREN * effort.pick(500, 10)
    cases = {
        "without": partial(_measure, tasks, "false"),
        "with gc.freeze()": partial(_measure, tasks, "true"),
    }
    samples = take_turns("children", cases, effort.turns(5), warm_up=False)
    found = [
        *rows(samples, "pss", "MiB", "PSS of a child"),
        *rows(samples, "private", "MiB", "of that its own"),
    ]
    return [Section("Children of a prefork worker", "children", NOTE, found)]


def _measure(tasks: int, freeze: str) -> Sample:
    with tempfile.TemporaryDirectory() as folder, broker(REDIS) as here:
        side = Ours(
            Path(folder),
            here.settings(),
            factory="sampleapp:main",
            **{
                "pyramid_tasks.gc_freeze": freeze,
                "sqlalchemy.url": f"sqlite:///{folder}/sample.sqlite",
                "pyramid_tasks.delivery": "commit",
            },
        )
        with worker(side, f"--concurrency={_CHILDREN}", "--loglevel=INFO") as running:
            running.wait_ready()
            with side.sender() as send:
                for number in range(tasks // 2):
                    send("sampleapp.tasks.remove_old_imports")
                    send("sampleapp.tasks.import_expenses", number)
            _wait_done(running, tasks)
            children = [_memory(pid) for pid in running.children()]
    return {
        name: sum(child[name] for child in children) / len(children)
        for name in ("pss", "private")
    }


def _wait_done(running: Worker, tasks: int) -> None:
    deadline = time.monotonic() + _DEADLINE
    while running.read_log().count(" succeeded in ") < tasks:
        running.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not all tasks have run:\n{running.read_log()}")
        time.sleep(0.1)


def _memory(pid: int) -> dict[str, float]:
    """Return the memory of a process in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {
        name: int(size)
        for name, size in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)
    }
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"pss": found["Pss"] / 1024, "private": private / 1024}
