"""The code blocks of the README and the documentation, for the tests that run them.

A module in ``tests/docs`` takes the blocks of a page when it is imported, and its tests
run them. ``test_blocks.py`` fails for a block that no module takes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from markdown_it import MarkdownIt
from pyramid.config import Configurator
from support import BIN, environment

ROOT = Path(__file__).parent.parent

#: Fixtures of ``docs/conftest.py``, which take blocks of code.
ImportSnippets = Callable[..., ModuleType]
ConfigureSnippets = Callable[..., Configurator]
WriteApp = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Block:
    """The code between two fences.

    It stands under a heading, of whatever level; the paragraph before it is empty if
    something else is in between.
    """

    line: int
    heading: str
    before: str
    language: str
    text: str


class Document:
    """A Markdown file, by its name in the project: its text, and all its blocks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text()
        self.all = list(_read(self.text))

    def blocks(self, language: str, *headings: str) -> list[str]:
        """Take the blocks of a language, below some headings or all of them."""
        assert {*headings} <= {block.heading for block in self.all}, headings
        return [
            self._take(block)
            for block in self.all
            if block.language == language
            if not headings or block.heading in headings
        ]

    def block(self, heading: str, language: str, number: int = 0) -> str:
        """Take one block."""
        wanted = (heading, language)
        below = [each for each in self.all if (each.heading, each.language) == wanted]
        return self._take(below[number])

    def _take(self, block: Block) -> str:
        TAKEN.setdefault(self.name, set()).add(block.line)
        return block.text


def app_settings(*inis: str) -> dict[str, str]:
    """Return what some blocks have in their sections of the application."""
    parser = ConfigParser(interpolation=None)
    for ini in inis:
        parser.read_string(ini)
    return dict(parser["app:main"])


def shell(
    line: str, folder: Path, *, program: str = "bash", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a line as it is typed, with the scripts of the environment under test."""
    return subprocess.run(
        [program, "-c", line],
        cwd=folder,
        env=environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", **env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


#: The lines in which the blocks begin that a test has taken, by document.
TAKEN: dict[str, set[int]] = {}


def _read(text: str) -> Iterator[Block]:
    heading = before = opened = ""
    for token in MarkdownIt().parse(text):
        if token.type in {"heading_open", "paragraph_open"}:
            opened = token.type
        elif token.type == "inline":
            before = token.content if opened == "paragraph_open" else ""
            heading = token.content if opened == "heading_open" else heading
        elif token.type in {"fence", "code_block"}:
            assert token.map
            language = token.info.strip()
            # Another way to write a block of code, which this does not read.
            assert not language.startswith(("{code", "{literal")), language
            if not language.startswith("{"):  # "{toctree}" and the like
                line = token.map[0] + 1
                yield Block(line, heading, before, language, token.content)
            before = ""
