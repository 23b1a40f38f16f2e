"""Delivery by commit, with brokers that fail before the commit and after it."""

from __future__ import annotations

import json
import logging
import sys
from threading import Timer
from typing import NamedTuple
from unittest.mock import DEFAULT, Mock, patch

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu import Connection, Producer
from kombu.exceptions import EncodeError
from proxy import Proxy
from pyramid.scripting import prepare
from redis import Redis
from redis.exceptions import ResponseError
from sqlalchemy import create_engine
from support import DEADLINE, need_service, unique
from transactional import Resource, TransactionalApp

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.delivery.faults import BrokerDown
from pyramid_tasks.delivery.publisher import Publisher
from pyramid_tasks.delivery.result_backends import SendingBackend, limited_backend
from pyramid_tasks.delivery.transports import is_alive, limit_waits
from pyramid_tasks.events import TaskDeliveryFailed
from pyramid_tasks.exceptions import BrokerUnavailable


class Broker(NamedTuple):
    url: str
    port: int
    start: str

    def at(self, port):
        return self.url.format(port)


BROKERS = {
    "redis": Broker("redis://localhost:{}/0", 6379, "redis-server"),
    "rabbitmq": Broker(
        "amqp://guest:guest@localhost:{}//", 5672, "rabbitmq-server -detached"
    ),
}
SENTINEL = {"master_name": "shop", "sentinel_kwargs": {"socket_timeout": 60}}
REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True)


def record(request, x): ...


class App(TransactionalApp):
    def __init__(self, broker, **settings):
        self.broker, self.failures = broker, []
        settings = {"celery__broker_url": broker.at(broker.port)} | settings
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
                request.tm.get().join(Resource("tpc_vote", at_vote))
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
        with Connection(self.broker.at(self.broker.port)) as connection:
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True, auto_delete=False)
            while message := channel.basic_get(self.queue, no_ack=True):
                found.append(json.loads(message.body)[0][0])
            channel.queue_delete(self.queue)
        return found


@pytest.fixture(params=BROKERS)
def broker(request):
    broker = BROKERS[request.param]
    need_service(request.param, broker.port, broker.start)
    return broker


@pytest.fixture
def proxy(broker):
    proxy = Proxy(broker.port)
    yield proxy
    proxy.close()


@pytest.fixture
def app(broker, proxy):
    url = broker.at(proxy.port)
    return App(broker, celery__broker_url=url, pyramid_tasks__delivery_timeout="1")


def test_one_connection(app, proxy):
    """A transaction opens no connection where the pool has one that lives."""
    for number in range(5):
        app.defer(number, at_vote=lambda: None)
    assert app.sent() == [0, 1, 2, 3, 4]
    # Redis has a connection beside the one that kombu opens.
    assert proxy.connections <= 2


def test_connection_that_is_in_use(app, monkeypatch):
    """Whoever commits waits for a connection of the pool, for a while."""
    app.celery.conf.broker_pool_limit = 1
    publisher = Publisher(app.celery, 1)
    producer = publisher.acquire()
    with pytest.raises(BrokerDown, match="broker_pool_limit are in use"):
        publisher.acquire()
    Timer(0.1, producer.release).start()
    publisher.acquire().release()
    path = "pyramid_tasks.delivery.publisher.replace_dead"
    monkeypatch.setattr(path, Mock(side_effect=SoftTimeLimitExceeded))
    for _ in range(2):
        with pytest.raises(SoftTimeLimitExceeded):
            publisher.acquire()


def test_dead_connection_is_replaced(app, proxy, monkeypatch):
    """What dies between two transactions, or at the commit, loses nothing.

    A connection declares the queue once, and a new one to RabbitMQ declares it again.
    Kombu tries once: its own tries would not end within the time of the delivery.
    """
    declared, publish = [], Producer.publish

    def note(*args, declare, retry, **options):
        assert not retry
        declared.append(len(declare))
        return publish(*args, declare=declare, retry=retry, **options)

    monkeypatch.setattr(Producer, "publish", note)
    app.defer(1)
    app.defer(1)
    proxy.reset()
    app.defer(2)
    app.defer(3, at_vote=proxy.reset)
    assert app.sent() == [1, 1, 2, 3]
    assert app.failures == []
    assert declared[:2] == [1, 0]
    # The client may learn of a reset only when it has tried.
    assert 1 in declared[2:] or app.broker.port != 5672


def test_connection_that_kombu_made_again(app):
    """RabbitMQ confirms messages only on a channel that was prepared, which it is."""
    publisher = Publisher(app.celery, DEADLINE)
    with publisher.producer() as producer:
        connection = producer.connection
        assert is_alive(connection)
        connection.close()
        connection.connect()
        assert is_alive(connection) == (app.broker.port != 5672)
    with publisher.producer() as producer:
        assert producer.connection is connection
        assert is_alive(connection)


