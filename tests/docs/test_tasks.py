"""The snippets about tasks, their results and their derivers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare

from pyramid_tasks.registry import get_tasks

SNIPPETS = Document("docs/howto/tasks.md").blocks("python")


@pytest.fixture
def config(
    import_snippets: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Configurator:
    """Return the configuration of an application with the snippets in it."""
    reports = SimpleNamespace(build=lambda request: "built")
    monkeypatch.setitem(sys.modules, "myapp", SimpleNamespace(reports=reports))
    monkeypatch.setitem(sys.modules, "myapp.reports", reports)
    snippets = import_snippets(*SNIPPETS)
    settings = {
        "celery.broker_url": "memory://",
        "celery.result_backend": "cache+memory://",
        "mail.host": "localhost",
    }
    with Configurator(settings=settings, package=snippets) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.include(snippets.includeme)
        config.include(snippets.add_timing)
    return config


def test_deferring(config: Configurator) -> None:
    """What the snippets register is what they defer, and find again."""
    with prepare(registry=config.registry) as env:
        request = env["request"]
        config.package.view(request)
        with pytest.raises(TypeError, match="missing .* argument: 'width'"):
            request.defer_task(config.package.resize, 17)
        request.matchdict = config.package.start(request)
        assert config.package.status(request) == {"state": "PENDING", "done": False}


def test_running(config: Configurator, capsys: pytest.CaptureFixture[str]) -> None:
    """The tasks run, and the deriver prints the time of each."""
    tasks = get_tasks(config.registry).app.tasks
    assert tasks["snippets.send_mail"].apply(["someone@example.com"]).successful()
    assert tasks["report"].apply().get() == "built"
    assert tasks["increment"].apply([1]).get() == 2
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["snippets.send_mail", "report", "increment"]
