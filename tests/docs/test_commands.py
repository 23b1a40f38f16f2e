"""The commands of the pages: on the quickstart's application, and of benchmarks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, Document
from support import UNMEASURED, run, start

PAGE = Document("docs/reference/commandline.md")
MODULE = PAGE.block("celery -A module", "python")
MODULE_COMMAND = PAGE.block("celery -A module", "sh")
PTASKS = PAGE.block("ptasks", "sh").splitlines()

BENCHMARKS = Document("docs/benchmarks.md").blocks("sh")
README = Document("README.md")
SCHEDULE = README.block("Schedules", "ini")
SCHEDULES = Document("docs/howto/schedules.md")
NIGHTLY = SCHEDULES.block("In the ini", "ini")
WHY = Document("docs/explanation/why.md")
WRONG_BROKER = WHY.block("The worker on the wrong broker", "sh").strip()
MISTAKE = WHY.block("The worker on the wrong broker", "text")

COMMANDS = "".join(
    [
        README.block("Running a worker", "sh"),
        *PAGE.blocks("sh", "celery --ini", "celery --reload"),
        *Document("docs/howto/effects-once.md").blocks("sh"),
        SCHEDULES.block("Run it", "sh"),
        *Document("docs/howto/transactions.md").blocks("sh"),
        *Document("docs/howto/troubleshooting.md").blocks("sh"),
        WRONG_BROKER,
    ]
).splitlines()

#: What a command of Celery prints once it has loaded the application.
PRINTED = {
    "worker": "> app:         hello",
    "beat": "beat",
    "inspect": "No nodes replied",
    "report": "filesystem",
    "status": "No nodes replied",
    "inbox": "The application has no outbox",
    "outbox": "The application has no outbox",  # the quickstart needs none
}

TASK = "myapp.tasks.cleanup"
CLEANUP = f"""

@task(name="{TASK}")
def cleanup(request, days, dry_run): ...
"""

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    "command", sorted({line for line in COMMANDS if line.startswith("celery ")})
)
def test_celery(command: str, quickstart: dict[str, Any]) -> None:
    """Every form of the celery command loads the application and starts its work."""
    name = next(each for each in command.split() if each in PRINTED)
    with start(*command.split(), **quickstart, **UNMEASURED) as process:
        process.wait_for(PRINTED[name])


def test_same_on_other_pages() -> None:
    """These stand on two pages, and a test runs those of one."""
    assert README.block("Running a worker", "python") == MODULE
    assert README.block("Running a worker", "sh", 1) == MODULE_COMMAND
    others = {line for line in COMMANDS if not line.startswith("celery ")}
    assert others <= {*PTASKS}


def test_mistake(quickstart: dict[str, Any], tmp_path: Path) -> None:
    """A mistake in the ini is named as on the page."""
    ini = tmp_path / "config.ini"
    ini.write_text(ini.read_text().replace("celery.broker_url", "celery.broker_ulr"))
    done = run(*WRONG_BROKER.split(), **quickstart)
    assert done.returncode != 0
    for line in MISTAKE.splitlines():
        for part in line.split("…"):
            assert part.strip() in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("command", "more", "expected"),
    [
        (PTASKS[0], "", r"^hello\.add +hello\.add +celery +hello\.py:\d+$"),
        (PTASKS[1], NIGHTLY, rf"^nightly +{TASK} +0 3 \* \* \* .* config\.ini:\d+$"),
        (PTASKS[2], "", r"^No problems found\.$"),
        (PTASKS[3], "", r"^The broker .* answers\.$"),
    ],
)
def test_ptasks(
    command: str, more: str, expected: str, quickstart: dict[str, Any], tmp_path: Path
) -> None:
    """Each form of ptasks looks at the application, and at a schedule."""
    with (tmp_path / "config.ini").open("a") as ini:
        ini.write(f"\n{more}")
    with (tmp_path / "hello.py").open("a") as module:
        module.write(CLEANUP)
    done = run(*command.split(), **quickstart)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(expected, done.stdout, re.MULTILINE), done.stdout


def test_schedule_of_readme(quickstart: dict[str, Any], tmp_path: Path) -> None:
    """The schedule of the ini is read: the only problem is that its task is missing."""
    with (tmp_path / "config.ini").open("a") as file:
        file.write(f"\n{SCHEDULE}")
    done = run("ptasks", "-c", "config.ini", **quickstart)
    assert f"No task {TASK!r} is registered" in done.stdout
    assert done.stdout.endswith("\n1 problem found.\n")


def test_benchmarks() -> None:
    """There is a benchmark of each name, and a table of each benchmark."""
    shown = run("python", "-m", "benchmarks", "--help", cwd=ROOT).stdout
    names = re.search(r"in place of all: (.+?)\n\n", shown, re.DOTALL)
    assert names
    assert "".join(BENCHMARKS).splitlines() == [
        f".venv/bin/python -m benchmarks {name}" for name in re.split(r",\s+", names[1])
    ]
