"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import need_service

pytest.importorskip("sqlalchemy")
from databases import database


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def redis_url() -> Iterator[str]:
    """Give the URL of the Redis on this machine, which no test stops."""
    need_service("Redis", 6379, "redis-server --daemonize yes")
    from redis import Redis
    from shop import QUEUES

    url = "redis://localhost:6379/0"
    yield url
    client = Redis.from_url(url)
    for queue in QUEUES:
        for key in client.scan_iter(f"*{queue}"):
            client.delete(key)


@pytest.fixture
def report(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Return a function that prints counts although pytest captures output."""

    def report(**counts: object) -> None:
        words = ", ".join(f"{key} {value}" for key, value in counts.items())
        with capsys.disabled():
            print(f"\n{request.node.name}: {words}")

    return report
