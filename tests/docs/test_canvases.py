"""The snippets about chains, groups, chords and many calls at once."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare

SNIPPETS = Document("docs/howto/canvases.md").blocks("python")


def test_canvases(import_snippets: Callable[..., ModuleType]) -> None:
    """The chord has the result it should have, and each call is one task."""
    snippets = import_snippets(*SNIPPETS)
    settings = {
        "celery.task_always_eager": True,
        "celery.task_store_eager_result": True,
        "celery.result_backend": "cache+memory://",
    }
    calls = []
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.add_subscriber(calls.append, "pyramid_tasks.BeforeDeferTask")
    with prepare(registry=config.registry) as env:
        request = env["request"]
        result = request.get_task_result(snippets.count_all(request, ["a b", "c"]))
        assert result.get(timeout=1) == 6
        names = {call.task_name.rpartition(".")[2] for call in calls}
        assert names == {"count_words", "add_up", "double", "report_error"}
        ids = snippets.count_each(request, ["a b", "c"])
        assert [request.get_task_result(each).get(timeout=1) for each in ids] == [2, 1]
        assert snippets.count_safely(request, "a b").get(timeout=1) == 2
        names = [call.task_name.rpartition(".")[2] for call in calls[-3:]]
        assert sorted(names) == ["count_words", "explain", "report_error"]