@pytest.mark.parametrize("how", ["silence", "refuse"])
def test_broker_fails_before_the_commit(app, proxy, how):
    """The transaction aborts, and says why, whatever the broker does."""
    getattr(proxy, how)()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="localhost") as caught:
            app.defer(1)
        assert "guest@" not in str(caught.value)
    assert proxy.connections == (2 if how == "silence" else 0)
    proxy.speak()
    if how == "silence":
        app.defer(2)
        assert app.sent() == [2]


def test_broker_that_confirms_nothing(app, proxy):
    """It has all tasks of a transaction before its first answer is waited for."""
    app.defer(0)
    results = app.defer(1, 2, 3, at_vote=proxy.silence_server)
    assert not any(result.sent for result in results)
    proxy.speak()
    assert app.sent() == [0, 1, 2, 3]


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


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SoftTimeLimitExceeded(), SoftTimeLimitExceeded),
        (EncodeError(SoftTimeLimitExceeded()), SoftTimeLimitExceeded),  # as kombu does
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=repr,
)
def test_time_limit_while_sending(app, monkeypatch, caplog, error, raised):
    """It ends the task that defers, after each task that is not sent was told."""
    send_task, once = app.celery.send_task, [error]

    def send(name, args, kwargs, **options):
        if list(args) == [2] and once:
            raise once.pop()
        return send_task(name, args, kwargs, **options)

    app.defer(0)
    monkeypatch.setattr(app.celery, "send_task", send)
    caplog.set_level(logging.ERROR)
    with pytest.raises(raised):
        app.defer(1, 2, 3)
    assert [failure.args for failure in app.failures] == [(2,), (3,)]
    monkeypatch.undo()
    app.defer(4)
    assert app.sent() == [0, 1, 4]
    # Both fail together and the first one alone, before the time is over.
    del app.failures[:]
    errors = [ValueError, ValueError, ValueError, error]
    monkeypatch.setattr(app.celery, "send_task", Mock(side_effect=errors))
    with pytest.raises(raised):
        app.defer(5, 6)
    assert [failure.args for failure in app.failures] == [(5,), (6,)]


def test_pool_limits_of_two_applications(app):
    """A pool that is in use cannot shrink to the limit of another application."""
    with Publisher(app.celery, DEADLINE).producer():
        other = App(app.broker, celery__broker_pool_limit=2)
        other.defer(1)
    assert other.sent() == [1]


def test_time_limit_after_an_error(app):
    """It ends the task, whatever error is the reason why a batch ends early."""
    publisher = Publisher(app.celery, DEADLINE)

    def end_early():
        with (
            publisher.producer() as producer,
            publisher.publish_batch(producer) as batch,
        ):
            batch.finish = Mock(side_effect=SoftTimeLimitExceeded)
            raise ValueError

    with pytest.raises(SoftTimeLimitExceeded):
        end_early()


def test_time_limit_of_a_subscriber(app, proxy):
    """A subscriber whose time is over ends the task, and the others are told."""
    times = Mock(side_effect=[SoftTimeLimitExceeded, None])
    app.registry.registerHandler(times, [TaskDeliveryFailed])
    with pytest.raises(SoftTimeLimitExceeded):
        app.defer(1, 2, at_vote=proxy.refuse)
    assert [call.args[0].args for call in times.mock_calls] == [(1,), (2,)]


def test_time_is_up(app, monkeypatch):
    """What the time of the delivery is too short for is told, with the setting."""
    monkeypatch.setattr("pyramid_tasks.delivery.commit._MOMENT", -60)
    app.defer(1)
    (failure,) = app.failures
    assert str(failure.exception) == "pyramid_tasks.delivery_timeout is over"
    assert app.sent() == []


@pytest.mark.parametrize("delivery", ["commit", "outbox"])
@pytest.mark.parametrize("values", [[(1,)], [(1,), (2,)]])
def test_broker_fails_before_the_hooks_of_an_abort(app, proxy, values, delivery):
    """Each task of an after-abort hook is told, and the broker is asked once."""
    metadata.create_all(app.engine)
    with prepare(registry=app.registry) as env:
        request = env["request"]
        request.tm.begin().addAfterAbortHook(
            lambda: request.defer_tasks("record", values, delivery=delivery)
        )
        proxy.silence()
        request.tm.abort()
    assert [failure.args for failure in app.failures] == values
    assert {type(failure.exception) for failure in app.failures} == {BrokerDown}
    assert proxy.connections == 1


def test_without_sqlalchemy(app, monkeypatch):
    """An application without SQLAlchemy has no savepoints to look for."""
    monkeypatch.setitem(sys.modules, "sqlalchemy.orm", None)
    app.defer(1)
    assert app.sent() == [1]


def test_first_host_is_silent(broker, proxy):
    """A host that does not answer leaves the next one time to."""
    proxy.silence()
    urls = broker.at(proxy.port), broker.at(broker.port)
    app = App(broker, celery__broker_url=";".join(urls))
    for number in 1, 2:
        app.defer(number)
    assert app.sent() == [1, 2]


