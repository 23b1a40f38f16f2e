"""The front page of the documentation."""

from __future__ import annotations

from documents import Document

PAGE = Document("docs/index.md")
INI = PAGE.block("pyramid_tasks", "ini")
COMMANDS = PAGE.block("pyramid_tasks", "sh")


def test_front_page() -> None:
    """It begins as the README does, whose test runs the ini and the commands."""
    readme = Document("README.md")
    assert readme.block("pyramid_tasks", "ini") == INI
    assert readme.block("pyramid_tasks", "sh") == COMMANDS
