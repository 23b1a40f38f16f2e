"""``celery ... outbox``: the relay, the status and the table."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import celery
import pytest
from click.testing import CliRunner
from databases import database
from sqlalchemy import create_engine, text
from support import environment, run, start, unique

from pyramid_tasks.contrib.outbox_table import OutboxMessage, metadata
from pyramid_tasks.outbox.command import outbox
from pyramid_tasks.outbox.manage import get_status


@pytest.fixture(autouse=True)
def _signals():
    """Undo what a relay does to signals."""
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def invoke(app, *arguments):
    """Run a command in this process, and return its status and what it prints."""
    obj = SimpleNamespace(app=getattr(app, "celery", app))
    result = CliRunner().invoke(outbox, arguments, obj=obj)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_create_status_run(engine, make_app):
    """The table is made, messages are counted, sent, and set aside."""
    metadata.drop_all(engine)
    app = make_app(engine)
    for command in ("status",), ("run", "--once"):
        status, output = invoke(app, *command)
        assert status == 1
        assert "no table pyramid_tasks_outbox" in output
        assert "outbox create" in output
    for outcome in "made", "is there already":
        names = "inbox", "outbox", "outbox_relay"
        lines = [f"pyramid_tasks_{name}: {outcome}.\n" for name in names]
        assert invoke(app, "create") == (0, "".join(lines))
    assert invoke(app, "status") == (
        0,
        "Waiting: 0\nOldest: 0.0 s\nSet aside: 0\nRelay: none works\n",
    )
    make_app(engine, down=True).defer(1, 2, 3, 4)
    *_, last = app.rows()
    app.update(created=OutboxMessage.created - 90)
    app.update(OutboxMessage.id == last.id, set_aside=True)
    status, output = invoke(app, "status", "--json")
    assert status == 1
    found = json.loads(output)
    assert 90 <= found.pop("oldest") < 600
    assert found == {"waiting": 3, "set_aside": 1, "relay": None}
    assert 'see "outbox list"' in invoke(app, "status")[1]
    assert invoke(app, "run", "--once", "--batch", "2") == (0, "Sent: 3\n")
    assert app.values() == [1, 2, 3]
    app.update(attempts=5, error="ValueError: too long\nmore")
    line = rf"{last.id}  record\[{last.task_id}\]  \d+ s"
    refused = "  refused: 5  set aside  ValueError: too long\n"
    assert re.fullmatch(line + refused, invoke(app, "list")[1])
    arguments = r"  args=\[4\] kwargs=\{\}"
    assert re.fullmatch(line + arguments + refused, invoke(app, "list", "--args")[1])
    for which in (), ("--all", str(last.id)):
        status, output = invoke(app, "retry", *which)
        assert status == 2
        assert "or --all" in output
    status, output = invoke(app, "retry", "0")
    assert status == 1
    assert "1 of these ids are not in the outbox" in output
    assert invoke(app, "retry", "--all") == (0, "To be tried again: 1\n")
    assert invoke(app, "run", "--once") == (0, "Sent: 1\n")
    make_app(engine, down=True).defer(5)
    (row,) = app.rows()
    assert invoke(app, "discard", str(row.id)) == (0, "Discarded: 1\n")
    assert app.rows() == []


def test_status_of_another_delivery(sqlite, make_app):
    """An application that has another delivery is told so."""
    app = make_app(sqlite, pyramid_tasks__delivery="commit")
    assert "the delivery of the application is commit" in invoke(app, "status")[1]


def test_create_beside_alembic(engine, make_app):
    """Where Alembic looks after the database, the command says what to declare."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num CHAR(32))"))
    status, output = invoke(make_app(engine), "create")
    assert status == 0
    assert "outbox_table(Base.metadata)" in output


def test_servers_that_are_down(sqlite, make_app):
    """A server that is down is a sentence without its password, and a status of 1."""
    app = make_app(sqlite, down=True)
    app.defer(1)
    status, output = invoke(app, "run", "--once")
    assert status == 1
    assert "localhost:1/0 is down" in output
    assert "secret" not in output
    url = "postgresql+psycopg://postgres:secret@localhost:1/x"
    status, output = invoke(make_app(create_engine(url)), "status")
    assert status == 1
    assert output.startswith("Error: The database of the outbox cannot be used: ")
    assert "secret" not in output


def test_without_an_outbox(configure):
    """Without an application, or without an outbox in it, a sentence says so."""
    status, output = invoke(celery.Celery(), "status")
    assert status == 1
    assert "needs a Pyramid application" in output
    status, output = invoke(configure().make_celery_app(), "status")
    assert status == 1
    assert "has no outbox" in output


def test_without_sqlalchemy(sqlite, make_app, monkeypatch):
    """Without SQLAlchemy, a sentence says what to install."""
    app = make_app(sqlite)
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    status, output = invoke(app, "status")
    assert status == 1
    assert "install pyramid-tasks[outbox]" in output


@pytest.mark.acceptance
def test_relay(write_ini, tmp_path):
    """As a user types it: a relay sends until SIGTERM, and then ends with 0."""
    with database("postgresql", tmp_path) as url:
        ini = write_ini(
            f"""
[app:main]
use = call:outboxapp:main
sqlalchemy.url = {url}
pyramid_tasks.delivery = outbox
celery.broker_url = memory://localhost
celery.task_default_queue = {unique()}
"""
        )
        command = ("celery", "-A", "pyramid_tasks.loaders", "outbox", "--ini", ini)
        created = run(*command, "create", cwd=tmp_path)
        assert "pyramid_tasks_outbox: made." in created.stdout
        engine = create_engine(url)
        row = {
            "task": "outboxapp.fulfil",
            "message": '{"args": [1], "kwargs": {}, "options": {}}',
            "created": 0,
            "not_before": 0,
        }
        with start(*command, "run", "--interval", 0.1, cwd=tmp_path) as relay:
            relay.wait_for("The relay is ready.")
            for number in 1, 2:
                with engine.begin() as connection:
                    insert = OutboxMessage.__table__.insert()
                    rows = [{**row, "task_id": unique()} for _ in range(number)]
                    connection.execute(insert, rows)
                relay.wait_for(f"Sent {number} messages")
            relay.popen.send_signal(signal.SIGTERM)
            assert relay.popen.wait(30) == 0
        with engine.connect() as connection:
            assert get_status(connection).waiting == 0
        engine.dispose()


@pytest.mark.acceptance
def test_command_is_light(tmp_path):
    """Every celery command loads it, so it brings nothing heavy along."""
    code = (
        "import celery.bin.celery, sys;"
        "import pyramid_tasks.outbox.inbox_command;"
        "heavy = {'sqlalchemy', 'pyramid', 'transaction'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, check=True
    )
