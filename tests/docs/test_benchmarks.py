"""The commands of the page about what it costs. ``make bench`` runs them all."""

from __future__ import annotations

import re

import pytest
from documents import ROOT, Document
from support import run

COMMANDS = Document("docs/benchmarks.md").blocks("sh")


@pytest.mark.acceptance
def test_commands() -> None:
    """There is a benchmark of each name, and a table of each benchmark."""
    shown = run("python", "-m", "benchmarks", "--help", cwd=ROOT).stdout
    names = re.search(r"in place of all: (.+?)\n\n", shown, re.DOTALL)
    assert names
    assert "".join(COMMANDS).splitlines() == [
        f".venv/bin/python -m benchmarks {name}" for name in re.split(r",\s+", names[1])
    ]
