"""The snippets about schedules, and the commands that run and list them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from documents import Document
from pyramid.config import Configurator
from quickstart import celery_commands, check_celery_command, write_quickstart
from support import run

from pyramid_tasks.registry import get_tasks

PAGE = Document("docs/howto/schedules.md")
CODE = PAGE.block("In the code", "python")
INI = PAGE.block("In the ini", "ini")
TASK = """

@task(name="myapp.tasks.cleanup")
def cleanup(request, days, dry_run): ...
"""
COMMANDS = PAGE.block("Run it", "sh")


def test_in_the_code(import_snippets: Callable[..., ModuleType]) -> None:
    """Each call of the snippet is an entry of beat."""
    snippets = import_snippets(CODE)
    with Configurator(settings={"celery.broker_url": "memory://"}) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.include(snippets.add_schedules)
    schedule = get_tasks(config.registry).app.conf.beat_schedule
    tasks = [entry["task"] for entry in schedule.values()]
    assert tasks == ["report", "snippets.resize", "report"]
    assert schedule["often"]["options"] == {"expires": 10}


@pytest.mark.acceptance
def test_in_the_ini(tmp_path: Path) -> None:
    """The sections of the ini are listed with the task that the application has."""
    with write_quickstart(tmp_path).open("a") as file:
        file.write(f"\n{INI}")
    with (tmp_path / "hello.py").open("a") as file:
        file.write(TASK)
    path = {"PYTHONPATH": str(tmp_path)}
    done = run("ptasks", "--schedule", "config.ini", cwd=tmp_path, **path)
    line = r"^nightly +myapp\.tasks\.cleanup +0 3 \* \* \* +\S+ +config\.ini:\d+$"
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.acceptance
@pytest.mark.parametrize("command", celery_commands(COMMANDS))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """The command starts beat."""
    check_celery_command(command, tmp_path)
