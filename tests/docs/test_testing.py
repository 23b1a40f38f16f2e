"""The snippets about tests, run by pytest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import Document
from support import run
from testedapp import CONFTEST, COOKIECUTTER, TASKS

README = Document("README.md").block("Testing", "python")
PAGE = Document("docs/howto/testing.md")
FIXTURE = PAGE.block("With the fixtures of the cookiecutter", "python")
SNIPPETS = [text for text in PAGE.blocks("python") if text != FIXTURE]

#: The same fixtures in a project that gives them other names.
OTHER_NAMES = re.sub(r'(?<!")\btm\b', "manager", COOKIECUTTER)
OTHER_NAMES = OTHER_NAMES.replace("dbsession", "session")


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("snippets", "more"),
    [
        pytest.param([README], "", id="README"),
        pytest.param(SNIPPETS, "", id="plain"),
        pytest.param(SNIPPETS, COOKIECUTTER, id="cookiecutter"),
        pytest.param(SNIPPETS, OTHER_NAMES + FIXTURE, id="other names"),
    ],
)
def test_snippets(tmp_path: Path, snippets: list[str], more: str) -> None:
    """The tests of the pages pass, and with the fixtures of the cookiecutter too."""
    pytest.importorskip("pyramid_tm")
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "tasks.py").write_text(TASKS)
    for number, text in enumerate(snippets):
        (tmp_path / f"test_{number}.py").write_text(text)
    (tmp_path / "conftest.py").write_text(CONFTEST + more)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = run("pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert f"{len(snippets)} passed" in done.stdout, done.stdout
