"""The front page of the documentation."""

from __future__ import annotations

import shlex
from importlib.metadata import metadata

from documents import Document
from packaging.requirements import Requirement

PAGE = Document("docs/index.md")
INI = PAGE.block("pyramid_tasks", "ini")
INSTALL, COMMANDS = PAGE.blocks("sh", "pyramid_tasks")


def test_front_page() -> None:
    """It begins as the README does, whose test runs the ini and the commands."""
    readme = Document("README.md")
    assert readme.block("pyramid_tasks", "ini") == INI
    assert readme.blocks("sh", "pyramid_tasks") == [INSTALL, COMMANDS]


def test_install() -> None:
    """The line installs this package, with extras that it has."""
    words = shlex.split(INSTALL)
    assert words[:3] == ["pip", "install", "--pre"]
    requirement = Requirement(words[3])
    extras = metadata(requirement.name).get_all("Provides-Extra")
    assert requirement.extras <= set(extras)
