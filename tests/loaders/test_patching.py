"""``worker_pool = gevent`` in a file, without a worker."""

from __future__ import annotations

import io
import os
import sys
from types import ModuleType

import click
import hupper
import pytest
from celery import Celery

from pyramid_tasks.loaders import keys
from pyramid_tasks.loaders.commandline import app_for_command
from pyramid_tasks.loaders.patching import start_with_patching_pool
from pyramid_tasks.loaders.reload import reloading, start_reloader


@pytest.fixture
def started(monkeypatch):
    """Return the commands that take the place of this process."""
    started = []
    monkeypatch.setattr(os, "execv", lambda _, argv: started.append(argv))
    return started


def start(line, pool, monkeypatch):
    monkeypatch.setattr(sys, "argv", line.split())
    app = Celery(set_as_current=False, fixups=[])
    app.conf.worker_pool = pool
    start_with_patching_pool(app, line.split()[1])


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_command_with_the_pool(pool, started, monkeypatch):
    """The command is the same but for the pool, and for what Celery has done.

    What the application has printed is written before.
    """
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    sys.stdout.write("loaded")
    start("celery worker --workdir x --ini y", pool, monkeypatch)
    expected = ["-m", "celery", "worker", "--ini", "y", f"--pool={pool}"]
    assert started == [[sys.executable, *expected]]
    assert written.getvalue() == b"loaded"


@pytest.mark.parametrize(
    ("line", "pool"),
    [
        ("celery worker --pool=solo", "gevent"),
        ("celery worker -P gevent", "gevent"),
        ("celery beat", "gevent"),
        ("celery worker", "threads"),
    ],
)
def test_commands_that_stay(line, pool, started, monkeypatch):
    """The command line wins, and another pool needs nothing."""
    start(line, pool, monkeypatch)
    assert started == []


def test_reloader(started, monkeypatch):
    """The process of a reloader cannot be another: the option is asked for."""
    with pytest.raises(click.UsageError, match="--pool=gevent"):
        start("celery worker --reload", "gevent", monkeypatch)
    assert started == []


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_file_of_the_command(command, write_example, started, monkeypatch):
    """A worker looks at the pool of its file; worker and beat have ``--reload``."""
    pytest.importorskip("gevent")
    monkeypatch.setattr(sys, "argv", ["celery", command])
    with click.Context(click.Command("celery")) as ctx:
        ctx.meta[keys.URI_KEY] = str(write_example(worker="worker_pool = gevent"))
        ctx.meta[keys.COMMAND_KEY] = command
        options = app_for_command().user_options
    assert len(started) == (command == "worker")
    assert [each.opts for each in options[command]] == [["--reload"]]
    monkeypatch.delenv(keys.ENVIRON_KEY, raising=False)
    with pytest.raises(SystemExit, match="2"):  # imported, without a command or file
        app_for_command()


def test_reloader_of_a_patched_command(started, monkeypatch):
    """It runs the same command in a Python that no pool has patched."""
    ran = []
    command = ["celery", "worker", "--reload"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(sys, "path", sys.path)
    monkeypatch.setitem(sys.modules, "gevent", ModuleType("gevent"))
    monkeypatch.setattr(hupper, "start_reloader", lambda *_, **__: ran.append(sys.argv))
    start_reloader(None, {})
    ((python, option, code),) = started
    assert (python, option) == (sys.executable, "-c")
    ran.clear()  # where os.execv() would not have returned
    exec(code, {})
    assert ran == [command]


def test_wrong_usage_with_the_reloader():
    """It stays one, unlike the error of a module, which a change can mend."""

    def refuse():
        raise click.UsageError("wrong")

    with click.Context(click.Command("celery")), pytest.raises(click.UsageError):
        reloading(refuse)()
