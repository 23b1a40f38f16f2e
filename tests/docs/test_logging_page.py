"""The snippets about logging, in a worker."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from documents import Document
from support import QUICK, as_ini, run, start_worker

if TYPE_CHECKING:
    from pyramid.config import Configurator

PAGE = Document("docs/howto/logging.md")
TASK = PAGE.block("In the ini", "python")
FILTER = PAGE.block("In Python", "python")
INI = PAGE.block("In the ini", "ini")
LINE = PAGE.block("In the ini", "text")
MAIN = """

def main(global_config, **settings):
    from pyramid.config import Configurator

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan("myapp")
        return config.make_wsgi_app()
"""


@pytest.mark.acceptance
def test_log(tmp_path: Path, redis_queue: dict[str, str]) -> None:
    """A line of a task has its name and its id."""
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "__init__.py").write_text(TASK + MAIN)
    app = f"[app:main]\nuse = call:myapp:main\n{as_ini(redis_queue)}\n\n"
    (tmp_path / "config.ini").write_text(app + INI)
    env = {"PYTHONPATH": str(tmp_path)}
    with start_worker("config.ini", *QUICK, cwd=tmp_path, **env) as worker:
        command = ("celery", "--ini", "config.ini", "call", "myapp.ship", "--args=[7]")
        task_id = run(*command, cwd=tmp_path, **env).stdout.strip()
        worker.wait_for(LINE.strip().replace("…", task_id))
        assert re.search(
            r"INFO \?\?\?\[\?\?\?\] celery\.\S+: .* ready\.", worker.output
        )


def test_filter(
    import_snippets: Callable[..., ModuleType],
    eager: Configurator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The filter gives each record the fields, which are Celery's outside of tasks."""
    handler = BufferingHandler(10)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    import_snippets(FILTER).name_tasks()
    log = logging.getLogger(__name__)
    eager.register_task(lambda request: log.warning("in"), name="it")
    eager.make_celery_app().tasks["it"].apply(task_id="mine")
    log.warning("out")
    found = [(r.msg, r.task_name, r.task_id) for r in handler.buffer]
    assert ("in", "it", "mine") in found
    assert found[-1] == ("out", "???", "???")
