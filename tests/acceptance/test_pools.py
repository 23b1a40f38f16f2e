"""Tasks on the pools of a worker: however one ends, the next starts clean."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery
import pytest
from celery.bin.worker import worker
from support import (
    QUICK,
    Site,
    example_config,
    ini_form,
    start,
    start_worker,
    wait_until,
)

pytestmark = pytest.mark.acceptance

CONCURRENCY = 2

#: The ways a task ends, and the state it is in afterwards.
ENDS = {
    "well": "SUCCESS",
    "error": "FAILURE",
    "retry": "FAILURE",  # at last: after two more times
    "ignore": None,
    "reject": None,
    "dirty": "SUCCESS",
    "callback": "FAILURE",
    "sleep": "FAILURE",  # by its soft time limit
}
TIMES = {"retry": 3}


def write_ini(broker: dict[str, str], folder: Path) -> None:
    app = "example.process_log = %(here)s/processes"
    (folder / "config.ini").write_text(example_config(broker, app=app))


@contextmanager
def pool(name: str, broker: dict[str, str], folder: Path) -> Iterator[Site]:
    """Start a worker with a pool, and give the web application beside it."""
    write_ini(broker, folder)
    limit = () if name == "solo" else (f"--concurrency={CONCURRENCY}",)
    options = (f"--pool={name}", "-n", "pool@%h", *limit, *QUICK)
    with (
        start_worker("config.ini", *options, cwd=folder) as worker,
        closing(Site(broker, folder)) as site,
    ):
        site.worker = worker
        yield site


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def threadlocals_of_each(site: Site) -> dict[tuple[int, int], set[int]]:
    """Return how many threadlocals tasks found, by the process and thread they ran in.

    Runs until every process or thread of the pool has run one.
    """
    found: dict[tuple[int, int], set[int]] = {}

    def all_asked() -> bool:
        results = [site.defer("threadlocals_here") for _ in range(2 * CONCURRENCY)]
        for result in results:
            pid, thread, depth = result.get(timeout=30, interval=0.02)
            found.setdefault((pid, thread), set()).add(depth)
        return len(found) >= CONCURRENCY

    wait_until(all_asked, what=lambda: str(found))
    return found


@pytest.mark.parametrize("name", ["prefork", "threads"])
def test_every_end_is_clean(
    name: str, redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """Finished callbacks run and no threadlocal stays, whatever way a task ends."""
    log = tmp_path / "ended"
    ends = dict(ENDS)
    if name == "threads":
        del ends["sleep"]  # Celery has no time limits there
    with pool(name, redis_queue, tmp_path) as site:
        results = {}
        for how in ends:
            for _ in range(CONCURRENCY):
                options = {"soft_time_limit": 0.3} if how == "sleep" else {}
                results[how] = site.defer_with("end", how, str(log), **options)
        broken_root = {"headers": {"environ": {"HTTP_HOST": "broken.example"}}}
        for _ in range(CONCURRENCY):
            results["root"] = site.defer_with("end", "root", str(log), **broken_root)

        expected = sorted(
            how for how in ends for _ in range(CONCURRENCY * TIMES.get(how, 1))
        )
        site.worker.wait_until(lambda: sorted(lines(log)) == expected, str(expected))
        for how, state in ends.items():
            if state is not None:
                results[how].get(timeout=30, interval=0.02, propagate=False)
                assert results[how].state == state, how
        error = results["root"].get(timeout=30, interval=0.02, propagate=False)
        assert "error in the root factory" in str(error)
        found = threadlocals_of_each(site)
    assert all(depths == {1} for depths in found.values()), found
    assert "root" not in lines(log)


@pytest.mark.parametrize("name", ["prefork", "threads", "solo"])
def test_process_init_is_sent_once_in_each_process(
    name: str, redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """CeleryWorkerProcessInit: in each prefork child, and once in any other worker."""
    with pool(name, redis_queue, tmp_path) as site:
        described = site.defer("describe").get(timeout=30, interval=0.02)
        if name == "prefork":
            found = {pid for pid, _ in threadlocals_of_each(site)}
            assert len(found) == CONCURRENCY
        else:
            found = {described["pid"]}
        pids = lines(tmp_path / "processes")
        assert sorted(pids) == sorted(map(str, found))


@pytest.mark.skipif(
    not any("--pool-start-method" in param.opts for param in worker.params),
    reason="this Celery always forks",
)
def test_process_init_is_sent_in_spawned_process(
    redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """CeleryWorkerProcessInit: in a child that was spawned, and nowhere else."""
    write_ini(redis_queue, tmp_path)
    options = ("--pool-start-method=spawn", "--concurrency=1", "-l", "INFO", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=True)
    with (
        start(*command, cwd=tmp_path) as process,
        closing(Site(redis_queue, tmp_path)) as site,
    ):
        process.wait_for(" ready.")
        found = site.defer("describe").get(timeout=60, interval=0.02)
        assert found["setting"] == "from the ini"
        assert found["pid"] != process.popen.pid
        assert lines(tmp_path / "processes") == [str(found["pid"])]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, redis_broker: dict[str, str]
) -> Iterator[Site]:
    """Return the web application beside a worker with threads, for many tests."""
    with pool("threads", redis_broker, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_patching_pool_of_the_file(
    pool: str,
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """``worker_pool = gevent`` runs tasks, and SIGTERM ends the worker."""
    if not importlib.util.find_spec(pool):
        pytest.skip(f"{pool} is not installed")
    write_example(broker=redis_queue, worker=f"worker_pool = {pool}")
    command = ini_form("config.ini", "worker", "-l", "INFO", *QUICK, after=after)
    with (
        start(*command, cwd=tmp_path, fresh=True) as worker,
        closing(Site(redis_queue, tmp_path)) as site,
    ):
        worker.wait_for(" ready.")
        assert f"({pool})" in worker.output
        assert site.defer("add", 1, 2).get(timeout=30) == 3
        assert worker.stop() == 0


def test_task_has_the_request_of_the_application(site: Site) -> None:
    """A task's request is that of the worker's application, not of who deferred it."""
    found = site.defer_with("describe", "x").get(timeout=30, interval=0.02)
    assert found == {
        "label": "x",
        "name": "exampleapp.describe",
        "id": found["id"],
        "same_task": True,
        "url": "http://localhost",
        "greeting": "hello task",
        "current": True,
        "registry": True,
        "root": "Root",
        "context": "Root",
        "setting": "from the ini",
        "pid": found["pid"],
    }


def test_environ_header_fills_the_environ(site: Site) -> None:
    """The header ``environ`` of a message is the WSGI environ of the request."""
    environ = {
        "HTTP_HOST": "example.com",
        "wsgi.url_scheme": "https",
        "SCRIPT_NAME": "/shop",
    }
    result = site.defer_with("describe", headers={"environ": environ})
    found = result.get(timeout=30, interval=0.02)
    assert found["url"] == "https://example.com/shop"


def test_task_defers_a_task(site: Site) -> None:
    """A task can defer another one, which runs."""
    task_id = site.defer("defer_another", 20, 22).get(timeout=30, interval=0.02)
    result = site.request.get_task_result(task_id)
    assert result.get(timeout=30, interval=0.02) == 42


@pytest.mark.parametrize("option", ["eta", "countdown"])
def test_task_runs_no_sooner_than_asked(option: str, site: Site) -> None:
    """``eta`` and ``countdown`` hold a task back until then."""
    then = datetime.now(UTC) + timedelta(seconds=0.5)
    value = then if option == "eta" else 0.5
    result = site.defer_with("now", **{option: value})
    ran = datetime.fromisoformat(result.get(timeout=30, interval=0.02))
    assert ran >= then


def test_expired_task_does_not_run(site: Site) -> None:
    """A task whose ``expires`` is past is revoked."""
    result = site.defer_with("add", 1, 2, countdown=0.3, expires=0.01)
    with pytest.raises(celery.exceptions.TaskRevokedError):
        result.get(timeout=30, interval=0.02)


def test_failing_task_is_run_again_with_backoff(site: Site) -> None:
    """``autoretry_for`` with ``retry_backoff`` runs the task until it is well."""
    log = site.folder / "flaky"
    result = site.defer("flaky", str(log))
    assert result.get(timeout=30, interval=0.02) == "well at last"
    assert lines(log) == ["0", "1", "2"]


def test_acks_late_runs_task_of_lost_process_again(
    redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """A task that takes its process down is run again, by another process."""
    log = tmp_path / "lost"
    with pool("prefork", redis_queue, tmp_path) as site:
        result = site.defer("lose_process_once", str(log))
        pid = result.get(timeout=30, interval=0.02)
    first, second = lines(log)
    assert first != second == str(pid)
