"""How long it takes to import each module."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import partial

import pyramid_tasks

from .measuring import PLAIN, Effort, Sample, rows, take_turns
from .report import Section
from .scripts import run_script

NOTE = """\
Milliseconds of processor time to import a module of this package as the first thing in
a process, beside `from celery import Celery`. What a module imports counts, and nearly
all import Celery or Pyramid; `celery` itself, on the command line, imports
`pyramid_tasks.loaders.cli` and `pyramid_tasks.outbox.command` in every project
of the environment."""

_TIMED = """
import time
begin = time.process_time()
{}
print(1000 * (time.process_time() - begin))
"""


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    found = pkgutil.walk_packages(pyramid_tasks.__path__, "pyramid_tasks.")
    names = ["pyramid_tasks", *(each.name for each in found)]
    cases: dict[str, Callable[[], Sample]] = {
        f"{PLAIN}: Celery": partial(_import, "from celery import Celery"),
        "Pyramid: Configurator": partial(
            _import, "from pyramid.config import Configurator"
        ),
        **{name: partial(_import, f"import {name}") for name in names},
    }
    samples = take_turns("imports", cases, effort.turns(5), warm_up=not effort.quick)
    return [Section("Imports", "imports", NOTE, list(rows(samples, "ms", "ms")))]


def _import(statement: str) -> Sample:
    return {"ms": run_script(_TIMED.format(statement))}
