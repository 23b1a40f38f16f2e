"""Every command and every snippet of the README does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import urllib.request
from configparser import ConfigParser
from importlib.metadata import metadata, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documents import ConfigureSnippets, Document, app_settings
from packaging.requirements import Requirement
from pyramid.scripting import prepare
from servers import listens
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

from pyramid_tasks.registry import get_tasks

README = Document("README.md")
FRONT = README.block("pyramid_tasks", "ini")
INSTALL, FRONT_COMMANDS = README.blocks("sh", "pyramid_tasks")
INDEX = Document("docs/index.md")
INDEX_BLOCKS = [*INDEX.blocks("ini"), *INDEX.blocks("sh")]
QUICKSTART = README.block("Quickstart", "sh")
CURL = README.block("Quickstart", "sh", 1)
MODULE = README.block("Running a worker", "python")
MODULE_COMMAND = README.block("Running a worker", "sh", 1)
SNIPPETS = README.blocks("python", "Tasks", "Results", "Transactions", "Schedules")
TRANSACTIONS = README.block("Transactions", "ini")


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

    def is_up() -> bool:
        assert shell.poll() is None, (tmp_path / "log").read_text()
        return listens(port)

    def get(url: str) -> dict[str, object]:
        with urllib.request.urlopen(url, timeout=30) as response:
            return dict(json.load(response))

    try:
        wait_until(is_up, timeout=DEADLINE if is_installed else 10 * DEADLINE)
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


def test_front_page_of_the_documentation() -> None:
    """It begins as the README does, and installs this package, with its extras."""
    assert INDEX_BLOCKS == [FRONT, INSTALL, FRONT_COMMANDS]
    *pip, package = shlex.split(INSTALL)
    assert pip == ["pip", "install"]
    requirement = Requirement(package)
    # The name had other releases on the index before.
    assert requirement.specifier.contains(version(requirement.name))
    assert not requirement.specifier.contains("0.9")
    extras = metadata(requirement.name).get_all("Provides-Extra")
    assert requirement.extras <= set(extras)


@pytest.mark.acceptance
def test_front_page(tmp_path: Path, quickstart: dict[str, Any]) -> None:
    """The ini and the commands that stand first start a web process and a worker."""
    path = tmp_path / "config.ini"
    # Its folder for a broker, and its application, in place of Redis and an egg.
    own = app_settings(path.read_text())
    ini = ConfigParser(interpolation=None)
    ini.read_string(FRONT.replace("6543", str(port := free_port())))
    assert ini["app:main"].pop("celery.broker_url") == "redis://"
    ini["app:main"].update(own)
    with path.open("w") as file:
        ini.write(file)
    pserve, celery = FRONT_COMMANDS.splitlines()
    assert pserve == "pserve config.ini"
    assert celery.endswith("--ini config.ini worker")
    with (
        serve("config.ini", port, **quickstart),
        start_worker("config.ini", **quickstart) as worker,
    ):
        assert "concurrency: 4 (prefork)" in worker.output


@pytest.mark.acceptance
def test_worker_from_a_module(tmp_path: Path) -> None:
    """``celery -A`` finds the module; its command does without --ini."""
    (tmp_path / "myproject").mkdir()
    (tmp_path / "myproject" / "__init__.py").touch()
    (tmp_path / "myproject" / "celery.py").write_text(MODULE)
    command = MODULE_COMMAND.replace("worker", "report").split()
    done = run(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "transport:redis" in done.stdout, done.stderr


def test_snippets(configure_snippets: ConfigureSnippets) -> None:
    """What the snippets register is what they defer, on a schedule too."""
    store: dict[int, SimpleNamespace] = {}
    session = SimpleNamespace(
        add=lambda order: store.update({order.id: order}),
        flush=lambda: None,
        get=lambda _, key: store[key],
    )
    order = SimpleNamespace(id=7, shipped=False)
    settings = app_settings(TRANSACTIONS) | {
        "celery.task_always_eager": True,
        "mail.host": "localhost",
    }
    config = configure_snippets(
        *SNIPPETS, settings=settings, includes=".add_schedules", Order=lambda: order
    )
    config.add_request_method(lambda _: session, "dbsession", property=True)
    config.commit()
    snippets = config.package
    assert len(get_tasks(config.registry).app.conf.beat_schedule) == 1
    with prepare(registry=config.registry) as env:
        request = env["request"]
        snippets.view(request)
        request.matchdict = snippets.start(request)
        assert snippets.status(request)["state"] == "PENDING"
        with request.tm:
            snippets.create_order(request)
            assert not order.shipped
        assert order.shipped
