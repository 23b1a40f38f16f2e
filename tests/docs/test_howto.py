"""The pages with recipes whose snippets are one small application each."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
from importlib import import_module
from logging.handlers import BufferingHandler
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import before_task_publish
from documents import (
    ConfigureSnippets,
    Document,
    ImportSnippets,
    WriteApp,
    app_settings,
)
from pyramid.request import Request
from pyramid.scripting import prepare
from sqlalchemy import create_engine
from support import wait_until

import pyramid_tasks
from pyramid_tasks import events
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import capture, start_worker
from pyramid_tasks.worker.forking import leave_to_parent

if TYPE_CHECKING:
    from browser import Browser
    from pyramid.config import Configurator

# Tasks

TASKS = Document("docs/howto/tasks.md").blocks("python")


def test_tasks(
    configure_snippets: ConfigureSnippets,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tasks are registered, deferred, found again and run; the deriver prints times."""
    reports = SimpleNamespace(build=lambda request: "built")
    monkeypatch.setitem(sys.modules, "myapp", SimpleNamespace(reports=reports))
    monkeypatch.setitem(sys.modules, "myapp.reports", reports)
    settings = {"mail.host": "localhost"}
    config = configure_snippets(*TASKS, settings=settings, includes=". .add_timing")
    snippets = config.package
    with prepare(registry=config.registry) as env:
        request = env["request"]
        snippets.view(request)
        with pytest.raises(TypeError, match="missing .* argument: 'width'"):
            request.defer_task(snippets.resize, 17)
        request.matchdict = snippets.start(request)
        assert snippets.status(request) == {"state": "PENDING", "done": False}
    tasks = get_tasks(config.registry).app.tasks
    assert tasks["snippets.send_mail"].apply(["someone@example.com"]).successful()
    assert tasks["report"].apply().get() == "built"
    assert tasks["increment"].apply([1]).get() == 2
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["snippets.send_mail", "report", "increment"]


# Async tasks

ASYNC = Document("docs/howto/async.md").blocks("python")


def test_async(configure_snippets: ConfigureSnippets) -> None:
    """The tasks connect, at once and one by one, also where a loop runs."""
    config = configure_snippets(*ASYNC)
    snippets = config.package
    server = socket.create_server(("localhost", 0))
    snippets.check_site.__defaults__ = (server.getsockname()[1],)
    with server, prepare(registry=config.registry) as env:
        request = env["request"]
        with capture(config.registry) as deferred:
            snippets.check_view(request)
            sites = ["example.com", "example.org"]
            deferred.assert_deferred(snippets.check_sites, sites)
        with capture(config.registry) as deferred:
            request.defer_task(snippets.check_sites, ["localhost", "nowhere.invalid"])
            asyncio.run(snippets.check_later(request, "localhost"))
            assert deferred.run() == [["localhost"], "reachable"]


# Canvases

CANVASES = Document("docs/howto/canvases.md").blocks("python")


def test_canvases(configure_snippets: ConfigureSnippets) -> None:
    """The chord has the result it should have, and each call is one task."""
    eager = {"task_always_eager": True, "task_store_eager_result": True}
    settings = {f"celery.{key}": value for key, value in eager.items()}
    config = configure_snippets(*CANVASES, settings=settings)
    snippets = config.package
    calls: list[Any] = []
    config.add_subscriber(calls.append, "pyramid_tasks.BeforeDeferTask")
    config.commit()
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


# The request that deferred a task

CONTEXT = Document("docs/howto/context.md")
CONTEXT_INI = CONTEXT.block("Tell tasks about the request", "ini")
TENANT = CONTEXT.block("A context of your own", "python")


def test_context(configure_snippets: ConfigureSnippets) -> None:
    """A task knows what the ini and the snippet say it does."""
    names = ("application_url", "locale_name", "deferred_by", "tenant")

    def know(request: Request) -> list[object]:
        return [getattr(request, name, None) for name in names]

    settings = app_settings(CONTEXT_INI) | {"celery.task_always_eager": True}
    config = configure_snippets(TENANT, settings=settings, includes=".add_tenant")
    config.testing_securitypolicy("anna")
    config.register_task(know, name="know")
    config.commit()
    environ = {"HTTP_HOST": "other.example", "HTTP_X_TENANT": "acme"}
    with prepare(Request.blank("/?_LOCALE_=de", environ), config.registry) as env:
        found = env["request"].defer_task("know").get()
        assert found == ["http://other.example", "de", "anna", "acme"]
        headers = {"environ": {"HTTP_HOST": "example.com"}}
        result = env["request"].defer_task_with_options("know", headers=headers)
        assert result.get()[0] == "http://example.com"
    found = get_tasks(config.registry).app.tasks["know"].apply().get()
    assert found == ["https://example.com/app", "en", None, None]


