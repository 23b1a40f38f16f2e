"""``celery ... outbox``, as a user types it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import environment, run, start, unique

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from databases import database
from sqlalchemy import create_engine

from pyramid_tasks.outbox.rows import get_status
from pyramid_tasks.outbox.table import OutboxMessage, database_time

pytestmark = pytest.mark.acceptance


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def ini(write_ini: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes the ini of an application with an outbox."""

    def ini(url: str, broker: str = "memory://localhost") -> Path:
        return write_ini(
            f"""
[app:main]
use = call:outboxapp:main
sqlalchemy.url = {url}
pyramid_tasks.delivery = outbox
celery.broker_url = {broker}
celery.task_default_queue = {unique()}
"""
        )

    return ini


def outbox(ini: Path, *arguments: object) -> Any:
    command = ("celery", "-A", "pyramid_tasks.loaders", "--ini", ini, "outbox")
    return run(*command, *arguments, cwd=ini.parent)


def add(url: str, number: int = 1, task: str = "outboxapp.fulfil") -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for _ in range(number):
            connection.execute(
                OutboxMessage.__table__.insert().values(
                    task=task,
                    task_id=unique(),
                    message='{"args": [1], "kwargs": {}, "options": {}}',
                    created=database_time() - 90,
                    not_before=database_time(),
                )
            )
    engine.dispose()


def test_create_status_run(ini: Callable[..., Path], url: str) -> None:
    """The table is made, messages are counted, sent, and set aside."""
    config = ini(url)
    missing = outbox(config, "status")
    assert missing.returncode == 1
    assert "no table pyramid_tasks_outbox" in missing.stderr
    assert "outbox create" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert outbox(config, "run", "--once").returncode == 1

    assert outbox(config, "create").stdout == "pyramid_tasks_outbox: made.\n"
    assert "is there already" in outbox(config, "create").stdout
    add(url, 3)
    add(url, 1, "no.such.task")
    waiting, oldest, set_aside = outbox(config, "status").stdout.splitlines()
    assert waiting == "Waiting: 4"
    assert 90 <= float(oldest.split()[1]) < 600
    assert set_aside == "Set aside: 0"

    sent = outbox(config, "run", "--once")
    assert sent.stdout == "Sent: 3\n"
    assert "no.such.task" in sent.stderr
    assert sent.returncode == 0


def test_broker_that_is_down(ini: Callable[..., Path], tmp_path: Path) -> None:
    """With --once a broker that is down is a sentence, and a status other than 0."""
    url = f"sqlite:///{tmp_path}/x.sqlite"
    config = ini(url, "redis://:secret@localhost:1/0")
    outbox(config, "create")
    add(url)
    result = outbox(config, "run", "--once")
    assert result.returncode == 1
    assert "localhost:1/0 is down" in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


def test_database_that_is_down(ini: Callable[..., Path]) -> None:
    """A database that cannot be reached is a sentence without its password."""
    config = ini("postgresql+psycopg://postgres:secret@localhost:1/x")
    result = outbox(config, "status")
    assert result.returncode == 1
    assert "cannot be used" in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


def test_daemon(ini: Callable[..., Path], url: str) -> None:
    """A relay sends until SIGTERM, and then ends with 0."""
    config = ini(url)
    outbox(config, "create")
    add(url)
    command = ("celery", "-A", "pyramid_tasks.loaders", "--ini", config, "outbox")
    with start(*command, "run", "--interval", 0.1, cwd=config.parent) as relay:
        relay.wait_for("The relay is ready.")
        relay.wait_for("Sent 1 messages")
        add(url, 2)
        relay.wait_for("Sent 2 messages")
        relay.popen.send_signal(signal.SIGTERM)
        assert relay.popen.wait(30) == 0
    engine = create_engine(url)
    assert get_status(engine).waiting == 0
    engine.dispose()


def test_ini_after_the_group(ini: Callable[..., Path], tmp_path: Path) -> None:
    """--ini works where Celery has the options of applications."""
    config = ini(f"sqlite:///{tmp_path}/x.sqlite")
    command = ("celery", "-A", "pyramid_tasks.loaders", "outbox", "--ini", config)
    assert run(*command, "create", cwd=tmp_path).returncode == 0


def test_without_an_application(tmp_path: Path) -> None:
    """Without an application, or with one of plain Celery, a sentence says so."""
    result = run("celery", "-A", "pyramid_tasks.loaders", "outbox", "run", cwd=tmp_path)
    assert result.returncode == 2
    (tmp_path / "plain.py").write_text("import celery\napp = celery.Celery('x')")
    result = run("celery", "-A", "plain", "outbox", "status", cwd=tmp_path)
    assert result.returncode == 1
    assert "needs a Pyramid application" in result.stderr
    assert "Traceback" not in result.stderr


def test_command_is_light(tmp_path: Path) -> None:
    """Every celery command loads it: it brings nothing heavy along."""
    code = (
        "import celery.bin.celery, sys; before = set(sys.modules);"
        "import pyramid_tasks.outbox.command;"
        "heavy = {'sqlalchemy', 'pyramid', 'transaction'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, check=True
    )
