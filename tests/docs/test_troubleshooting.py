"""The commands that find out what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import Document
from quickstart import celery_commands, check_celery_command, write_quickstart
from support import run

COMMANDS = Document("docs/howto/troubleshooting.md").blocks("sh")
PTASKS = sorted({line for line in COMMANDS if line.startswith("ptasks")})

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("command", celery_commands(*COMMANDS))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """Each command loads the application of the ini."""
    check_celery_command(command, tmp_path)


@pytest.mark.parametrize("command", PTASKS)
def test_ptasks(command: str, tmp_path: Path) -> None:
    """Each form of ptasks looks at the application of the ini."""
    write_quickstart(tmp_path)
    done = run(*command.split(), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert ("hello.add" in done.stdout) == (command == "ptasks config.ini\n")
