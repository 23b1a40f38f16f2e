"""Connections that are cut, servers that do not answer, and a locked database."""

from __future__ import annotations

import json
import random
import time
from contextlib import closing

import pytest
from databases import database
from proxy import Proxy
from shop import FRACTION, PATIENCE, Load, Shop, lost_and_duplicates, times
from sqlalchemy import create_engine, insert, text
from support import need_service, wait_until

from pyramid_tasks.contrib.outbox_table import OutboxMessage

BROKERS = {
    "redis": ("redis://localhost:{}/0", "redis-server", 6379),
    "rabbitmq": ("amqp://guest:guest@localhost:{}//", "rabbitmq-server", 5672),
}


@pytest.fixture(params=BROKERS)
def broker(request):
    """Give the URL of a broker, that of a proxy before it, and the proxy."""
    address, start, port = BROKERS[request.param]
    need_service(request.param, port, start)
    if request.param == "redis":
        request.getfixturevalue("redis_url")  # which deletes the queues
    with closing(Proxy(port)) as proxy:
        yield address.format(port), address.format(proxy.port), proxy


def test_connections_are_reset(broker, trial) -> None:
    """All connections to the broker are cut again and again, under load."""
    server, through_proxy, proxy = broker
    with trial(through_proxy, server=server):
        for _ in range(times(30)):
            time.sleep(random.uniform(0.1, 0.6))
            proxy.reset()


@pytest.mark.parametrize("when", ["before", "at", "after"])
def test_broker_hangs(broker, when, trial) -> None:
    """A broker that hangs before a message, at it or after it costs the time limit."""
    server, through_proxy, proxy = broker
    with trial(through_proxy, server=server) as run:
        if when == "before":
            proxy.silence()
        else:
            proxy.silence_at(b"outboxapp.fulfil", passing=when == "after")
        time.sleep(max(3.0, 25 * FRACTION))
        run.restart_relay()
        proxy.reset()
        proxy.speak()


def test_backends_are_terminated(shop, report) -> None:
    """The connections of web process and relay to PostgreSQL end, under load."""
    ended = 0
    with shop.pserve(), shop.relay() as relay:
        with Load(shop) as load:
            while ended < times(150):
                time.sleep(random.uniform(0.1, 0.5))
                ((count,),) = shop.query(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                ended += count
        shop.wait_until_sent(relay)
        assert relay.popen.poll() is None
    found = shop.outcome()
    report(requests=len(load.answers), ended=ended, statuses=load.statuses, **found)
    assert load.promised() <= set(shop.orders())
    assert found["lost"] == 0


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_two_relays(tmp_path, redis_url, kind, report) -> None:
    """One works and the other stands by: each message is sent once, in order."""
    count = times(1000)
    with database(kind, tmp_path) as url:
        shop = Shop(tmp_path, url, redis_url, pyramid_tasks__outbox_send="relay")
        with shop.relay("--batch", 7) as one, shop.relay("--batch", 7) as other:
            with shop.pserve(), Load(shop, clients=1) as load:
                wait_until(lambda: len(load.answers) >= count, PATIENCE)
            shop.wait_until_sent(one, other)
        orders = [shop.orders()[number] for number in sorted(load.promised())]
        sent = shop.sent()
        shop.engine.dispose()
    found = lost_and_duplicates(orders, sent)
    report(orders=len(orders), **found)
    # Redis has the last message first.
    assert list(reversed(sent)) == orders
    assert found == {"lost": 0, "duplicates": 0}
    assert "is down" not in one.output + other.output
    assert ("stands by" in one.output) is not ("stands by" in other.output)


def test_locked_database(tmp_path, redis_url, report) -> None:
    """SQLite is locked for long: what was sent is sent once."""
    seconds = max(8.0, 40 * FRACTION)
    with database("sqlite", tmp_path) as url:
        shop = Shop(tmp_path, url, redis_url)
        with shop.relay("--batch", 50) as relay:
            for number in range(50):
                store_order(shop, number)
            lock = create_engine(url).connect()
            lock.execute(text("UPDATE pyramid_tasks_outbox SET attempts = attempts"))
            time.sleep(seconds)
            lock.rollback()
            lock.close()
            shop.wait_until_sent(relay)
        found = shop.outcome()
        report(locked_for=f"{seconds:g} s", **found)
        shop.engine.dispose()
    assert found == {"orders": 50, "lost": 0, "duplicates": 0}


def store_order(shop: Shop, number: int) -> None:
    """Store an order, and its row in the outbox, which is due at once."""
    task_id = f"task-{number}"
    message = {"args": [number], "kwargs": {}, "options": {"task_id": task_id}}
    row = {"task_id": task_id, "message": json.dumps(message)}
    row |= {"task": "outboxapp.fulfil", "created": 0, "not_before": 0}
    with shop.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO orders VALUES ({number}, '{task_id}')"))
        connection.execute(insert(OutboxMessage).values(row))
