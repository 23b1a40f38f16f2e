"""How long it takes to import the modules that users and entry points name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .measuring import PLAIN, Effort, Sample, rows, take_turns
from .report import Section
from .scripts import run_script

NOTE = """\
Milliseconds of processor time to import a module that users or entry points name, as
the first thing in a process, beside `from celery import Celery`. What a module imports
counts, and nearly all import Celery or Pyramid; `celery` itself, on the command line,
imports `pyramid_tasks.loaders.cli` and `pyramid_tasks.outbox.command` in every project
of the environment."""

NAMES = [
    "pyramid_tasks",
    "pyramid_tasks.celery",
    "pyramid_tasks.contrib.debugtoolbar",
    "pyramid_tasks.contrib.outbox",
    "pyramid_tasks.contrib.outbox_table",
    "pyramid_tasks.contrib.pyramid_retry",
    "pyramid_tasks.contrib.pyramid_tm",
    "pyramid_tasks.events",
    "pyramid_tasks.exceptions",
    "pyramid_tasks.interfaces",
    "pyramid_tasks.loaders",
    "pyramid_tasks.loaders.cli",
    "pyramid_tasks.loaders.pastedeploy",
    "pyramid_tasks.logging",
    "pyramid_tasks.outbox.command",
    "pyramid_tasks.outbox.inbox_command",
    "pyramid_tasks.pytest_plugin",
    "pyramid_tasks.scripts.ptasks",
    "pyramid_tasks.settings",
    "pyramid_tasks.testing",
    "pyramid_tasks.transaction",
    "pyramid_tasks.typing",
]

_TIMED = """
import time
begin = time.process_time()
{}
print(1000 * (time.process_time() - begin))
"""


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    cases: dict[str, Callable[[], Sample]] = {
        f"{PLAIN}: Celery": partial(_import, "from celery import Celery"),
        "Pyramid: Configurator": partial(
            _import, "from pyramid.config import Configurator"
        ),
        **{name: partial(_import, f"import {name}") for name in NAMES},
    }
    samples = take_turns("imports", cases, effort.turns(5), warm_up=not effort.quick)
    return [Section("Imports", "imports", NOTE, list(rows(samples, "ms", "ms")))]


def _import(statement: str) -> Sample:
    return {"ms": run_script(_TIMED.format(statement))}
