"""Connections made before a fork are never shared: prefork pool and PostgreSQL."""

from collections import defaultdict

import pytest
from databases import database
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from support import QUICK, make_client, start_worker, wait_until

pytestmark = pytest.mark.acceptance

CHILDREN = 4


@pytest.fixture
def url(tmp_path):
    with database("postgresql", tmp_path) as url:
        yield url


def written_down(folder):
    """Return what the parent wrote: its backends, at start-up and at the end."""
    lines = (folder / "events").read_text().splitlines()
    found = [line.split()[1:] for line in lines if line.startswith("backends")]
    return [(int(pid), [*map(int, backends)]) for *backends, pid in found]


@pytest.mark.parametrize("options", [(), ("--max-tasks-per-child=3",)])
def test_no_connection_is_shared(options, redis_queue, url, write_example, tmp_path):
    """No two processes use one connection, and that of the parent outlives the rest.

    Neither with the children that a worker starts with, nor with those that replace
    them; for an engine on the registry, and for one that is handed over.
    """
    write_example(
        broker=redis_queue,
        use="call:lifecycleapp:main",
        app=f"lifecycle.log = %(here)s/events\nsqlalchemy.url = {url}",
        worker=f"worker_concurrency = {CHILDREN}",
    )
    client = make_client(redis_queue)
    # The processes of the server, by the process that used them.
    used = defaultdict(set)
    expected = CHILDREN * (3 if options else 1)

    def all_asked():
        name = "lifecycleapp.backends"
        for result in [client.send_task(name) for _ in range(2 * CHILDREN)]:
            pid, backends = result.get(timeout=30, interval=0.02)
            used[pid].update(backends)
        return len(used) >= expected

    with start_worker("config.ini", *options, *QUICK, cwd=tmp_path) as worker:
        parent = worker.popen.pid
        ((pid, backends),) = written_down(tmp_path)
        assert pid == parent
        wait_until(all_asked, what=lambda: str(used))
        assert parent not in used
        used[parent].update(backends)
        # Two engines, each with the one connection that it has had from the start.
        assert all(len(found) == 2 for found in used.values()), used
        assert len(set().union(*used.values())) == 2 * len(used), used
        assert used[parent] <= server_processes(url)
        worker.stop()

    # Every child has ended when the parent asks again.
    assert written_down(tmp_path) == [(parent, backends)] * 2


def server_processes(url):
    """Return the processes of the server that serve a database, idle ones too."""
    engine = create_engine(url, poolclass=NullPool)
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    with engine.connect() as connection:
        return set(connection.scalars(text(query)))