# Events

SUBSCRIBER = Document("docs/howto/events.md").block(
    "React to events of tasks and processes", "python"
)


def test_subscriber(
    configure_snippets: ConfigureSnippets, capsys: pytest.CaptureFixture[str]
) -> None:
    """The subscriber of the snippet tells of a task that fails."""
    settings = {"support.mail": "support@example.com"}
    config = configure_snippets(SUBSCRIBER, settings=settings)
    config.register_task(Mock(side_effect=ValueError("no")), name="fail")
    config.commit()
    get_tasks(config.registry).app.tasks["fail"].apply()
    assert capsys.readouterr().out == "To support@example.com: fail: ValueError('no')\n"


@pytest.mark.parametrize("name", ["docs/howto/events.md", "docs/reference/events.md"])
def test_all_events(name: str) -> None:
    """A page about events has them all, and no other."""
    listed = r"^(?:\| `|\.\. autoclass:: )(\w+)"
    named = re.findall(listed, Document(name).text, re.MULTILINE)
    public = {each for each in pyramid_tasks.__all__ if hasattr(events, each)}
    assert set(named) == public


# Retries, time limits and cancelling

RETRIES = Document("docs/howto/retries.md").blocks("python")


@pytest.fixture
def working(configure_snippets: ConfigureSnippets) -> Configurator:
    """Return an application whose requests do the work of the snippets."""
    config = configure_snippets(*RETRIES)
    for name, results in {
        "download": [OSError, OSError, "page"],
        "payment_state": ["pending", "paid"],
        "build_report": [SoftTimeLimitExceeded],
    }.items():
        work = Mock(side_effect=results)
        config.add_request_method(lambda _, *args, work=work: work(*args), name)
    config.commit()
    return config


def test_retries_and_limits(working: Configurator) -> None:
    """A task runs until it succeeds, and catches the limit of its time."""
    snippets, registry = working.package, working.registry
    with prepare(registry=registry) as env, capture(registry) as deferred:
        request = env["request"]
        request.defer_task(snippets.fetch, "https://example.com")
        request.defer_task(snippets.check_payment, 7)
        request.defer_task(snippets.build_report, 7)
        assert deferred.run() == ["page", "paid", "too long"]


@pytest.mark.acceptance
def test_cancel(working: Configurator) -> None:
    """A task that is cancelled is not run."""
    snippets, registry = working.package, working.registry
    with prepare(registry=registry) as env, start_worker(registry):
        request = env["request"]
        task_id = snippets.start_report(request)["task"]
        request.matchdict = {"id": task_id}
        assert snippets.cancel_report(request) == {"cancelled": task_id}
        result = request.defer_task(snippets.fetch, "https://example.com")
        assert result.get(timeout=30) == "page"
        wait_until(lambda: request.get_task_result(task_id).state == "REVOKED")


# Forked processes

BE_FORK_SAFE = Document("docs/howto/forking.md").block(
    "What you do with one line", "python"
)


