"""The snippets about shells and scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import Document
from support import QUICK, as_ini, run, start_worker

PAGE = Document("docs/howto/scripts.md")
PSHELL, CALL = PAGE.blocks("sh", "From a shell")
LINES = PAGE.blocks("python", "From a shell")
SCRIPT = PAGE.block("From a script", "python")
RUN = PAGE.block("From a script", "sh")
APP = """
from pyramid.config import Configurator
from pyramid_tasks import task


@task(name="myapp.tasks.cleanup")
def cleanup(request, days):
    print(f"cleaned {days}")


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.scan("myapp")
        return config.make_wsgi_app()
"""


@pytest.mark.acceptance
def test_shells_and_scripts(tmp_path: Path, redis_queue: dict[str, str]) -> None:
    """Each way has a worker run the task."""
    pytest.importorskip("pyramid_tm")
    (tmp_path / "myapp.py").write_text(APP)
    (tmp_path / "cleanup.py").write_text(SCRIPT)
    explicit = "tm.manager_hook = pyramid_tm.explicit_manager"
    (tmp_path / "config.ini").write_text(
        f"[app:main]\nuse = call:myapp:main\n{explicit}\n{as_ini(redis_queue)}\n"
    )
    options = {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}
    with start_worker("config.ini", *QUICK, **options) as worker:
        typed = "\n\n".join([*LINES, ""])
        shell = run(*PSHELL.split(), "-p", "python", stdin=typed, **options)
        assert shell.returncode == 0, shell.stdout + shell.stderr
        for command in CALL, RUN:
            done = run(*re.sub("'", "", command).split(), **options)
            assert re.fullmatch(r"[-0-9a-f]{36}\n", done.stdout), done.stderr
        worker.wait_until(lambda: worker.output.count("cleaned 30") == 4)
