"""Every command and every snippet of the README does what it says."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from celery import Celery
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare
from quickstart import celery_commands, check_celery_command, write_quickstart
from support import (
    BIN,
    DEADLINE,
    environment,
    free_port,
    run,
    serve,
    start_worker,
    wait_until,
)
from testedapp import CONFTEST, TASKS

from pyramid_tasks.registry import get_tasks
from pyramid_tasks.settings import extract_celery_settings

README = Document("README.md")
FRONT = README.block("pyramid_tasks", "ini")
INSTALL, FRONT_COMMANDS = README.blocks("sh", "pyramid_tasks")
QUICKSTART = README.block("Quickstart", "sh")
CURL = README.block("Quickstart", "sh", 1)
COMMANDS = README.block("Running a worker", "sh")
MODULE = README.block("Running a worker", "python")
MODULE_COMMAND = README.block("Running a worker", "sh", 1)
SETTINGS = README.block("Settings", "ini")
SNIPPETS = README.blocks("python", "Tasks", "Results", "Transactions", "Schedules")
TRANSACTIONS = README.block("Transactions", "ini")
SCHEDULE = README.block("Schedules", "ini")
TEST = README.block("Testing", "python")


@pytest.mark.acceptance
def test_quickstart(tmp_path: Path) -> None:
    """The quickstart, pasted into a shell in an empty folder, answers 5."""
    port = free_port()
    script = QUICKSTART.replace("6543", str(port))
    # What a reader has only just installed is what is under test here, ...
    install = re.compile(r"^(python3 -m venv|\.venv/bin/pip install).*\n", re.MULTILINE)
    assert len(install.findall(script)) == 2
    # ... but for "make release-check", where it is to be installed alone.
    is_installed = "CHECKOUT" not in os.environ
    if is_installed:
        script = install.sub("", script).replace(".venv/bin", str(BIN))
    shell = subprocess.Popen(
        ["bash", "-c", f"{script}\nwait"],
        cwd=tmp_path,
        env=environment(PATH=f"{BIN}:{os.environ['PATH']}"),
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
        wait_until(listens, timeout=DEADLINE if is_installed else 10 * DEADLINE)
        command = re.fullmatch(r"curl '(.*)'\n", CURL.replace("6543", str(port)))
        task_id = get(command[1])["task"]
        url = f"http://localhost:{port}/result/{task_id}"
        answer = wait_until(lambda: (found := get(url))["state"] == "SUCCESS" and found)
        assert answer == {"state": "SUCCESS", "result": 5}
        assert json.dumps(answer) in README.text
    finally:
        # The jobs of the shell and not their children, as `kill $(jobs -p)` does.
        subprocess.run(["pkill", "-TERM", "-P", str(shell.pid)], check=False)
        shell.wait(60)


@pytest.mark.acceptance
@pytest.mark.parametrize("command", celery_commands(COMMANDS))
def test_celery_command(command: str, tmp_path: Path) -> None:
    """Every form of the celery command loads the application and starts its work."""
    check_celery_command(command, tmp_path)


@pytest.mark.acceptance
def test_front_page(tmp_path: Path) -> None:
    """The ini and the commands that stand first start a web process and a worker."""
    assert Document("docs/index.md").block("pyramid_tasks", "ini") == FRONT
    own = ConfigParser(interpolation=None)
    own.read(write_quickstart(tmp_path))
    # Its folder for a broker, and its application, in place of Redis and an egg.
    ini = ConfigParser(interpolation=None)
    ini.read_string(FRONT.replace("6543", str(port := free_port())))
    assert ini["app:main"].pop("celery.broker_url") == "redis://"
    ini["app:main"].update(own["app:main"])
    with (tmp_path / "config.ini").open("w") as file:
        ini.write(file)
    pserve, celery = FRONT_COMMANDS.splitlines()
    assert pserve == "pserve config.ini"
    assert celery.endswith("--ini config.ini worker")
    path = {"PYTHONPATH": str(tmp_path)}
    with (
        serve("config.ini", port, cwd=tmp_path, **path),
        start_worker("config.ini", cwd=tmp_path, **path) as worker,
    ):
        assert "concurrency: 4 (prefork)" in worker.output


def test_application_from_a_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The module of the second way to run a worker makes a Celery application."""
    monkeypatch.setitem(sys.modules, "myproject", ModuleType("myproject"))
    namespace: dict[str, object] = {}
    exec(compile(MODULE, "celery.py", "exec"), namespace)
    assert isinstance(namespace["app"], Celery)
    assert namespace["app"].conf.broker_url == "redis://"


@pytest.mark.acceptance
def test_worker_from_a_module(tmp_path: Path) -> None:
    """``celery -A`` finds the module; its command does without --ini."""
    (tmp_path / "myproject").mkdir()
    (tmp_path / "myproject" / "__init__.py").touch()
    (tmp_path / "myproject" / "celery.py").write_text(MODULE)
    command = MODULE_COMMAND.replace("worker", "report").split()
    done = run(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "transport:redis" in done.stdout, done.stderr


def test_settings_are_read_as_they_say(tmp_path: Path) -> None:
    """The settings of the README are all known, and coerced."""
    from plaster import get_settings

    ini = tmp_path / "config.ini"
    ini.write_text(SETTINGS)
    assert extract_celery_settings(get_settings(str(ini), "app:main")) == {
        "broker_url": "redis://localhost/1",
        "result_expires": 3600.0,
        "imports": ["myapp.tasks", "myapp.reports"],
        "broker_transport_options": {"visibility_timeout": 7200},
    }


def test_snippets(import_snippets: Callable[..., ModuleType], tmp_path: Path) -> None:
    """What the snippets register is what they defer, on a schedule too."""
    store: dict[int, SimpleNamespace] = {}
    session = SimpleNamespace(
        add=lambda order: store.update({order.id: order}),
        flush=lambda: None,
        get=lambda _, key: store[key],
    )
    order = SimpleNamespace(id=7, shipped=False)
    snippets = import_snippets(*SNIPPETS, Order=lambda: order)
    ini = ConfigParser(interpolation=None)
    ini.read_string(TRANSACTIONS)
    settings = dict(ini["app:main"]) | {
        "celery.task_always_eager": True,
        "celery.result_backend": "cache+memory://",
        "mail.host": "localhost",
    }
    with Configurator(settings=settings) as config:
        config.scan(snippets)
        config.include(snippets.add_schedules)
        config.add_request_method(lambda _: session, "dbsession", property=True)
    app = get_tasks(config.registry).app
    assert len(app.conf.beat_schedule) == 1
    with prepare(registry=config.registry) as env:
        request = env["request"]
        snippets.view(request)
        request.matchdict = snippets.start(request)
        assert snippets.status(request)["state"] == "PENDING"
        with request.tm:
            snippets.create_order(request)
            assert not order.shipped
        assert order.shipped


@pytest.mark.acceptance
def test_schedule(tmp_path: Path) -> None:
    """The schedule of the ini is read: the only problem is that its task is missing."""
    with write_quickstart(tmp_path).open("a") as file:
        file.write(f"\n{SCHEDULE}")
    done = run("ptasks", "-c", "config.ini", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "No task 'myapp.tasks.cleanup' is registered" in done.stdout
    assert done.stdout.endswith("\n1 problem found.\n")


@pytest.mark.acceptance
def test_test(tmp_path: Path) -> None:
    """The test of the README passes in an application as it describes."""
    pytest.importorskip("pyramid_tm")
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "tasks.py").write_text(TASKS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_upload.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = run("pytest", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout
