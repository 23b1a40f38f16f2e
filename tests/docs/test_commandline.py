"""The commands of the page about the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import Document
from quickstart import celery_commands, check_celery_command, write_quickstart
from support import run

PAGE = Document("docs/reference/commandline.md")
CELERY = PAGE.blocks("sh", "celery --ini", "celery --reload")
MODULE = PAGE.block("celery -A module", "python")
MODULE_COMMAND = PAGE.block("celery -A module", "sh")
PTASKS = PAGE.block("ptasks", "sh").splitlines()


@pytest.mark.acceptance
@pytest.mark.parametrize("command", celery_commands(*CELERY))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """Every form of the celery command loads the application and starts its work."""
    check_celery_command(command, tmp_path)


def test_module() -> None:
    """The module and its command are those of the README, whose tests run them."""
    readme = Document("README.md")
    assert readme.block("Running a worker", "python") == MODULE
    assert readme.block("Running a worker", "sh", 1) == MODULE_COMMAND


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (PTASKS[0], r"^hello\.add +hello\.add +celery +hello\.py:\d+$"),
        (PTASKS[1], r"^nightly +hello\.add +0 3 \* \* \* +\S+ +config\.ini:\d+$"),
        (PTASKS[2], r"^No problems found\.$"),
    ],
)
def test_ptasks(command: str, expected: str, tmp_path: Path) -> None:
    """Each form of ptasks looks at the application of the quickstart."""
    with write_quickstart(tmp_path).open("a") as ini:
        ini.write("\n[celerybeat:nightly]\ntask = hello.add\nargs = [1, 2]\n")
        ini.write("schedule = 0 3 * * *\n")
    done = run(*command.split(), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(expected, done.stdout, re.MULTILINE), done.stdout
