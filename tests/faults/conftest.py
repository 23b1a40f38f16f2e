"""The marks of the fault tests, and their fixtures."""

from __future__ import annotations

from functools import partial

import pytest
from support import need_service

pytest.importorskip("zope.sqlalchemy")
from databases import database
from redis import Redis
from shop import QUEUES, Shop
from trial import run_trial


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test in this folder."""
    item.add_marker("acceptance")
    item.add_marker("faults")


@pytest.fixture
def url(tmp_path):
    with database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def redis_url():
    """Give the URL of the Redis on this machine, which no test stops."""
    need_service("Redis", 6379, "redis-server --daemonize yes")
    url = "redis://localhost:6379/0"
    yield url
    client = Redis.from_url(url)
    for queue in QUEUES:
        for key in client.scan_iter(f"*{queue}"):
            client.delete(key)


@pytest.fixture
def shop(tmp_path, url, redis_url):
    """Give a shop with PostgreSQL and Redis."""
    shop = Shop(tmp_path, url, redis_url)
    yield shop
    shop.engine.dispose()


@pytest.fixture
def report(request, capsys):
    """Return a function that prints counts, as a row of a table."""

    def report(*names: str, **counts: object) -> None:
        words = ", ".join(f"{key} {value}" for key, value in counts.items())
        with capsys.disabled():
            print(f"\n| {' '.join((request.node.name, *names))} | {words} |")

    return report


@pytest.fixture
def trial(tmp_path, report):
    """Return a function that starts two shops under load at a broker."""
    return partial(run_trial, tmp_path, report)
