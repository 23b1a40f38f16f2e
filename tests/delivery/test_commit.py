"""Delivery by commit, with brokers that fail before the commit and after it."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from typing import NamedTuple

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu import Connection
from proxy import Proxy
from pyramid.scripting import prepare
from sqlalchemy import create_engine
from support import need_service
from transactional import TransactionalApp

from pyramid_tasks.events import TaskDeliveryFailed
from pyramid_tasks.exceptions import BrokerUnavailable


class Broker(NamedTuple):
    url: str
    server: tuple[str, int, str]
    port: int


BROKERS = {
    "redis": Broker("redis://localhost:{}/0", ("Redis", 6379, "redis-server"), 6379),
    "rabbitmq": Broker(
        "amqp://guest:guest@localhost:{}//",
        ("RabbitMQ", 5672, "rabbitmq-server -detached"),
        5672,
    ),
}


def record(request, x): ...


class App(TransactionalApp):
    def __init__(self, broker, settings):
        self.broker = broker
        self.failures = []
        super().__init__(create_engine("sqlite://"), settings, None)
        self.registry.registerHandler(self.failures.append, [TaskDeliveryFailed])

    def add_tasks(self, config):
        config.register_task(record, name="record")

    def defer(self, *values, at_vote=None):
        """Defer tasks in a transaction, and do something while it commits."""
        with prepare(registry=self.registry) as env:
            request = env["request"]
            request.tm.begin()
            if at_vote is not None:
                request.tm.get().join(Resource(at_vote))
            results = [request.defer_task("record", value) for value in values]
            try:
                request.tm.commit()
            except BaseException:
                request.tm.abort()
                raise
            return results

    def sent(self):
        """Return the arguments of the tasks in the queue, and empty it."""
        found = []
        with Connection(self.broker.url.format(self.broker.port)) as connection:
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True, auto_delete=False)
            while message := channel.basic_get(self.queue, no_ack=True):
                found.append(json.loads(message.body)[0][0])
            channel.queue_delete(self.queue)
        return found


class Resource:
    """A resource that does something when the transaction is about to commit."""

    def __init__(self, act):
        self.act = act

    def sortKey(self):  # noqa: N802 the interface
        return "a"

    def __getattr__(self, name):
        return lambda _: self.act() if name == "tpc_vote" else None


@pytest.fixture(params=BROKERS)
def broker(request):
    broker = BROKERS[request.param]
    need_service(*broker.server)
    return broker


@pytest.fixture
def proxy(broker):
    proxy = Proxy(broker.port)
    yield proxy
    proxy.close()


@pytest.fixture
def app(broker, proxy):
    return App(
        broker,
        {
            "celery.broker_url": broker.url.format(proxy.port),
            "pyramid_tasks.delivery_timeout": "1",
        },
    )


def test_one_connection(app, proxy):
    """A transaction opens no connection where the pool has one that lives."""
    for number in range(5):
        app.defer(number, at_vote=lambda: None)
    assert app.sent() == [0, 1, 2, 3, 4]
    # Redis has a connection beside the one that kombu opens.
    assert proxy.connections <= 2


def test_dead_connection_is_replaced(app, proxy):
    """What dies between two transactions, or at the commit, loses nothing."""
    app.defer(1)
    proxy.reset()
    app.defer(2)
    app.defer(3, at_vote=proxy.reset)
    assert app.sent() == [1, 2, 3]
    assert app.failures == []


@pytest.mark.parametrize("how", ["silence", "refuse"])
def test_broker_fails_before_the_commit(app, proxy, how):
    """The transaction aborts, and says why, whatever the broker does."""
    getattr(proxy, how)()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="localhost") as caught:
            app.defer(1)
        assert "guest@" not in str(caught.value)
    proxy.speak()
    if how == "silence":
        app.defer(2)
        assert app.sent() == [2]


@pytest.mark.parametrize("how", ["silence", "refuse"])
def test_broker_fails_after_the_commit(app, proxy, how, caplog):
    """Each task is told, whatever a subscriber does about another one."""
    app.registry.registerHandler(lambda event: 1 / 0, [TaskDeliveryFailed])
    results = app.defer(1, 2, 3, at_vote=getattr(proxy, how))
    assert [failure.args for failure in app.failures] == [(1,), (2,), (3,)]
    assert not any(result.sent for result in results)
    for number in 1, 2, 3:
        assert f"record args=[{number}]" in caplog.text
    assert caplog.text.count("A subscriber of TaskDeliveryFailed failed") == 3


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded, KeyboardInterrupt])
def test_time_limit_while_sending(app, monkeypatch, caplog, error):
    """It ends the task that defers, after each task that is not sent was told."""
    send_task = app.celery.send_task

    def send(name, args, kwargs, **options):
        if list(args) == [2]:
            raise error
        return send_task(name, args, kwargs, **options)

    app.defer(0)
    monkeypatch.setattr(app.celery, "send_task", send)
    caplog.set_level(logging.ERROR)
    with pytest.raises(error):
        app.defer(1, 2, 3)
    assert [failure.args for failure in app.failures] == [(2,), (3,)]
    monkeypatch.undo()
    app.defer(4)
    assert app.sent() == [0, 1, 4]


def test_sentinel_that_is_silent(broker):
    """A sentinel that does not answer costs the time limit, and not ten times that."""
    if not broker.url.startswith("redis"):
        pytest.skip("RabbitMQ has no sentinels")
    with closing(Proxy(broker.port)) as silent:
        silent.silence()
        options = {"master_name": "shop", "sentinel_kwargs": {"db": 0}}
        app = App(
            broker,
            {
                "celery.broker_url": f"sentinel://localhost:{silent.port}/0",
                "celery.broker_transport_options": options,
                "pyramid_tasks.delivery_timeout": "0.5",
            },
        )
        with pytest.raises(BrokerUnavailable):
            app.defer(1)
        # Each attempt is a connection.
        assert silent.connections <= 2


def test_result_backend_that_is_down(broker):
    """Nobody waits for a result backend to send a task."""
    app = App(
        broker,
        {
            "celery.broker_url": broker.url.format(broker.port),
            "celery.result_backend": "redis://localhost:1/0",
        },
    )
    (result,) = app.defer(1)
    assert result.sent
    assert app.sent() == [1]