@REDIS
def test_sentinel_that_is_silent(broker, proxy):
    """A sentinel that does not answer costs the time limit, and not ten times that."""
    proxy.silence()
    app = App(
        broker,
        celery__broker_url=f"sentinel://localhost:{proxy.port}/0",
        celery__broker_transport_options=SENTINEL,
        pyramid_tasks__delivery_timeout="0.5",
    )
    with pytest.raises(BrokerUnavailable):
        app.defer(1)
    # Each attempt is a connection.
    assert proxy.connections <= 2
    # The sentinels have one half of the time, and the master the other one.
    connection = app.celery.connection_for_write()
    limit_waits(connection, 0.5)
    assert connection.transport_options["socket_timeout"] == 0.5 / 2


@REDIS
def test_result_backend_with_a_sentinel_that_is_silent(broker, proxy):
    """A chord, which needs the result backend, waits no longer for a sentinel."""
    proxy.silence()
    celery = App(broker).celery
    celery.conf.result_backend = f"sentinel://localhost:{proxy.port}/0"
    celery.conf.result_backend_transport_options = SENTINEL
    with pytest.raises(BrokerDown):
        SendingBackend(celery, 0.5).set_chord_size("id", 2)
    assert proxy.connections <= 2
    limited = limited_backend(celery, celery.backend, 0.5)
    assert limited.connparams["socket_timeout"] == 0.5 / 2


@pytest.mark.parametrize(
    "backend",
    ["redis://localhost:1/0", "db+postgresql+psycopg://postgres@localhost:1/none"],
)
def test_result_backend_that_is_down(broker, backend):
    """Nobody waits for a result backend to send a task, or connects to it."""
    app = App(broker, celery__result_backend=backend)
    with patch("sqlalchemy.pool.base.Pool.connect", Mock()) as connect:
        (result,) = app.defer(1)
    assert result.sent
    assert app.sent() == [1]
    assert connect.call_count == 0


@REDIS
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResponseError("OOM full"), (BrokerDown, "which chords need: OOM full")),
        (SoftTimeLimitExceeded("over"), (SoftTimeLimitExceeded, "over")),
    ],
    ids=repr,
)
def test_result_backend_that_fails(broker, error, expected):
    """A chord waits for a backend that takes nothing, and for no other error."""
    celery = App(broker, celery__result_backend="redis://localhost/0").celery
    expected, words = expected
    with (
        patch.object(type(celery.result_backend), "set_chord_size", side_effect=error),
        pytest.raises(expected, match=words),
    ):
        SendingBackend(celery, 0.5).set_chord_size("id", 2)


def test_one_of_many_is_refused(app, monkeypatch):
    """Messages that go together are taken or refused each for itself, none twice."""
    with patch.object(Publisher, "publish") as alone, monkeypatch.context() as some:
        some.setattr("pyramid_tasks.delivery.commit._BATCH_SIZE", 1)
        app.defer(-2, -1)
    assert alone.call_count == 0
    refused = {"queue": unique()}
    if app.broker.url.startswith("redis"):
        with Redis(port=app.broker.port) as client:
            client.set(refused["queue"], "no list", ex=60)
    else:
        refused = {"exchange": "amq.direct", "routing_key": "x" * 300}
    app.defer(0)
    with prepare(registry=app.registry) as env, env["request"].tm:
        for number in range(1, 4):
            options = refused if number == 2 else {}
            env["request"].defer_task_with_options("record", (number,), **options)
    assert [failure.args for failure in app.failures] == [(2,)]
    assert app.sent() == [-2, -1, 0, 1, 3]


@pytest.mark.parametrize(("error", "size"), [(ValueError, 1), (OSError, 2)])
def test_order_of_batches(app, monkeypatch, error, size):
    """A task that is sent by the second attempt goes before those of the next batch.

    So it does before those of its batch if the connection was the cause.
    """
    monkeypatch.setattr("pyramid_tasks.delivery.commit._BATCH_SIZE", size)
    once = [error, DEFAULT, DEFAULT]
    send_task = Mock(side_effect=once, wraps=app.celery.send_task)
    monkeypatch.setattr(app.celery, "send_task", send_task)
    app.defer(1, 2)
    assert app.sent() == [1, 2]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_exchange_that_is_not_there(app):
    """RabbitMQ closes the channel, and the next transaction has another one."""
    unknown = {"exchange": unique(), "routing_key": "x"}
    app.defer(-1, 0)  # together, and the connection is kept
    with prepare(registry=app.registry) as env, env["request"].tm:
        request = env["request"]
        # Whoever is told need not wait for a transaction any more.
        app.registry.registerHandler(
            lambda _: request.defer_task("record", 2), [TaskDeliveryFailed]
        )
        request.defer_task_with_options("record", (1,), **unknown)
    app.defer(3)
    assert [failure.args for failure in app.failures] == [(1,)]
    assert app.sent() == [-1, 0, 2, 3]
