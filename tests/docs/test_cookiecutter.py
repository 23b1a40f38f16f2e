"""The page for a project made by the cookiecutter, followed on one of its layout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cookiecutter import apply_diff, write_project
from documents import Block, Document, shell
from support import as_ini, free_port, run, serve, start

PAGE = Document("docs/howto/cookiecutter.md")
for language in ("diff", "python", "sh", "text"):
    PAGE.blocks(language)

pytestmark = pytest.mark.acceptance


class Project:
    """A project, and what somebody does to it who follows the page."""

    def __init__(self, folder: Path, broker: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        lines = as_ini({key: broker[key] for key in broker if "result" not in key})
        self.broker = "\n".join(f"+{line}" for line in lines.splitlines())
        self.env = {"PYTHONPATH": str(folder)}
        self.printed = ""
        write_project(folder)

    def change(self, block: Block) -> None:
        """Do what a block of a file says."""
        text = block.text.replace("6543", str(self.port))
        if block.language == "diff":
            text = text.replace("+celery.broker_url = redis://localhost", self.broker)
            apply_diff(self.folder, text)
            if "delivery = outbox" in text:
                apply_diff(self.folder, text.replace("development.ini", "testing.ini"))
        elif block.language == "python":
            name = re.search(r"file\s`(\S+)`:$", block.before)[1]
            (self.folder / name).write_text(text)

    def run(self, line: str) -> None:
        if line.startswith("env/bin/"):
            command = shlex.split(line.removeprefix("env/bin/"))
            done = run(*command, cwd=self.folder, fresh=False, **self.env)
        else:
            done = shell(line, self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        self.printed = done.stdout

    def add_value(self, line: str, expected: str) -> None:
        """Post to the web process until the worker prints what the page says."""
        ini = self.folder / "development.ini"
        ini.write_text(ini.read_text().replace("6543", str(self.port)))
        command = ("celery", "--ini", ini, "worker")
        with (
            serve(ini, self.port, cwd=self.folder, **self.env),
            start(*command, cwd=self.folder, **self.env) as worker,
        ):
            self.run(line.replace("6543", str(self.port)))
            assert self.printed == '{"id": 1}' or '"id": 2' in self.printed
            worker.wait_for(expected.strip().replace("6543", str(self.port)))


def test_page(tmp_path: Path, redis_queue: dict[str, str]) -> None:
    """Each diff applies, and each command prints what it should."""
    pytest.importorskip("alembic")
    pytest.importorskip("pyramid_retry")
    pytest.importorskip("pyramid_tm")
    project = Project(tmp_path, redis_queue)
    curl = shown = ""
    for block in PAGE.all:
        project.change(block)
        for line in block.text.splitlines() if block.language == "sh" else ():
            if line.startswith("curl "):
                curl = line
            elif not re.search(r"/pip |/pserve | worker$| outbox run$", line):
                project.run(line)
        if block.language == "text" and curl and not shown:
            shown = block.text
            project.add_value(curl, shown)
        elif block.language == "text":
            assert block.text.strip(" …\n") in project.printed
    project.add_value(curl.replace("two", "three"), shown)
    project.run("env/bin/celery --ini development.ini outbox run --once")
    project.run("env/bin/pytest -q")
    assert "2 passed" in project.printed
