"""The snippets about progress, in a database and in a result backend."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare

from pyramid_tasks.testing import capture

if TYPE_CHECKING:
    from browser import Browser

pytest.importorskip("pyramid_tm")

PAGE = Document("docs/howto/progress.md")
SNIPPETS = PAGE.blocks("python")
SCRIPT = PAGE.block("In the page", "javascript")


class Import:
    """Stands for the row of an import: what it was told, and when."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.history: list[float] = []

    def add_rows(self, rows: list[str]) -> None:
        self.rows += rows

    done = property(
        lambda self: self.history[-1], lambda self, value: self.history.append(value)
    )

    def get(self, _class: Any, _id: Any) -> Import:
        return self


@pytest.fixture
def config(import_snippets: Callable[..., ModuleType]) -> Configurator:
    snippets = import_snippets(*SNIPPETS, Import=Import)
    settings = {
        "celery.broker_url": "memory://",
        "celery.result_backend": "cache+memory://",
        "tm.manager_hook": "pyramid_tm.explicit_manager",
    }
    record = Import()
    with Configurator(settings=settings, package=snippets) as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.add_request_method(lambda _: record, "dbsession", property=True)
        config.scan(snippets)
    return config


def test_database(config: Configurator) -> None:
    """Each chunk is committed with the progress after it."""
    with prepare(registry=config.registry) as env, capture(config.registry) as deferred:
        request = env["request"]
        request.matchdict = {"id": 1}
        request.defer_task(config.package.import_rows, 1, [["a", "b"], ["c"]])
        deferred.run()
        assert request.dbsession.history == [0.5, 1]
        assert config.package.show_import(request) == {"done": 1}


def test_result_backend(config: Configurator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view shows what the task says, and at last that it has succeeded."""
    snippets = config.package
    shown = []
    with prepare(registry=config.registry) as env, capture(config.registry) as deferred:
        request = env["request"]
        task = request.defer_task(snippets.count_words, ["a b", "c"])
        request.matchdict = {"id": task.id}
        backend = task.app.backend
        store = backend.store_result

        def store_and_show(*args: Any, **kwargs: Any) -> Any:
            stored = store(*args, **kwargs)
            shown.append(snippets.show_count(request))
            return stored

        monkeypatch.setattr(backend, "store_result", store_and_show)
        assert deferred.run() == [3]
        assert shown[:2] == [
            {"state": "PROGRESS", "done": 1, "of": 2},
            {"state": "PROGRESS", "done": 2, "of": 2},
        ]
        assert snippets.show_count(request) == {"state": "SUCCESS"}


@pytest.mark.acceptance
def test_page(browser: Browser) -> None:
    """The page asks until the state is final, and no longer."""
    answers = [{"state": "PROGRESS", "done": 1}, {"state": "SUCCESS"}]
    page = browser.open("about:blank")
    page.clock.install()
    headers = {"Access-Control-Allow-Origin": "*"}
    page.route(
        "http://example.com/*",
        lambda route: route.fulfill(json=answers.pop(0), headers=headers),
    )
    page.add_script_tag(content=SCRIPT)
    page.evaluate("showProgress('http://example.com/7', document.body)")
    page.wait_for_function("document.body.textContent.includes('PROGRESS')")
    page.clock.run_for(1000)
    page.wait_for_function("document.body.textContent.includes('SUCCESS')")
    page.clock.run_for(10_000)
    assert answers == []
