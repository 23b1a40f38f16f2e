"""Every command and every snippet of the README does what it says."""

from __future__ import annotations

import importlib
import json
import re
import socket
import subprocess
import sys
import urllib.request
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from celery import Celery
from documents import Document
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from sqlalchemy import create_engine
from support import BIN, environment, free_port, run, start, wait_until

from pyramid_tasks.contrib.outbox_place import get_outbox
from pyramid_tasks.forking import leave_to_parent
from pyramid_tasks.registry import get_tasks

README = Document("README.md")
block = README.block


def blocks(language: str) -> list[tuple[str, str]]:
    return [(b.heading, b.text) for b in README.all if b.language == language]


@pytest.mark.acceptance
def test_quickstart(tmp_path: Path) -> None:
    """The quickstart, pasted into a shell in an empty folder, answers 5."""
    port = free_port()
    script = block("Quickstart", "sh").replace("6543", str(port))
    # What a reader has only just installed is what is under test here.
    install = re.compile(r"^(python3 -m venv|\.venv/bin/pip install).*\n", re.MULTILINE)
    assert len(install.findall(script)) == 2
    script = install.sub("", script).replace(".venv/bin", str(BIN))
    shell = subprocess.Popen(
        ["bash", "-c", f"{script}\nwait"],
        cwd=tmp_path,
        env=environment(),
        stdout=(tmp_path / "log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def listens() -> bool:
        assert shell.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("localhost", port)) == 0

    def get(url: str) -> dict[str, object]:
        with urllib.request.urlopen(url, timeout=30) as response:
            return dict(json.load(response))

    try:
        wait_until(listens)
        curl = block("Quickstart", "sh", 1).replace("6543", str(port))
        command = re.fullmatch(r"curl '(.*)'\n", curl)
        task_id = get(command[1])["task"]
        url = f"http://localhost:{port}/result/{task_id}"
        answer = wait_until(lambda: (found := get(url))["state"] == "SUCCESS" and found)
        assert answer == {"state": "SUCCESS", "result": 5}
        assert json.dumps(answer) in README.text
    finally:
        # The jobs of the shell and not their children, as `kill $(jobs -p)` does.
        subprocess.run(["pkill", "-TERM", "-P", str(shell.pid)], check=False)
        shell.wait(60)


def write_quickstart(folder: Path) -> Path:
    """Write the application of the quickstart; return its ini, called config.ini."""
    script = block("Quickstart", "sh")
    for name in ("hello.py", "hello.ini"):
        text = re.search(rf"cat > {name} <<'END'\n(.*?)\nEND", script, re.DOTALL)[1]
        (folder / name.replace("hello.ini", "config.ini")).write_text(text)
    for name in ("messages", "control", "results"):
        (folder / name).mkdir()
    return folder / "config.ini"


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "command",
    sorted(
        {
            line
            for _, text in blocks("")
            for line in text.splitlines()
            if line.startswith("celery -A pyramid_tasks.loaders ")
        }
    ),
)
def test_celery_command(command: str, tmp_path: Path) -> None:
    """Every form of the celery command loads the application and starts its work."""
    write_quickstart(tmp_path)
    program, *arguments = command.split()
    expected = {
        "worker": "> app:         hello",
        "beat": "beat",
        "inspect": "No nodes replied",
        # That of an application without one.
        "outbox": "The application has no outbox",
    }
    (name,) = set(arguments) & set(expected)
    path = {"PYTHONPATH": str(tmp_path)}
    with start(program, *arguments, cwd=tmp_path, **path) as process:
        wait_until(
            lambda: expected[name] in process.output, what=lambda: process.output
        )


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], r"^hello\.add +hello\.add +celery +hello\.py:\d+$"),
        (["--schedule"], r"^nightly +hello\.add +0 3 \* \* \* +\S+ +config\.ini:\d+$"),
        (["--check"], r"^No problems found\.$"),
    ],
)
def test_ptasks_command(options: list[str], expected: str, tmp_path: Path) -> None:
    """Each form of ptasks looks at the application of the quickstart."""
    command = " ".join(["ptasks", *options, "config.ini"])
    assert command in block("Looking at an application", "").splitlines()
    with write_quickstart(tmp_path).open("a") as ini:
        ini.write("\n[celerybeat:nightly]\ntask = hello.add\nargs = [1, 2]\n")
        ini.write("schedule = 0 3 * * *\n")
    done = run(*command.split(), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(expected, done.stdout, re.MULTILINE), done.stdout


def test_application_from_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of the second way to run a worker makes a Celery application."""
    code = block("Running a worker", "python")
    monkeypatch.setitem(sys.modules, "myproject", sys.modules[__name__])
    namespace: dict[str, object] = {}
    exec(compile(code, "celery.py", "exec"), namespace)
    assert isinstance(namespace["app"], Celery)
    assert namespace["app"].conf.broker_url == "redis://"


def test_settings_are_read_as_they_say(tmp_path: Path) -> None:
    """The settings of the README are all known, and coerced."""
    from plaster import get_settings

    from pyramid_tasks.settings import extract_celery_settings

    ini = tmp_path / "config.ini"
    ini.write_text(block("Settings", "ini"))
    assert extract_celery_settings(get_settings(str(ini), "app:main")) == {
        "broker_url": "redis://localhost/1",
        "task_always_eager": False,
        "result_expires": 3600.0,
        "imports": ["myapp.tasks", "myapp.reports"],
        "task_routes": {"myapp.tasks.resize": {"queue": "images"}},
        "broker_transport_options": {
            "visibility_timeout": 7200,
            "queue_name_prefix": "123",
        },
    }


@pytest.fixture
def snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the snippets about tasks, one after the other, as a module."""
    headings = ["Tasks", "Context", "Types", "Events", "Results"]
    headings += ["Chains, groups and chords", "Transactions", "Schedules"]
    code = [text for heading, text in blocks("python") if heading in headings]
    assert len(code) >= len(headings)
    (tmp_path / "snippets.py").write_text("\n".join(code))
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "reports.py").write_text("def build(request): ...")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("snippets", "myapp", "myapp.reports"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("snippets")


def test_snippets_about_tasks(snippets: ModuleType) -> None:
    """What the snippets register is what they defer."""
    settings = {
        "celery.broker_url": "memory://",
        "celery.result_backend": "cache+memory://",
        "mail.host": "localhost",
        "support.mail": "support@example.com",
    }
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.include(snippets.includeme)
        config.include(snippets.add_timing)
        config.include(snippets.add_schedules)
    app = get_tasks(config.registry).app
    assert len(app.conf.beat_schedule) == 3
    assert app.tasks["snippets.send_mail"].apply(["someone@example.com"]).successful()
    with prepare(registry=config.registry) as env:
        request = env["request"]
        snippets.view(request)
        with pytest.raises(TypeError, match="missing .* argument: 'word'"):
            snippets.typed_view(request, request)
        request.matchdict = snippets.start(request)
        assert snippets.status(request) == {"state": "PENDING", "done": False}


def test_snippet_about_events(
    snippets: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The subscriber of the snippet tells of a task that fails."""
    settings = {
        "celery.broker_url": "memory://",
        "mail.host": "localhost",
        "support.mail": "support@example.com",
    }

    def fail(request: object) -> None:
        raise ValueError("no")

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.register_task(fail, name="fail")
    get_tasks(config.registry).app.tasks["fail"].apply()
    assert capsys.readouterr().out == (
        "To support@example.com: fail: ValueError('no')\n"
    )


def test_snippet_about_forking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the snippet hands over is what a forked process leaves to its parent."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    pool = engine.pool
    monkeypatch.setitem(sys.modules, "myapp.db", SimpleNamespace(engine=engine))
    (tmp_path / "snippet.py").write_text(block("Forking", "python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "snippet", raising=False)
    snippet = importlib.import_module("snippet")
    snippet.make_http_session = lambda: "new"
    with Configurator() as config:
        config.include("pyramid_tasks")
        config.include(snippet.be_fork_safe)
    assert leave_to_parent(config.registry) == [pool]
    assert config.registry["http"] == "new"


def test_snippets_about_context(snippets: ModuleType) -> None:
    """A task knows what the ini and the snippet say it does."""
    ini = ConfigParser(interpolation=None)
    ini.read_string(block("Context", "ini"))
    settings = dict(ini["app:main"]) | {"celery.task_always_eager": True}
    names = ("application_url", "locale_name", "deferred_by", "tenant")

    def know(request: Request) -> list[object]:
        return [getattr(request, name, None) for name in names]

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.include(snippets.add_tenant)
        config.testing_securitypolicy("anna")
        config.register_task(know, name="know")
    environ = {"HTTP_HOST": "other.example", "HTTP_X_TENANT": "acme"}
    with prepare(Request.blank("/?_LOCALE_=de", environ), config.registry) as env:
        found = env["request"].defer_task("know").get()
        assert found == ["http://other.example", "de", "anna", "acme"]
        headers = {"environ": {"HTTP_HOST": "example.com"}}
        result = env["request"].defer_task_with_options("know", headers=headers)
        assert result.get()[0] == "http://example.com"
    app = get_tasks(config.registry).app
    found = app.tasks["know"].apply().get()
    assert found == ["https://example.com/app", "en", None, None]


def test_snippets_about_canvases(snippets: ModuleType) -> None:
    """The chord has the result it should have, and each call is one task."""
    settings = {
        "celery.task_always_eager": True,
        "celery.task_store_eager_result": True,
        "celery.result_backend": "cache+memory://",
        "support.mail": "support@example.com",
    }
    calls = []
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        config.include(snippets.includeme)
        config.add_subscriber(calls.append, "pyramid_tasks.BeforeDeferTask")
    with prepare(registry=config.registry) as env:
        request = env["request"]
        result = request.get_task_result(snippets.count_all(request, ["a b", "c"]))
        assert result.get(timeout=1) == 4
        assert {call.task_name.rpartition(".")[2] for call in calls} == {
            "count_words",
            "add_up",
            "report_error",
            "increment",
        }
        assert len(snippets.resize_all(request, [1, 2, 3])) == 3


def test_snippets_about_transactions(snippets: ModuleType) -> None:
    """The task of the snippet runs when its transaction commits, in its own."""
    pytest.importorskip("pyramid_tm")
    store: dict[int, SimpleNamespace] = {}
    session = SimpleNamespace(
        add=lambda order: store.update({order.id: order}),
        add_all=store.update,
        flush=lambda: None,
        get=lambda _, key: store[key],
    )
    snippets.read_chunks = lambda path: [{path: None}]
    order = SimpleNamespace(id=7)
    ini = block("Transactions", "ini")
    includes = re.search(r"pyramid.includes =(.*)", ini, re.DOTALL)[1]
    settings = {"pyramid.includes": includes, "celery.task_always_eager": True}
    with Configurator(settings=settings) as config:
        config.scan(snippets)
        config.include(snippets.includeme)
        config.add_request_method(lambda _: session, "dbsession", property=True)
    snippets.Order = lambda *_: order
    with prepare(registry=config.registry) as env, env["request"].tm:
        snippets.create_order(env["request"])
        assert not hasattr(order, "shipped")
    assert order.shipped
    assert order.task_id
    app = get_tasks(config.registry).app
    app.tasks["snippets.import_in_chunks"].apply(["chunk"]).get()
    assert "chunk" in store


def test_snippets_about_the_outbox(snippets: ModuleType) -> None:
    """The session can have another name, and the table is in the metadata."""
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sqlalchemy")
    settings = {"pyramid_tasks.delivery": "outbox", "pyramid.includes": "pyramid_tm"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks.contrib.pyramid_tm")
        config.include(snippets.add_outbox)
    assert get_outbox(config.registry).session == "db"
    assert "pyramid_tasks_outbox" in snippets.target_metadata().tables


# What a process does with the snippets about tracing.
TRACED = """
import sentry_sdk
from pyramid.config import Configurator
from pyramid.interfaces import ITweens
from snippets import *
from webtest import TestApp


def view(request):
    return request.defer_task_with_options("tell", delivery="immediate").get()

settings = {
    "celery.task_always_eager": True,
    "pyramid.includes": "pyramid_tm pyramid_tasks.contrib.pyramid_tm",
    "sentry.dsn": "",
}
with Configurator(settings=settings) as config:
    config.include(add_opentelemetry)
    config.include(add_trace_context)
    config.include(add_sentry)
    config.include(add_request_id)
    config.register_task(lambda request: request.request_id, name="tell")
    config.add_view(view, renderer="string")
    app = TestApp(config.make_wsgi_app())
tweens = [name for name, _ in config.registry.getUtility(ITweens).implicit()]
trace, tm = "trace_tween_factory", "pyramid_tm.tm_tween_factory"
assert tweens[0].endswith(trace) and tm in tweens, tweens
assert {"celery", "pyramid"} <= set(sentry_sdk.get_client().integrations)
assert app.get("/", headers={"X-Request-ID": "17"}).text == "17"
"""


@pytest.mark.acceptance
def test_snippets_about_tracing(tmp_path: Path) -> None:
    """They make one trace, around the transaction; Sentry and the id are there too."""
    pytest.importorskip("opentelemetry.instrumentation.celery")
    pytest.importorskip("opentelemetry.instrumentation.pyramid")
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sentry_sdk")
    code = [text for heading, text in blocks("python") if heading == "Tracing"]
    assert len(code) == 4
    (tmp_path / "snippets.py").write_text("\n".join(code))
    (tmp_path / "traced.py").write_text(TRACED)
    done = run("python", "traced.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'"name": "(?:run/tell|GET /?)"', done.stdout)) == 2
    assert len(set(re.findall(r'"trace_id": "(\w+)"', done.stdout))) == 1


# What the snippets about testing test, as the cookiecutter lays it out.
TASKS = """
from pyramid_tasks import task


@task
def create_thumbnail(request, name, size=100):
    path = f"{size}/{name}"
    request.defer_task(send_mail, f"{path} is ready")
    return path


@task
def send_mail(request, text): ...
"""
CONFTEST = """
import pytest
import transaction
from myapp import tasks
from pyramid.config import Configurator
from pyramid.scripting import prepare
from webtest import TestApp


def upload(request):
    args = [request.params["name"], 200]
    request.defer_task_with_options(tasks.create_thumbnail, args, countdown=5)
    return ""


@pytest.fixture(scope="session")
def app():
    settings = {"celery.broker_url": "redis://localhost:1/0"}
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    with Configurator(settings=settings) as config:
        for name in "pyramid_tm", "pyramid_tasks.contrib.pyramid_tm":
            config.include(name)
        config.scan(tasks)
        config.add_route("photos", "/photos")
        config.add_view(upload, route_name="photos", renderer="string")
        return config.make_wsgi_app()


@pytest.fixture
def testapp(app):
    return TestApp(app)


@pytest.fixture
def app_request(app):
    with prepare(registry=app.registry) as env:
        yield env["request"]
"""
COOKIECUTTER = """

@pytest.fixture
def tm():
    tm = transaction.TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    yield tm
    tm.abort()


@pytest.fixture
def dbsession(): ...


@pytest.fixture
def testapp(app, tm):
    environ = {"tm.active": True, "tm.manager": tm}
    return TestApp(app, extra_environ=environ)
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("cookiecutter", [False, True])
def test_snippets_about_testing(tmp_path: Path, cookiecutter: bool) -> None:  # noqa: FBT001
    """The tests of the README pass, and with the fixtures of the cookiecutter too."""
    pytest.importorskip("pyramid_tm")
    *snippets, fixture = [text for name, text in blocks("python") if name == "Testing"]
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "tasks.py").write_text(TASKS)
    for number, text in enumerate(snippets):
        (tmp_path / f"test_{number}.py").write_text(text)
    more = COOKIECUTTER + fixture if cookiecutter else ""
    (tmp_path / "conftest.py").write_text(CONFTEST + more)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = run("pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout


def test_ini_snippets_can_be_parsed() -> None:
    """No ini of the README has a mistake that a parser would find."""
    snippets = blocks("ini")
    assert len(snippets) >= 6
    for _, text in snippets:
        ConfigParser(interpolation=None, strict=True).read_string(text)
