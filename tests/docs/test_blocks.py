"""No code block of the README and the documentation is without a test that runs it."""

from __future__ import annotations

import runpy
from configparser import ConfigParser
from pathlib import Path

import documents
import pytest
from documents import ROOT, Document

NAMES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)


@pytest.fixture(scope="module")
def taken() -> dict[str, set[int]]:
    """Return what the modules beside this one take when they are imported.

    They are run once more for this: in a process of pytest-xdist, as with the name of
    one test on the command line, other tests may not run.
    """
    documents.TAKEN.clear()
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            runpy.run_path(str(path))
    return {name: lines.copy() for name, lines in documents.TAKEN.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_run(name: str, taken: dict[str, set[int]]) -> None:
    """Each block of each document is taken by a test module."""
    lines = {block.line for block in Document(name).all} - taken.get(name, set())
    assert not lines, f"no test takes the blocks of {name} in lines {sorted(lines)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_block_can_be_read(name: str) -> None:
    """Each block says what it is, and no ini has a mistake that a parser would find."""
    for block in Document(name).all:
        assert block.language, block
        if block.language == "ini":
            ConfigParser(interpolation=None, strict=True).read_string(block.text)
