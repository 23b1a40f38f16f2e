"""A real worker in the test of an application."""

from __future__ import annotations

import logging
import threading

import pytest
from celery import _state, chord
from kombu.transport import memory
from pyramid import testing
from pyramid.config import Configurator
from pyramid.request import apply_request_extensions
from webtest import TestApp as WebTestApp

from pyramid_tasks.testing import start_worker

NOWHERE = "redis://localhost:1/0"


def where(request, x):
    return [threading.current_thread().name, x]


def fail(request):
    raise ValueError("no")


def total(request, found):
    return sum(x for _, x in found)


def view(request):
    return request.defer_task(where, 5).get(timeout=20)


def configure(config):
    config.include("pyramid_tasks")
    for task in where, fail, total:
        config.register_task(task)
    config.add_view(view, renderer="json")


@pytest.fixture(params=[False, True], ids=["", "eager"])
def app(request):
    settings = dict.fromkeys(("celery.broker_url", "celery.result_backend"), NOWHERE)
    settings |= {
        "celery.broker_transport_options.global_keyprefix": "x",
        "celery.task_always_eager": request.param,
    }
    with Configurator(settings=settings) as config:
        configure(config)
        return config.make_wsgi_app()


def test_testing_setup():
    """An application of pyramid.testing.setUp() has a worker too, and its results."""
    with testing.testConfig() as config:
        configure(config)
        request = testing.DummyRequest()
        apply_request_extensions(request)
        with start_worker(config.registry, pool="threads", concurrency=2):
            failed = request.defer_task(fail)
            with pytest.raises(ValueError, match="no"):
                failed.get(timeout=20)
            s = request.task_signature
            canvas = chord([s(where, 1), s(where, 2)], s(total))
            assert request.defer_canvas(canvas).get(timeout=20) == 3


def test_webtest(app, monkeypatch, caplog):
    """A worker runs what a view defers, in a thread of its own, with a result.

    Afterwards the application, Celery and logging are as they were.
    """
    monkeypatch.setenv("CELERY_RESULT_BACKEND", NOWHERE)
    celery = app.registry["pyramid_tasks"].app

    def state():
        return (
            *(_state.default_app, _state._tls.current_app),
            *(_state._task_join_will_block, celery.pool, celery.backend, celery.log),
            *(dict(celery.conf), celery.connection_for_write().as_uri()),
            *(logging.root.level, list(logging.root.handlers)),
        )

    before = state()
    for _ in range(2):
        with start_worker(app.registry):
            name, value = WebTestApp(app).get("/").json
        assert name != threading.current_thread().name
        assert value == 5
    assert state() == before


def test_workers_share_nothing(app):
    """What was left in the queue of one worker does not reach the next."""
    brokers = []
    for _ in range(2):
        with start_worker(app.registry) as worker:
            brokers.append(worker.app.conf.broker_transport.Channel)
            worker.app.send_task("nobody.takes.this", queue="later")
    first, second = brokers
    assert first.queues["later"] is not second.queues["later"]
    assert "later" not in memory.Channel.queues
