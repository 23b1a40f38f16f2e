"""Connections made before a fork are never shared: prefork pool and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from databases import database
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from support import QUICK, as_ini, start_worker, wait_until

from pyramid_tasks.settings import extract_celery_settings

pytestmark = pytest.mark.acceptance

CHILDREN = 4


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database for one test."""
    with database("postgresql", tmp_path) as url:
        yield url


class Connections:
    """Which process of the operating system uses which processes of the server."""

    def __init__(self) -> None:
        self.users: dict[int, set[int]] = {}

    def add(self, pid: int, backends: list[int]) -> None:
        for backend in backends:
            self.users.setdefault(backend, set()).add(pid)

    @property
    def processes(self) -> set[int]:
        return set().union(*self.users.values())

    def of(self, pid: int) -> set[int]:
        return {backend for backend, pids in self.users.items() if pid in pids}


def written_down(folder: Path) -> list[tuple[int, list[int]]]:
    """Return what the parent wrote: its backends, at start-up and at the end."""
    lines = (folder / "events").read_text().splitlines()
    found = [line.split()[1:] for line in lines if line.startswith("backends")]
    return [(int(pid), [*map(int, backends)]) for *backends, pid in found]


@pytest.mark.parametrize("options", [(), ("--max-tasks-per-child=3",)])
def test_no_connection_is_shared(
    options: tuple[str, ...],
    redis_queue: dict[str, str],
    postgresql: str,
    write_ini: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """No two processes use one connection, and that of the parent outlives the rest.

    Neither with the children that a worker starts with, nor with those that replace
    them; for an engine on the registry, and for one that is handed over.
    """
    ini = write_ini(
        "[app:main]\n"
        "use = call:lifecycleapp:main\n"
        "lifecycle.log = %(here)s/events\n"
        f"sqlalchemy.url = {postgresql}\n"
        f"{as_ini(redis_queue)}\n"
        "[celery:main]\n"
        f"worker_concurrency = {CHILDREN}\n"
    )
    client = Celery("client", set_as_current=False)
    settings = {f"celery.{key}": value for key, value in redis_queue.items()}
    client.conf.update(extract_celery_settings(settings))
    used = Connections()
    children = set()
    expected = CHILDREN * (3 if options else 1)

    def all_asked() -> bool:
        name = "lifecycleapp.backends"
        for result in [client.send_task(name) for _ in range(2 * CHILDREN)]:
            pid, backends = result.get(timeout=30, interval=0.02)
            used.add(pid, backends)
            children.add(pid)
        return len(children) >= expected

    with start_worker(ini, *options, *QUICK, cwd=tmp_path) as worker:
        parent = worker.popen.pid
        ((pid, backends),) = written_down(tmp_path)
        assert pid == parent
        used.add(pid, backends)
        wait_until(all_asked, what=lambda: str(used.users))
        assert parent not in children
        shared = {
            backend: pids for backend, pids in used.users.items() if len(pids) > 1
        }
        assert shared == {}
        # Two engines, each with the one connection that it has had from the start.
        assert all(len(used.of(pid)) == 2 for pid in used.processes), used.users
        assert used.of(parent) <= server_processes(postgresql)
        worker.stop()

    # Every child has ended when the parent asks again.
    assert written_down(tmp_path) == [(parent, backends)] * 2


def server_processes(url: str) -> set[int]:
    """Return the processes of the server that serve a database, idle ones too."""
    engine = create_engine(url, poolclass=NullPool)
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    with engine.connect() as connection:
        return set(connection.scalars(text(query)))
