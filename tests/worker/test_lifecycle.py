"""The events of workers in this process: who is told, and who is not."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from types import ModuleType

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
from pyramid_tasks.worker.lifecycle import _check_greenlets

pytestmark = pytest.mark.filterwarnings(
    "ignore:You're running the worker with superuser"
)


@pytest.fixture
def watched(configure):
    """Return a function that makes an application which notes its events."""

    def watched(seen):
        config = configure(**{"celery.broker_url": "memory://"})
        config.add_subscriber(seen.append, ProcessEvent)
        return config.make_celery_app()

    return watched


@contextmanager
def making(app):
    """Make a worker that runs no tasks, and undo what that does to the process."""
    try:
        yield app.Worker(pool="solo")
    finally:
        trace.reset_worker_optimizations(app)
        _set_task_join_will_block(blocks=False)


def names(events):
    return [type(event).__name__ for event in events]


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


@pytest.mark.parametrize("pools", [("solo", "threads"), ("threads", "threads")])
def test_workers_tell_their_own_application(pools, watched):
    """Two workers in one process each notify the registry that is theirs."""
    seen = [], []
    apps = [watched(events) for events in seen]
    options = {"concurrency": 1, "perform_ping_check": False}
    with (
        start_worker(apps[0], pool=pools[0], **options),
        start_worker(apps[1], pool=pools[1], **options),
    ):
        pass
    for events, app in zip(seen, apps, strict=True):
        assert all(event.registry is app.registry for event in events)
        assert names(events) == [
            "CeleryWorkerInit",
            "CeleryWorkerProcessInit",
            "CeleryWorkerReady",
            "CeleryWorkerProcessShutdown",
            "CeleryWorkerShutdown",
        ]


def test_child_and_beat_tell_no_other_application(watched):
    """Celery's signals in a child of a pool, and in beat, are for one application."""
    seen = [], []
    app, other = (watched(events) for events in seen)
    for one in app, other:
        one.loader.init_worker()
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender="worker@host")
    signals.worker_process_shutdown.send(sender="worker@host", pid=1, exitcode=0)
    signals.beat_init.send(sender=app.Beat().Service(app=app))
    assert names(seen[0]) == [
        "CeleryWorkerProcessInit",
        "CeleryWorkerProcessShutdown",
        "CeleryBeatInit",
    ]
    assert seen[1] == []


@pytest.mark.parametrize("is_ready", [False, True])
def test_child_that_cannot_start_waits(configure, monkeypatch, is_ready):
    """A subscriber's error ends the child, after a pause if the worker is ready."""
    config = configure(**{"celery.broker_url": "memory://"})
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
def test_error_surfaces_where_the_worker_is_made(event, configure, caplog):
    """An error in a subscriber comes out of ``app.Worker()``, and is logged."""

    def fail(event):
        raise LookupError("nothing there")

    settings = {"celery.worker_hijack_root_logger": False}  # caplog has its handler
    config = configure(**{"celery.broker_url": "memory://"}, **settings)
    config.add_subscriber(fail, event)
    with (
        pytest.raises(LookupError, match="nothing there"),
        making(config.make_celery_app()),
    ):
        pass
    messages = [record.message for record in caplog.records]
    assert f"A subscriber of {event.__name__} failed" in messages


def test_subscribers_have_the_registry_as_threadlocal(configure):
    """Subscribers find the registry as those of ApplicationCreated do."""
    found = []
    config = configure(**{"celery.broker_url": "memory://"})
    config.add_subscriber(
        lambda event: found.append((get_current_registry(), get_current_request())),
        CeleryWorkerInit,
    )
    outside = get_current_registry()
    with making(config.make_celery_app()):
        pass
    assert found == [(config.registry, None)]
    assert get_current_registry() is outside


@pytest.mark.parametrize(
    "name", [name for name in pyramid_tasks.__all__ if name.startswith("Celery")]
)
def test_events_have_the_registry(name, configure):
    """Every event of a process has the registry, and says when it is sent."""
    registry = configure().registry
    event = getattr(pyramid_tasks, name)(registry)
    assert isinstance(event, ProcessEvent)
    assert event.registry is registry
    assert "Sent" in type(event).__doc__


@pytest.mark.parametrize(
    ("pool", "module", "asked"),
    [
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ],
)
@pytest.mark.parametrize(
    ("is_patched", "is_async", "error"),
    [
        (True, False, None),
        (False, False, "Start the worker with --pool={pool}"),
        (True, True, "{pool} cannot run async .* task it is one. Start .* --pool=solo"),
    ],
)
def test_pool_of_greenlets(
    pool, module, asked, is_patched, is_async, error, configure, monkeypatch
):
    """A worker that could not run a task ends with the option that it needs."""

    def plain(request): ...

    async def coroutine(request): ...

    config = configure()
    config.register_task(coroutine if is_async else plain, name="it")
    app = config.make_celery_app()
    fake = ModuleType(module)
    setattr(fake, asked, lambda _: is_patched)
    monkeypatch.setitem(sys.modules, module, fake)
    pool_cls = type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"})
    if error is None:
        assert _check_greenlets(pool_cls, app) is None
    else:
        with pytest.raises(SystemExit, match=error.format(pool=pool)):
            _check_greenlets(pool_cls, app)
