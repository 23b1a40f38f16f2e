"""The application of the README's quickstart, for the commands in the documents."""

from __future__ import annotations

import re
from pathlib import Path

from documents import Document
from support import UNMEASURED, start, wait_until

#: What a command of Celery prints once it has loaded the application.
_PRINTED = {
    "worker": "> app:         hello",
    "beat": "beat",
    "inspect": "No nodes replied",
    "report": "filesystem",
    "status": "No nodes replied",
    "inbox": "The application has no outbox",
    "outbox": "The application has no outbox",  # the quickstart needs none
}


def write_quickstart(folder: Path) -> Path:
    """Write the application of the quickstart; return its ini, called config.ini."""
    script = Document("README.md").block("Quickstart", "sh")
    for name in ("hello.py", "hello.ini"):
        text = re.search(rf"cat > {name} <<'END'\n(.*?)\nEND", script, re.DOTALL)[1]
        (folder / name.replace("hello.ini", "config.ini")).write_text(text)
    for name in ("messages", "control", "results"):
        (folder / name).mkdir()
    return folder / "config.ini"


def celery_commands(*blocks: str) -> list[str]:
    """Return the lines of some blocks that run Celery with --ini, or with nothing."""
    lines = "\n".join(blocks).splitlines()
    return sorted({line for line in lines if line.startswith("celery ")})


def check_celery_command(command: str, folder: Path) -> None:
    """Run a command on the quickstart until it has loaded the application."""
    write_quickstart(folder)
    program, *arguments = command.split()
    name = next(each for each in arguments if each in _PRINTED)
    env = {"PYTHONPATH": str(folder)} | UNMEASURED
    with start(program, *arguments, cwd=folder, **env) as process:
        wait_until(
            lambda: _PRINTED[name] in process.output, what=lambda: process.output
        )
