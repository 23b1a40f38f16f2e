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
from databases import database, execute
from sqlalchemy import create_engine
from support import environment, measured, run, start
from transactional import fail, invoke

from pyramid_tasks.contrib.outbox_table import OutboxMessage, metadata
from pyramid_tasks.outbox.command import outbox


@pytest.fixture(autouse=True)
def _signals():
    """Undo what a relay does to signals."""
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


def test_create_status_run(engine, make_app, capsys):
    """The table is made, messages are counted, sent, and set aside."""
    metadata.drop_all(engine)
    app = make_app(engine)
    for command in ("status",), ("run", "--once"):
        output = fail(app, *command)
        assert "no table pyramid_tasks_outbox" in output
        assert "outbox create" in output
    for outcome in "made", "is there already":
        names = "inbox", "outbox", "outbox_relay"
        lines = [f"pyramid_tasks_{name}: {outcome}.\n" for name in names]
        assert invoke(app, "create") == (0, "".join(lines))
    nothing = "Waiting: 0\nOldest: 0.0 s\nSet aside: 0\nRelay: none runs\n"
    assert invoke(app, "status") == (0, nothing)
    make_app(engine, down=True).defer(1, 2, 3, 4)
    *_, last = app.rows()
    app.update(created=OutboxMessage.created - 90)
    app.update(OutboxMessage.id == last.id, set_aside=True)
    found = json.loads(fail(app, "status", "--json"))
    assert 90 <= found.pop("oldest") < 600
    assert found == {"waiting": 3, "set_aside": 1, "relay": None}
    assert fail(app, "status").endswith('are set aside: see "outbox list".\n')
    with pytest.raises(SystemExit):
        outbox(["status"], obj=SimpleNamespace(app=app.celery))
    assert "outbox list" in capsys.readouterr().err
    assert invoke(app, "run", "--once", "--batch", "2") == (0, "Sent: 3\n")
    assert app.values() == [1, 2, 3]
    app.update(attempts=5, error="ValueError: too long\nmore")
    line = rf"Id .* Age\n{last.id}  record\[{last.task_id}\]  \d+ s"
    refused = "  refused: 5  set aside  ValueError: too long\n"
    assert re.fullmatch(line + refused, invoke(app, "list")[1])
    arguments = r"  args=\[4\] kwargs=\{\}"
    assert re.fullmatch(line + arguments + refused, invoke(app, "list", "--args")[1])
    for which in (), ("--all", str(last.id)):
        assert "or --all" in fail(app, "retry", *which, status=2)
    assert "Missing argument" in fail(app, "discard", status=2)
    assert 'x is not an id of "outbox list"' in fail(app, "discard", "x", status=2)
    for command in "retry", "discard":
        output = fail(app, command, "0", "7000", "0")
        assert 'Not in the outbox: 0, 7000. See "outbox list".' in output
    assert invoke(app, "retry", "--all") == (0, "To be tried again: 1\n")
    assert invoke(app, "run", "--once") == (0, "Sent: 1\n")
    make_app(engine, down=True).defer(5)
    app.update(attempts=1)
    for refused in 1, 0:  # the first time forgets that it was refused
        again = f"To be tried again: {refused}\n"
        assert invoke(app, "retry", "--all") == (0, again)
    (row,) = app.rows()
    assert invoke(app, "discard", str(row.id)) == (0, "Discarded: 1\n")
    assert app.rows() == []
    # Where Alembic looks after the database, the command says what to declare.
    execute(engine, "CREATE TABLE alembic_version (version_num CHAR(32))")
    status, output = invoke(app, "create")
    assert status == 0
    assert "outbox_table(Base.metadata)" in output


def test_servers_that_are_down(sqlite, make_app):
    """A server that is down is a sentence without its password, and a status of 1."""
    app = make_app(sqlite, down=True)
    app.defer(1)
    output = fail(app, "run", "--once")
    assert "localhost:1/0 is down" in output
    assert "secret" not in output
    url = "postgresql+psycopg://postgres:secret@localhost:1/x"
    output = fail(make_app(create_engine(url)), "status")
    assert output.startswith("Error: The database of the outbox cannot be used: ")
    assert "secret" not in output
    assert "sqlalche.me" not in output  # where SQLAlchemy explains its own words


def test_without_an_outbox(sqlite, make_app, configure, monkeypatch):
    """A sentence says what is missing: an application, an outbox, SQLAlchemy."""
    assert "needs a Pyramid application" in fail(celery.Celery(), "status")
    assert "has no outbox" in fail(configure().make_celery_app(), "status")
    app = make_app(sqlite, pyramid_tasks__delivery="commit")
    assert "the delivery of the application is commit" in invoke(app, "status")[1]
    app = make_app(sqlite)
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    assert "install pyramid-tasks[outbox]" in fail(app, "status")


@pytest.mark.acceptance
def test_relay(make_app, outbox_ini, tmp_path):
    """As a user types it: a relay sends until SIGTERM, and then ends with 0."""
    with database("postgresql", tmp_path) as url:
        ini = outbox_ini(url)
        command = ("celery", "-A", "pyramid_tasks.loaders", "outbox", "--ini", ini)
        created = run(*command, "create", cwd=tmp_path)
        assert "pyramid_tasks_outbox: made." in created.stdout
        app = make_app(create_engine(url), down=True)
        with start(*command, "run", "--interval", 0.1, cwd=tmp_path) as relay:
            relay.wait_for("The relay is ready.")
            for number in 1, 2:
                app.defer(*range(number))
                relay.wait_for(f"Sent {number} messages")
            assert relay.stop() == 0
        assert app.waiting() == 0
        app.engine.dispose()


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


WAITING = """
import logging, time
from pyramid_tasks.outbox.stopping import stop_on_signals

logging.basicConfig()
stop_on_signals(lambda *_: None, within=0.1)
print("ready")
time.sleep(600)
"""


def test_signal_ends_whatever_waits(tmp_path):
    """A wait that goes on after SIGTERM ends with the process, which says so."""
    with start("python", "-c", WAITING, cwd=tmp_path, **measured()) as process:
        process.wait_for("ready")
        assert process.stop() == 1
        assert "did not answer for 0.1 s" in process.output
