"""The snippets about queues, with two workers of one ini."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from celery.signals import before_task_publish
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare
from support import start

PAGE = Document("docs/howto/queues.md")
INI = PAGE.block("Two workers in one ini", "ini")
WORKERS, (PTASKS,) = (
    text.splitlines() for text in PAGE.blocks("sh", "Two workers in one ini")
)
OPTIONS = PAGE.block("Other ways to choose a queue", "python")
APP = """
from pyramid.config import Configurator
from pyramid_tasks import task


@task(name="myapp.tasks.send_mail")
def send_mail(request): ...


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan("myapp")
        return config.make_wsgi_app()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myapp.py").write_text(APP)
    ini = INI.replace("egg:myapp", "call:myapp:main")
    (tmp_path / "config.ini").write_text(ini.replace("redis://localhost", "memory://"))
    return tmp_path


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (WORKERS[0], ["celery           exchange", "concurrency: 4"]),
        (WORKERS[1], ["emails           exchange", "concurrency: 1"]),
        (PTASKS, ["myapp.tasks.send_mail", "emails"]),
    ],
)
def test_command(command: str, expected: list[str], folder: Path) -> None:
    """Each worker reads its queue, and the task is in the list with its own."""
    options = {"cwd": folder, "PYTHONPATH": str(folder)}
    with start(*command.split(), **options) as process:
        for text in expected:
            process.wait_for(text)


def test_options(import_snippets: Callable[..., ModuleType]) -> None:
    """The call wins over the task, and the task wins over a route."""
    snippets = import_snippets(OPTIONS)
    routes = {"snippets.send_mail": {"queue": "of the ini"}}
    settings = {"celery.broker_url": "memory://", "celery.task_routes": routes}
    queues: list[str] = []

    def note(routing_key: str = "", **_: object) -> None:
        queues.append(routing_key)

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
    before_task_publish.connect(note)
    with prepare(registry=config.registry) as env:
        snippets.remind(env["request"])
    assert queues == ["emails", "urgent"]
