"""The thread that sends what its process has committed."""

from __future__ import annotations

import os
from threading import Thread
from unittest.mock import Mock, patch

from celery.signals import worker_process_shutdown
from support import APPS, run, wait_until

from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.worker.forking import ForkLock

SCRIPT = """
import sys
from pyramid.paster import bootstrap

with bootstrap(sys.argv[1]) as env, env["request"].tm:
    for number in range(20):
        env["request"].defer_task("outboxapp.fulfil", number)
"""

SLOW = """
import time
from pathlib import Path

Path("begun").touch()
time.sleep(0.5)
"""

# What is imported when a message is sent, for the first time, by the thread.
FORK = """
import os, sys, time
from pathlib import Path
from pyramid.paster import bootstrap
from celery.signals import before_task_publish

@before_task_publish.connect
def on_publish(**_):
    import slow

with bootstrap(sys.argv[1]) as env:
    with env["request"].tm:
        env["request"].defer_task("outboxapp.fulfil", 1)
    while not Path("begun").exists():
        time.sleep(0.01)
    if not os.fork():
        import slow
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_process_that_ends(sqlite, make_app, outbox_ini, tmp_path):
    """At its end, a process sends what it has committed, and deletes the rows."""
    done = run("python", "-c", SCRIPT, outbox_ini(sqlite.url), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert make_app(sqlite).rows() == []


def test_child_that_ends(sqlite, make_app):
    """A child of a prefork pool, which has no exit handlers, waits for each thread."""
    senders = []
    for app in make_app(sqlite), make_app(sqlite):
        app.defer(1)
        senders.append(get_outbox(app.registry).sender)
    one, two = (patch.object(sender, "flush") for sender in senders)
    with one as first, two as second:
        worker_process_shutdown.send(sender=None)
    assert (first.call_count, second.call_count) == (1, 1)


def test_fork_waits_for_the_thread(sqlite, make_app, outbox_ini, tmp_path):
    """A module that the thread is importing could not be imported by the child."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = "python", "-c", FORK, outbox_ini(sqlite.url)
    done = run(*command, cwd=tmp_path, fresh=True, PYTHONPATH=f"{APPS}:{tmp_path}")
    assert done.stdout == "7\n", done.stderr
    assert make_app(sqlite).rows() == []


def test_fork_after_the_thread():
    """A fork has nothing to wait for once a thread has done its work."""
    lock = ForkLock(0)
    thread = Thread(target=lambda: lock.__enter__() or lock.__exit__())
    thread.start()
    thread.join()
    assert lock.acquire_to_fork()
    lock.__exit__()


def test_fork(sqlite, make_app):
    """A forked process has a thread of its own, and sends nothing of its parent."""
    app = make_app(sqlite)
    app.defer(1)
    sqlite.dispose()
    inherited = get_outbox(app.registry).sender
    inherited._is_busy = True  # and nobody in the child ends that
    pid = os.fork()
    if not pid:
        try:
            app.defer(2)
            # The queue in memory is a copy, with the message of the parent in it.
            is_well = app.values() == [1, 2] and app.rows() == []
            os._exit(0 if is_well and inherited.flush(0) else 1)
        finally:
            os._exit(2)
    inherited._is_busy = False
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert app.values() == [1]


def test_thread_needs_nobody_to_wait(sqlite, make_app):
    """It sends what comes while it sends, and what comes later."""
    app, sent = make_app(sqlite), []
    app.flush, flush = lambda: None, app.flush
    app.before_sending(lambda x: sent.append(x) or (x == 1 and app.defer(2)))
    for number, last in (1, 2), (3, 3):
        app.defer(number)
        wait_until(lambda last=last: last in sent)
        flush()


def test_more_than_fits(sqlite, make_app, monkeypatch):
    """What a process cannot hold is for the relay, and what follows waits behind it."""
    monkeypatch.setattr("pyramid_tasks.outbox.backlog._MAX_ROWS", 2)
    app = make_app(sqlite)
    app.defer(1, 2, 3)
    app.defer(4)
    assert app.values() == []
    app.make_due()
    assert app.relay().run_once() == 4
    assert app.values() == [1, 2, 3, 4]
    app.defer(5)
    assert app.values() == [5]


def test_request_without_time_to_wait(sqlite, make_app):
    """While another one sends, it leaves its rows to a relay, and so does the next."""
    settings = {"pyramid_tasks.outbox_send": "request"}
    app = make_app(sqlite, pyramid_tasks__delivery_timeout="0.2", **settings)
    with get_outbox(app.registry).sender._lock:
        app.defer(1)
    app.defer(2)
    assert app.values() == []
    app.make_due()
    assert app.relay().run_once() == 2
    assert app.values() == [1, 2]


def test_no_thread_can_start(sqlite, make_app, monkeypatch):
    """Without a thread, as at the end of the interpreter, the relay has all."""
    app = make_app(sqlite)
    with monkeypatch.context() as patch:
        fail = Mock(side_effect=RuntimeError("can't start new thread"))
        patch.setattr("threading.Thread.start", fail)
        app.defer(1)
    assert len(app.rows()) == 1
    assert get_outbox(app.registry).sender.flush()
    app.defer(2)
    assert app.values() == []


def test_rows_that_cannot_be_deleted(sqlite, make_app, monkeypatch):
    """After some attempts they are left for the relays, which send them again."""
    monkeypatch.setattr("pyramid_tasks.outbox.sender._MAX_FAILURES", 2)
    app = make_app(sqlite)
    app.fail_to_delete(2)
    app.defer(1)
    assert len(app.rows()) == 1
    app.defer(2)
    assert app.values() == [1, 2]
    assert len(app.rows()) == 1


def test_rows_that_can_never_be_deleted(sqlite, make_app, monkeypatch):
    """They are left for the relays each time, so that they do not fill the memory."""
    monkeypatch.setattr("pyramid_tasks.outbox.sender._MAX_FAILURES", 2)
    app = make_app(sqlite)
    app.fail_to_delete(1000)
    for number in 1, 2, 3:
        app.defer(number)  # and wait until the sender holds nothing any more
    assert len(app.rows()) == 3


def test_long_transaction_keeps_its_lease(sqlite, make_app, monkeypatch):
    """A transaction that lasts as long as the lease renews the lease at its commit."""
    monkeypatch.setattr("pyramid_tasks.outbox.transactions._OLD", 0)
    app = make_app(sqlite, pyramid_tasks__outbox_lease="60")
    sender = get_outbox(app.registry).sender
    put, sender.put = sender.put, Mock()
    with app.request() as request, request.tm:
        with monkeypatch.context() as patch:
            patch.setattr("pyramid_tasks.outbox.transactions._USABLE", -1)
            request.defer_task("record", 1)
        statement = "UPDATE pyramid_tasks_outbox SET not_before = 0"
        request.dbsession.connection().exec_driver_sql(statement)
    assert app.relay().run_once() == 0
    put(*sender.put.call_args.args)
    assert app.values() == [1]
