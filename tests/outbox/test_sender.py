"""The thread that sends what its process has committed."""

from __future__ import annotations

import os

from support import APPS, as_ini, run

from pyramid_tasks.outbox.configuration import get_outbox

SCRIPT = """
import sys
from pyramid.paster import bootstrap

with bootstrap(sys.argv[1]) as env, env["request"].tm:
    for number in range(20):
        env["request"].defer_task("outboxapp.fulfil", number)
"""


def test_process_that_ends(sqlite, make_app, tmp_path):
    """At its end, a process sends what it has committed, and deletes the rows."""
    ini = tmp_path / "config.ini"
    settings = {"sqlalchemy.url": sqlite.url, "pyramid_tasks.delivery": "outbox"}
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    celery = as_ini({"broker_url": "memory://localhost"})
    ini.write_text(f"[app:main]\nuse = call:outboxapp:main\n{lines}\n{celery}\n")
    run("python", "-c", SCRIPT, ini, cwd=tmp_path, PYTHONPATH=str(APPS))
    assert make_app(sqlite).rows() == []


def test_fork(sqlite, make_app):
    """A forked process has a thread of its own, and sends nothing of its parent."""
    app = make_app(sqlite)
    app.defer(1)
    sqlite.dispose()
    pid = os.fork()
    if not pid:
        try:
            app.defer(2)
            # The queue in memory is a copy, with the message of the parent in it.
            os._exit(0 if app.values() == [1, 2] and app.rows() == [] else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert app.values() == [1]


def test_more_than_fits(sqlite, make_app, monkeypatch):
    """What a process cannot hold is for the relay, and what follows waits behind it."""
    monkeypatch.setattr("pyramid_tasks.outbox.backlog._MAX_ROWS", 2)
    app = make_app(sqlite)
    with app.request() as request, request.tm:
        request.defer_tasks("record", [(1,), (2,), (3,)])
    app.defer(4)
    assert app.values() == []
    app.make_due()
    assert app.relay().run_once() == 4
    assert app.values() == [1, 2, 3, 4]
    app.defer(5)
    assert app.values() == [5]


def test_no_thread_can_start(sqlite, make_app, monkeypatch):
    """Without a thread, as at the end of the interpreter, the relay has all."""
    app = make_app(sqlite)

    def fail(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", fail)
        app.defer(1)
    assert len(app.rows()) == 1
    assert get_outbox(app.registry).sender.flush()


def test_long_transaction_keeps_its_lease(sqlite, make_app, monkeypatch):
    """A transaction that lasts as long as the lease renews the lease at its commit."""
    monkeypatch.setattr("pyramid_tasks.outbox.place._OLD", 0)
    app = make_app(sqlite, pyramid_tasks__outbox_lease="60")
    get_outbox(app.registry).sender.put = lambda *_: None
    with app.request() as request, request.tm:
        request.defer_task("record", 1)
        statement = "UPDATE pyramid_tasks_outbox SET not_before = 0"
        request.dbsession.connection().exec_driver_sql(statement)
    assert app.relay().run_once() == 0