def test_forking(
    configure_snippets: ConfigureSnippets,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What the snippet hands over is what a forked process leaves to its parent."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    pool = engine.pool
    monkeypatch.setitem(sys.modules, "myapp.db", SimpleNamespace(engine=engine))
    config = configure_snippets(
        BE_FORK_SAFE, includes=".be_fork_safe", make_http_session=lambda: "new"
    )
    assert leave_to_parent(config.registry) == [pool]
    assert config.registry["http"] == "new"


# Logging

FILTER = Document("docs/howto/logging.md").block("In Python", "python")


def test_filter(
    import_snippets: ImportSnippets,
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


# Mail

MAIL = Document("docs/howto/mail.md")
MAIL_INI, INVOICE, TEMPLATE = (
    MAIL.block("Send mail from a task, with templates", each)
    for each in ("ini", "python", "jinja")
)
ORDER = """

def includeme(config):
    config.add_route("order", "/orders/{id}")
"""


def test_mail(
    write_app: WriteApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The mail of the task has a link to the site that the view was asked on."""
    pytest.importorskip("pyramid_mailer")
    write_app(INVOICE + ORDER, MAIL_INI)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "invoice.jinja2").write_text(TEMPLATE)
    settings = app_settings(MAIL_INI.replace("pyramid_mailer", "pyramid_mailer.debug"))
    settings["pyramid.includes"] += " myapp"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # pyramid_jinja2 looks for the module that makes the Configurator.
    monkeypatch.delitem(sys.modules, "myapp", raising=False)
    myapp = import_module("myapp")
    registry = myapp.main({}, **settings).registry
    request = Request.blank("/?address=anna@example.com", base_url="https://a.example")
    with prepare(request, registry), capture(registry) as deferred:
        with request.tm:
            assert myapp.create_order(request) == {"order": 7}
        deferred.run()
    (mail,) = (tmp_path / "mail").iterdir()
    assert "To: anna@example.com" in mail.read_text()
    assert "https://a.example/orders/7" in mail.read_text()


# Progress

PROGRESS = Document("docs/howto/progress.md")
PROGRESS_CODE = PROGRESS.blocks("python")
SCRIPT = PROGRESS.block("In the page", "javascript")


class Import:
    """Stands for the row of an import, and keeps what it was told."""

    def __init__(self) -> None:
        self.history: list[float] = []

    def add_rows(self, rows: list[str]) -> None: ...

    done = property(
        lambda self: self.history[-1], lambda self, value: self.history.append(value)
    )

    def get(self, _class: Any, _id: Any) -> Import:
        return self


@pytest.fixture
def importing(configure_snippets: ConfigureSnippets) -> Configurator:
    """Return an application whose database has one import."""
    pytest.importorskip("pyramid_tm")
    includes = "pyramid_tm pyramid_tasks.contrib.pyramid_tm"
    settings = {"tm.manager_hook": "pyramid_tm.explicit_manager"}
    config = configure_snippets(
        *PROGRESS_CODE, includes=includes, settings=settings, Import=Import
    )
    record = Import()
    config.add_request_method(lambda _: record, "dbsession", property=True)
    config.commit()
    return config


def test_progress_in_database(importing: Configurator) -> None:
    """Each chunk is committed with the progress after it."""
    snippets, registry = importing.package, importing.registry
    with prepare(registry=registry) as env, capture(registry) as deferred:
        request = env["request"]
        request.matchdict = {"id": 1}
        request.defer_task(snippets.import_rows, 1, [["a", "b"], ["c"]])
        deferred.run()
        assert request.dbsession.history == [0.5, 1]
        assert snippets.show_import(request) == {"done": 1}


def test_progress_in_result_backend(
    importing: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view shows what the task says, and at last that it has succeeded."""
    snippets, registry = importing.package, importing.registry
    shown = []
    with prepare(registry=registry) as env, capture(registry) as deferred:
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
        running = {"state": "PROGRESS", "of": 2}
        assert shown[:2] == [running | {"done": 1}, running | {"done": 2}]
        assert snippets.show_count(request) == {"state": "SUCCESS"}


@pytest.mark.acceptance
def test_progress_in_page(browser: Browser) -> None:
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


# Queues: the workers of the page are in test_howto_processes.py

QUEUE_OPTIONS = Document("docs/howto/queues.md").block(
    "Other ways to choose a queue", "python"
)


def test_queue_options(configure_snippets: ConfigureSnippets) -> None:
    """The call wins over the task, and the task wins over a route."""
    routes = {"snippets.send_mail": {"queue": "of the ini"}}
    config = configure_snippets(QUEUE_OPTIONS, settings={"celery.task_routes": routes})
    queues: list[str] = []

    def note(routing_key: str = "", **_: object) -> None:
        queues.append(routing_key)

    before_task_publish.connect(note)
    with prepare(registry=config.registry) as env:
        config.package.remind(env["request"])
    assert queues == ["emails", "urgent"]


# Schedules: those of the ini are listed in test_commands.py

SCHEDULES = Document("docs/howto/schedules.md").block("In the code", "python")


def test_schedules_in_the_code(configure_snippets: ConfigureSnippets) -> None:
    """Each call of the snippet is an entry of beat."""
    config = configure_snippets(SCHEDULES, includes=".add_schedules")
    schedule = get_tasks(config.registry).app.conf.beat_schedule
    tasks = [entry["task"] for entry in schedule.values()]
    assert tasks == ["report", "snippets.resize", "report"]
    assert schedule["often"]["options"] == {"expires": 10}


# Types: test_packaging.py runs mypy over the snippet

TYPES = Document("docs/howto/types.md").block("Check types", "python")


def test_types(configure_snippets: ConfigureSnippets) -> None:
    """What type checkers are to find is an error when it runs, too."""
    config = configure_snippets(TYPES)
    config.set_request_factory(config.package.AppRequest)
    config.commit()
    missing = pytest.raises(TypeError, match="missing .* argument: 'word'")
    with prepare(registry=config.registry) as env, missing:
        config.package.typed_view(env["request"], env["request"])
