"""``worker_pool = gevent`` in a file, without gevent."""

from __future__ import annotations

import os
import sys

import click
import pytest
from celery import Celery

from pyramid_tasks.loaders.patching import start_with_patching_pool

Started = list[list[str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Return the commands that take the place of this process."""
    started: Started = []
    monkeypatch.setattr(os, "execv", lambda _, argv: started.append(argv))
    return started


def start(line: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", line.split())
    app = Celery(set_as_current=False, fixups=[])
    app.conf.worker_pool = pool
    start_with_patching_pool(app, line.split()[1])


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_command_with_the_pool(
    pool: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is the same but for the pool, and for what Celery has done."""
    start("celery worker --workdir x --ini y", pool, monkeypatch)
    expected = ["-m", "celery", "worker", "--ini", "y", f"--pool={pool}"]
    assert started == [[sys.executable, *expected]]


@pytest.mark.parametrize(
    ("line", "pool"),
    [
        ("celery worker --pool=solo", "gevent"),
        ("celery worker -P gevent", "gevent"),
        ("celery beat", "gevent"),
        ("celery worker", "threads"),
    ],
)
def test_commands_that_stay(
    line: str, pool: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line wins, and another pool needs nothing."""
    start(line, pool, monkeypatch)
    assert started == []


def test_reloader(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a reloader cannot be another: the option is asked for."""
    with pytest.raises(click.UsageError, match="--pool=gevent"):
        start("celery worker --reload", "gevent", monkeypatch)
    assert started == []
