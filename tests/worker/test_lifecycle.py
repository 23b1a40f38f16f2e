"""The events of workers in this process: who is told, and who is not."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack
from types import ModuleType
from unittest.mock import Mock

import pytest
from celery import signals
from celery._state import _set_task_join_will_block
from celery.app import trace
from celery.contrib.testing.worker import start_worker
from celery.utils.dispatch import Signal
from pyramid.threadlocal import get_current_registry, get_current_request

import pyramid_tasks
from pyramid_tasks import CeleryWorkerInit, CeleryWorkerProcessInit
from pyramid_tasks.events import ProcessEvent
from pyramid_tasks.worker.files import problem_of_file
from pyramid_tasks.worker.lifecycle import WorkerEvents, _check_greenlets


def watched(configure, seen):
    """Return an application which notes its events."""
    config = configure(**{"celery.broker_url": "memory://"})
    config.add_subscriber(seen.append, ProcessEvent)
    return config.make_celery_app()


def make_worker(app):
    """Make a worker that runs no tasks, and undo what that does to the process."""
    try:
        return app.Worker(pool="solo")
    finally:
        trace.reset_worker_optimizations(app)
        _set_task_join_will_block(blocks=False)


def names(events):
    return [type(event).__name__.removeprefix("Celery") for event in events]


def receivers():
    gc.collect()
    return {
        name: [key for key, _ in value.receivers]
        for name, value in vars(signals).items()
        if isinstance(value, Signal)
    }


def test_web_process_connects_nothing(configure):
    """A process with two applications connects no receiver to any signal."""
    before = receivers()
    assert {"worker_process_init", "worker_init", "beat_init"} <= before.keys()
    for number in range(2):
        config = configure(**{"celery.task_always_eager": True, "number": str(number)})
        config.register_task(lambda request: None, name="nothing")
        config.add_subscriber(lambda event: None, ProcessEvent)
        app = config.make_celery_app()
        app.finalize()
        app.tasks["nothing"].apply_async()
        config.make_wsgi_app()
    assert receivers() == before


def test_ignored_settings(configure, caplog):
    """A worker says which calls it loses, and which limit it never reaches."""
    entry = {"task": "a", "schedule": 5, "options": {"serializer": "yaml"}}
    settings = {
        "beat_schedule": {"x": entry},
        "task_routes": [[("b", {"serializer": "yaml"}), ("c", "q")], {"*": {}}],
        "task_soft_time_limit": 60,
        "task_time_limit": 30,
        "worker_hijack_root_logger": False,
        "broker_url": "memory://",
    }
    config = configure(**{f"celery.{name}": value for name, value in settings.items()})
    for name, serializer in ("a", "pickle"), ("b", None), ("c", "json"):
        config.register_task(lambda request: None, name=name, serializer=serializer)
    make_worker(config.make_celery_app())
    said = [each for each in caplog.messages if ": write " in each]
    assert said == [
        "accept_content refuses pickle, in which the task a sends: write json pickle.",
        "accept_content refuses yaml, in which a route for b sends: write json yaml.",
        "accept_content refuses yaml, in which the schedule x sends: write json yaml.",
        (
            "task_soft_time_limit = 60 is never reached, as task_time_limit = 30: "
            "write a smaller number."
        ),
    ]


def test_folder_of_the_state(configure, tmp_path):
    """A worker ends with one sentence if its folder is not there."""
    settings = {"celery.broker_url": "memory://"}
    file = tmp_path / "nowhere" / "state"
    app = configure(**settings, **{"celery.worker_state_db": file}).make_celery_app()
    with pytest.raises(SystemExit, match="nowhere/state is in a folder that is not th"):
        app.Worker(pool="solo")
    assert problem_of_file(str(tmp_path / "state")) is None
    assert problem_of_file("state") is None


def test_no_state_in_a_folder_that_is_read_only(configure, monkeypatch):
    """A worker that keeps no files starts in a folder where it cannot write."""
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert make_worker(app).statedb is None


NOWHERE = "/no/x is in a folder that is not there"


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("Beat", {"schedule": "/no/x"}, f"beat_schedule_filename = {NOWHERE}"),
        ("Beat", {"pidfile": "/no/x"}, f"pidfile = {NOWHERE}"),
        ("Beat", {"logfile": "/no/x"}, f"logfile = {NOWHERE}"),
        ("Beat", {"scheduler": "nope"}, "scheduler = nope cannot be imported: No mod"),
        ("Beat", {"scheduler": "os.path:X"}, "scheduler = os.path:X cannot be import"),
        ("Worker", {"pidfile": "/no/x"}, f"pidfile = {NOWHERE}"),
        (
            *("Worker", {"beat": True, "schedule_filename": "/no/x"}),
            f"beat_schedule_filename = {NOWHERE}",
        ),
    ],
)
def test_options(configure, tmp_path, monkeypatch, program, options, said):
    """A worker and beat end with one sentence if a folder or a module is not there."""
    monkeypatch.chdir(tmp_path)
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    with pytest.raises(SystemExit, match=f"Error: {said}"):
        getattr(app, program)(**options, quiet=True).start_scheduler()


def test_error_inside_a_scheduler(configure):
    """An error of the application's own code keeps its traceback."""
    app = configure(**{"celery.broker_url": "memory://"}).make_celery_app()
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        app.Beat(scheduler="failing_import:X", quiet=True).start_scheduler()


