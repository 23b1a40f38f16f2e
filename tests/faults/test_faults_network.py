"""Connections that are cut, servers that do not answer, and a locked database."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from support import need_service, wait_until

pytest.importorskip("zope.sqlalchemy")
from databases import database
from proxy import Proxy
from shop import FRACTION, PATIENCE, Load, Shop, lost_and_duplicates, times
from sqlalchemy import create_engine, text

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

BROKERS = {
    "redis": ("redis://localhost:{}/0", "redis-server", 6379),
    "rabbitmq": ("amqp://guest:guest@localhost:{}//", "rabbitmq-server", 5672),
}
#: The seconds that a request may take: two for the broker, the rest for a slow machine.
LIMIT = 10.0


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Proxy]]:
    """Give the URL of a broker, that of a proxy before it, and the proxy."""
    address, start, port = BROKERS[request.param]
    need_service(request.param, port, start)
    with closing(Proxy(port)) as proxy:
        yield address.format(port), address.format(proxy.port), proxy


@pytest.mark.parametrize("delivery", ["outbox", "commit"])
def test_connections_are_reset(tmp_path, url, broker, delivery, report) -> None:
    """All connections to the broker are cut again and again, under load."""
    server, through_proxy, proxy = broker
    cuts = times(30)
    shop = Shop(tmp_path, url, through_proxy, pyramid_tasks__delivery=delivery)
    shop.server = server
    with shop.pserve() as process, shop.relay() as relay:
        with Load(shop) as load:
            for _ in range(cuts):
                time.sleep(random.uniform(0.1, 0.6))
                proxy.reset()
        wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
    lost, duplicates = lost_and_duplicates(list(shop.orders().values()), shop.sent())
    told = process.output.count("could not be sent")
    report(
        requests=len(load.answers),
        cuts=cuts,
        statuses=load.statuses,
        slowest=f"{load.slowest:.2f} s",
        lost=lost,
        told=told,
        duplicates=duplicates,
    )
    assert set(shop.orders()) == load.promised()
    assert lost <= (told if delivery == "commit" else 0)


@pytest.mark.parametrize("delivery", ["outbox", "commit"])
def test_broker_hangs(tmp_path, url, broker, delivery, report) -> None:
    """A broker that stops to answer costs a request its time limit, and no more."""
    server, through_proxy, proxy = broker
    seconds = max(5.0, 25 * FRACTION)
    shop = Shop(tmp_path, url, through_proxy, pyramid_tasks__delivery=delivery)
    shop.server = server
    with shop.pserve() as process, shop.relay() as relay:
        with Load(shop) as load:
            time.sleep(1)
            proxy.silence()
            time.sleep(seconds)
            proxy.reset()
            proxy.speak()
            time.sleep(2)
        wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
    lost, duplicates = lost_and_duplicates(list(shop.orders().values()), shop.sent())
    told = process.output.count("could not be sent")
    report(
        requests=len(load.answers),
        silent_for=f"{seconds:g} s",
        statuses=load.statuses,
        slowest=f"{load.slowest:.2f} s",
        lost=lost,
        told=told,
        duplicates=duplicates,
    )
    assert load.slowest < LIMIT
    assert set(shop.orders()) == load.promised()
    if delivery == "outbox":
        assert set(load.statuses) == {200}
    assert lost <= (told if delivery == "commit" else 0)


def test_backends_are_terminated(tmp_path, url, redis_url, report) -> None:
    """The connections of web process and relay to PostgreSQL end, under load."""
    ends = times(150)
    shop = Shop(tmp_path, url, redis_url)
    statement = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    ended = 0
    with shop.pserve(), shop.relay() as relay:
        with Load(shop) as load:
            while ended < ends:
                time.sleep(random.uniform(0.1, 0.5))
                with shop.engine.connect() as connection:
                    ended += connection.scalar(statement)
        wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
        assert relay.popen.poll() is None
    lost, duplicates = lost_and_duplicates(list(shop.orders().values()), shop.sent())
    report(
        requests=len(load.answers),
        ended=ended,
        statuses=load.statuses,
        lost=lost,
        duplicates=duplicates,
    )
    assert load.promised() <= set(shop.orders())
    assert lost == 0


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_two_relays(tmp_path, redis_url, kind, report) -> None:
    """One works and the other stands by: each message is sent once, in order."""
    count = times(1000)
    with database(kind, tmp_path) as url:
        shop = Shop(tmp_path, url, redis_url, pyramid_tasks__outbox_send="relay")
        with shop.relay("--batch", 7) as one, shop.relay("--batch", 7) as other:
            with shop.pserve(), Load(shop, clients=1) as load:
                wait_until(lambda: len(load.answers) >= count, PATIENCE)
            wait_until(lambda: not shop.outbox(), PATIENCE, lambda: one.output)
        orders = [shop.orders()[number] for number in sorted(load.promised())]
        sent = shop.sent()
        shop.engine.dispose()
    lost, duplicates = lost_and_duplicates(orders, sent)
    report(orders=len(orders), lost=lost, duplicates=duplicates)
    # Redis has the last message first.
    assert list(reversed(sent)) == orders
    assert (lost, duplicates) == (0, 0)
    assert "is down" not in one.output + other.output
    assert ("stands by" in one.output) is not ("stands by" in other.output)


def test_locked_database(tmp_path, redis_url, report) -> None:
    """SQLite is locked for long: what was sent is sent once."""
    seconds = max(8.0, 40 * FRACTION)
    with database("sqlite", tmp_path) as url:
        shop = Shop(tmp_path, url, redis_url)
        with shop.pserve(), shop.relay("--batch", 50) as relay:
            # What the web process leaves, as it is not yet its turn to send.
            for number in range(50):
                with shop.engine.begin() as connection:
                    store_order(connection, number)
            lock = create_engine(url).connect()
            lock.execute(text("UPDATE pyramid_tasks_outbox SET attempts = attempts"))
            time.sleep(seconds)
            lock.rollback()
            lock.close()
            wait_until(lambda: not shop.outbox(), PATIENCE, lambda: relay.output)
        lost, duplicates = lost_and_duplicates(
            list(shop.orders().values()), shop.sent()
        )
        report(locked_for=f"{seconds:g} s", lost=lost, duplicates=duplicates)
        shop.engine.dispose()
    assert (lost, duplicates) == (0, 0)


def store_order(connection, number: int) -> None:
    """Store an order, and its row in the outbox, which is due at once."""
    task_id = f"task-{number}"
    connection.execute(text(f"INSERT INTO orders VALUES ({number}, '{task_id}')"))
    message = f'{{"args": [{number}], "kwargs": {{}}, "options": {{}}}}'.replace(
        '"options": {}', f'"options": {{"task_id": "{task_id}"}}'
    )
    connection.execute(
        text(
            "INSERT INTO pyramid_tasks_outbox "
            "(task, task_id, message, created, not_before) "
            "VALUES ('outboxapp.fulfil', :id, :message, 0, 0)"
        ),
        {"id": task_id, "message": message},
    )
