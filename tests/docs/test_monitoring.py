"""The commands, the pages and the traces of the page on monitoring show the tasks."""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documents import Document, WriteApp
from support import QUICK, free_port, run, start, start_worker, wait_until

PAGE = Document("docs/howto/monitoring.md")
COMMANDS = PAGE.block("A quick look", "sh").splitlines()
INI, EVENTS = (PAGE.block("Events", each) for each in ("ini", "sh"))
FLOWER = PAGE.block("Flower", "sh")
TRACING = PAGE.blocks("python", "OpenTelemetry", "Sentry", "An id of your own")

pytestmark = pytest.mark.acceptance

MONITORED = """
import time
from pathlib import Path

from pyramid_tasks import task


@task
def wait(request, path):
    while not Path(path).exists():
        time.sleep(0.02)
    return path
"""


@pytest.fixture
def monitored(
    write_app: WriteApp, redis_queue: dict[str, str], tmp_path: Path
) -> Iterator[Any]:
    """A worker of the page's ini, which runs one task, and keeps others."""
    ini = INI.replace("[celery:main]\n", "[celery:main]\nworker_concurrency = 1\n")
    app = write_app(MONITORED, ini, redis_queue)
    go = tmp_path / "go"

    def defer(*options: str) -> str:
        call = ("celery", "--ini", "config.ini", "call", "myapp.wait")
        done = run(*call, f'--args=["{go}"]', *options, **app)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with start_worker("config.ini", "-n", "mine@%h", *QUICK[:2], **app):
        yield SimpleNamespace(app=app, defer=defer, go=go)
        go.touch()


def test_quick_look(monitored: Any) -> None:
    """Each command says what the page has it say."""
    active, reserved = monitored.defer(), monitored.defer()
    scheduled = monitored.defer("--countdown=1000")
    expected = {
        "status": lambda said: re.search(r"mine@.*: .*OK", said),
        "active": lambda said: active in said and reserved not in said,
        "reserved": lambda said: reserved in said and active not in said,
        "scheduled": lambda said: scheduled in said,
        "stats": lambda said: '"total": {' in said and '"processes": [' in said,
    }
    for line in COMMANDS:
        command = shlex.split(line)

        def said(command: list[str] = command) -> bool:
            done = run(*command, **monitored.app)
            if "outbox" in command:  # this application has none
                return "The application has no outbox" in done.stderr
            found = re.sub(r"\x1b\[\d+m", "", done.stdout)
            return bool(done.returncode == 0 and expected[command[-1]](found))

        wait_until(said, what=lambda line=line: line)


def test_events(monitored: Any) -> None:
    """What is sent and what runs is printed, with the arguments."""
    command = shlex.split(EVENTS)
    with start(*command, **monitored.app) as events:
        events.wait_for("heartbeat")  # of the worker, so that it is heard
        task_id = monitored.defer()
        monitored.go.touch()
        for state in "sent", "received", "started", "succeeded":
            events.wait_for(f"task {state}: myapp.wait({task_id})")
        assert f"args=['{monitored.go}']" in events.output


def test_flower(monitored: Any) -> None:
    """With the password it shows the worker and its tasks, with their arguments."""
    port = free_port()
    export, line = FLOWER.replace("5555", str(port)).splitlines()
    name, _, password = export.removeprefix("export ").partition("=")
    app = monitored.app | {name: password}

    def get(path: str, **headers: str) -> str:
        url = f"http://127.0.0.1:{port}{path}"
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)

    basic = f"Basic {base64.b64encode(password.encode()).decode()}"
    with start(*shlex.split(line), **app) as flower:
        flower.wait_for("Connected to")
        # When it has heard the worker, it hears of tasks too.
        wait_until(lambda: "flower_worker_online" in get("/metrics"))
        task_id = monitored.defer()
        monitored.go.touch()

        def task() -> Any:
            tasks = json.loads(get("/api/tasks", Authorization=basic))
            return tasks.get(task_id, {}).get("state") == "SUCCESS" and tasks[task_id]

        found = wait_until(task, what=lambda: flower.output)
        assert found["name"] == "myapp.wait"
        assert str(monitored.go) in found["args"]
        assert "mine@" in get("/api/workers?refresh=1", Authorization=basic)
        assert task_id in get(f"/task/{task_id}", Authorization=basic)
        for path in "/", "/workers", "/tasks", "/api/workers", "/api/tasks":
            assert get(path) == "401"
        counted = r'flower_events_total\{task="myapp.wait",type="task-succeeded"'
        assert re.search(counted, get("/metrics"))


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


def test_tracing(tmp_path: Path) -> None:
    """There is one trace, around the transaction; Sentry and the id are there too."""
    traced = (f"opentelemetry.instrumentation.{name}" for name in ("celery", "pyramid"))
    for name in (*traced, "pyramid_tm", "sentry_sdk"):
        pytest.importorskip(name)
    assert len(TRACING) == 4
    (tmp_path / "snippets.py").write_text("\n".join(TRACING))
    (tmp_path / "traced.py").write_text(TRACED)
    done = run("python", "traced.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'"name": "(?:run/tell|GET /?)"', done.stdout)) == 2
    assert len(set(re.findall(r'"trace_id": "(\w+)"', done.stdout))) == 1