@pytest.mark.parametrize("pools", [("solo", "threads"), ("threads", "threads")])
def test_workers_tell_their_own_application(pools, configure):
    """Two workers in one process each notify the registry that is theirs."""
    seen = [], []
    apps = [watched(configure, events) for events in seen]
    options = {"concurrency": 1, "perform_ping_check": False}
    with ExitStack() as stack:
        for app, pool in zip(apps, pools, strict=True):
            assert not app.loader.is_ready
            stack.enter_context(start_worker(app, pool=pool, **options))
            assert app.loader.is_ready
    for events, app in zip(seen, apps, strict=True):
        assert all(event.registry is app.registry for event in events)
        assert names(events) == [
            *("WorkerInit", "WorkerProcessInit", "WorkerReady"),
            *("WorkerProcessShutdown", "WorkerShutdown"),
        ]


def test_child_and_beat_tell_no_other_application(configure):
    """Celery's signals in a child of a pool, and in beat, are for one application."""
    seen = [], []
    app, other = (watched(configure, events) for events in seen)
    for one in app, other:
        one.loader.init_worker()
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender="worker@host")
    signals.worker_process_shutdown.send(sender="worker@host", pid=1, exitcode=0)
    signals.beat_init.send(sender=app.Beat().Service(app=app))
    expected = ["WorkerProcessInit", "WorkerProcessShutdown", "BeatInit"]
    assert names(seen[0]) == expected
    assert seen[1] == []


@pytest.mark.parametrize("is_ready", [False, True])
def test_child_that_cannot_start_waits(config, monkeypatch, is_ready):
    """A subscriber's error ends the child, after a pause if the worker is ready."""
    config.add_subscriber(lambda event: 1 / 0, CeleryWorkerProcessInit)
    app = config.make_celery_app()
    app.loader.is_ready = is_ready
    app.loader.init_worker_process()
    pauses = []
    monkeypatch.setattr("pyramid_tasks.worker.loader.time.sleep", pauses.append)
    with pytest.raises(SystemExit, match="1"):
        signals.worker_process_init.send(sender="worker@host")
    signals.worker_process_init.disconnect(dispatch_uid=app.loader._uid)
    assert pauses == [1.0] * is_ready


@pytest.mark.parametrize("event", [CeleryWorkerInit, CeleryWorkerProcessInit])
def test_error_surfaces_where_the_worker_is_made(event, config, caplog):
    """An error in a subscriber comes out of ``app.Worker()``, and is logged.

    Subscribers find the registry as those of ApplicationCreated do.
    """
    outside = get_current_registry()

    def fail(event):
        assert get_current_registry() is config.registry is not outside
        assert get_current_request() is None
        raise LookupError("nothing there")

    # caplog has its handler.
    config.add_settings({"celery.worker_hijack_root_logger": False})
    config.add_subscriber(fail, event)
    with pytest.raises(LookupError, match="nothing there"):
        make_worker(config.make_celery_app())
    assert f"A subscriber of {event.__name__} failed" in caplog.messages
    assert get_current_registry() is outside


def test_events_have_the_registry(config):
    """Every event of a process has the registry, and says when it is sent."""
    events = [name for name in pyramid_tasks.__all__ if name.startswith("Celery")]
    assert len(events) == 6
    for name in events:
        event = getattr(pyramid_tasks, name)(config.registry)
        assert isinstance(event, ProcessEvent)
        assert event.registry is config.registry
        assert "Sent" in type(event).__doc__


GEVENT = ("gevent", "gevent.monkey", "is_module_patched")
EVENTLET = ("eventlet", "eventlet.patcher", "is_monkey_patched")


@pytest.mark.parametrize(("pool", "module", "asked"), [GEVENT, EVENTLET])
@pytest.mark.parametrize(
    ("is_patched", "is_async", "error"),
    [
        (True, False, None),
        (False, False, "Start the worker with --pool={pool}"),
        (True, True, "{pool} cannot run async .* task it is one. Start .* --pool=solo"),
    ],
)
def test_pool_of_greenlets(
    pool, module, asked, is_patched, is_async, error, config, monkeypatch
):
    """A worker that could not run a task ends with the option that it needs."""

    async def coroutine(request): ...

    config.register_task(coroutine if is_async else lambda request: None, name="it")
    app = config.make_celery_app()
    fake = ModuleType(module)
    setattr(fake, asked, lambda _: is_patched)
    monkeypatch.setitem(sys.modules, module, fake)
    pool_cls = type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"})
    if error is None:
        assert _check_greenlets(pool_cls, app) is None
    else:
        with pytest.raises(SystemExit, match=error.format(pool=pool)):
            WorkerEvents.include(Mock(), Mock(pool_cls=pool_cls, app=app))
