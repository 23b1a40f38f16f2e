"""The events of workers in this process: who is told, and who is not."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
from celery import signals
from celery._state import _set_task_join_will_block
from celery.app import trace
from celery.contrib.testing.worker import start_worker
from celery.utils.dispatch import Signal
from pyramid.threadlocal import get_current_registry

import pyramid_tasks
from pyramid_tasks import CeleryBeatInit, CeleryWorkerInit, CeleryWorkerProcessInit
from pyramid_tasks.events import ProcessEvent

pytestmark = pytest.mark.filterwarnings(
    "ignore:You're running the worker with superuser"
)


@pytest.fixture
def watched(configure):
    """Return a function that makes an application which notes its events."""

    def watched(seen):
        config = configure(**{"celery.broker_url": "memory://"})
        config.add_subscriber(seen.append, ProcessEvent)
        config.make_celery_app()
        return config

    return watched


@contextmanager
def making(app):
    """Make a worker that runs no tasks, and undo what that does to the process."""
    try:
        yield app.Worker(pool="solo")
    finally:
        trace.reset_worker_optimizations(app)
        _set_task_join_will_block(blocks=False)


def receivers():
    gc.collect()
    return {
        name: [key for key, _ in value.receivers]
        for name, value in vars(signals).items()
        if isinstance(value, Signal)
    }


def test_web_process_connects_nothing(configure):
    """A process with three applications connects no receiver to any signal."""
    before = receivers()
    assert {"worker_process_init", "worker_init", "beat_init"} <= before.keys()
    configs = [
        configure(**{"celery.task_always_eager": True, "number": str(number)})
        for number in range(3)
    ]
    for config in configs:
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
    configs = [watched(events) for events in seen]
    apps = [config.registry["pyramid_tasks"].app for config in configs]
    options = {"concurrency": 1, "perform_ping_check": False}
    with (
        start_worker(apps[0], pool=pools[0], **options),
        start_worker(apps[1], pool=pools[1], **options),
    ):
        pass
    for events, config in zip(seen, configs, strict=True):
        assert all(event.registry is config.registry for event in events)
        assert [type(event).__name__ for event in events] == [
            "CeleryWorkerInit",
            "CeleryWorkerProcessInit",
            "CeleryWorkerReady",
            "CeleryWorkerProcessShutdown",
            "CeleryWorkerShutdown",
        ]


def test_child_of_one_worker_tells_no_other_application(watched):
    """In a child of the prefork pool, only the application of its worker is told."""
    seen = [], []
    app, other = [watched(events).registry["pyramid_tasks"].app for events in seen]
    for one in app, other:
        one.loader.init_worker()
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender="worker@host")
    signals.worker_process_shutdown.send(sender="worker@host", pid=1, exitcode=0)
    assert [type(event).__name__ for event in seen[0]] == [
        "CeleryWorkerProcessInit",
        "CeleryWorkerProcessShutdown",
    ]
    assert seen[1] == []


def test_beat_of_one_application_tells_no_other(watched):
    """Beat's signal is not for every application in the process."""
    seen = [], []
    app, other = [watched(events).registry["pyramid_tasks"].app for events in seen]
    for one in app, other:
        one.loader.init_worker()
    signals.beat_init.send(sender=app.Beat().Service(app=app))
    assert [type(event) for event in seen[0]] == [CeleryBeatInit]
    assert seen[1] == []


@pytest.mark.parametrize("event", [CeleryWorkerInit, CeleryWorkerProcessInit])
def test_error_surfaces_where_the_worker_is_made(event, configure, caplog):
    """An error in a subscriber comes out of ``app.Worker()``, and is logged."""

    def fail(event):
        raise LookupError("nothing there")

    settings = {"celery.worker_hijack_root_logger": False}  # caplog has its handler
    config = configure(**{"celery.broker_url": "memory://"}, **settings)
    config.add_subscriber(fail, event)
    app = config.make_celery_app()
    with pytest.raises(LookupError, match="nothing there"), making(app):
        pass
    messages = [record.message for record in caplog.records]
    assert f"A subscriber of {event.__name__} failed" in messages


def test_subscribers_have_the_registry_as_threadlocal(configure):
    """Subscribers find the registry as those of ApplicationCreated do."""
    found = []
    config = configure(**{"celery.broker_url": "memory://"})
    config.add_subscriber(
        lambda event: found.append(get_current_registry()), CeleryWorkerInit
    )
    app = config.make_celery_app()
    outside = get_current_registry()
    with making(app):
        pass
    assert found == [config.registry]
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
