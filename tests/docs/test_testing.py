"""The snippets about tests, run by pytest."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import Document
from support import run
from testedapp import CONFTEST, COOKIECUTTER, TASKS

*SNIPPETS, FIXTURE = Document("docs/howto/testing.md").blocks("python")


@pytest.mark.acceptance
@pytest.mark.parametrize("cookiecutter", [False, True])
def test_snippets(tmp_path: Path, cookiecutter: bool) -> None:  # noqa: FBT001
    """The tests of the page pass, and with the fixtures of the cookiecutter too."""
    pytest.importorskip("pyramid_tm")
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "tasks.py").write_text(TASKS)
    for number, text in enumerate(SNIPPETS):
        (tmp_path / f"test_{number}.py").write_text(text)
    more = COOKIECUTTER + FIXTURE if cookiecutter else ""
    (tmp_path / "conftest.py").write_text(CONFTEST + more)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = run("pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout
