"""Tasks on the pools of a worker: however one ends, the next starts clean."""

import importlib.util
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import celery
import pytest
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
OPTIONS = {
    "sleep": {"soft_time_limit": 0.3},
    "root": {"headers": {"environ": {"HTTP_HOST": "broken.example"}}},
}


@contextmanager
def pool(name, broker, folder):
    """Start a worker with a pool, and give the web application beside it."""
    (folder / "config.ini").write_text(example_config(broker))
    options = (
        f"--pool={name}",
        "-c",
        CONCURRENCY,
        "-n",
        "pool@%h",
        *QUICK,
    )
    with (
        start_worker("config.ini", *options, cwd=folder) as worker,
        closing(Site(broker, folder)) as site,
    ):
        site.worker = worker
        yield site


def lines(path):
    return path.read_text().split() if path.exists() else []


def threadlocals_of_each(site):
    """Return how many threadlocals tasks found, by the process and thread they ran in.

    Runs until every process or thread of the pool has run one.
    """
    found = {}

    def all_asked():
        results = [site.defer("threadlocals_here") for _ in range(2 * CONCURRENCY)]
        for result in results:
            pid, thread, depth = get(result)
            found.setdefault((pid, thread), set()).add(depth)
        return len(found) >= CONCURRENCY

    wait_until(all_asked, what=lambda: str(found))
    return found


def get(result, **options):
    return result.get(timeout=30, interval=0.02, **options)


@pytest.mark.parametrize("name", ["prefork", "threads"])
def test_every_end_is_clean(name, redis_queue, tmp_path):
    """Finished callbacks run and no threadlocal stays, whatever way a task ends."""
    log = tmp_path / "ended"
    ends = dict(ENDS)
    if name == "threads":
        del ends["sleep"]  # Celery has no time limits there
    with pool(name, redis_queue, tmp_path) as site:
        results = {}
        for how in [*ends, "root"]:
            for _ in range(CONCURRENCY):
                options = OPTIONS.get(how, {})
                results[how] = site.defer_with("end", how, str(log), **options)

        expected = sorted(
            how for how in ends for _ in range(CONCURRENCY * TIMES.get(how, 1))
        )
        site.worker.wait_until(lambda: sorted(lines(log)) == expected, str(expected))
        for how, state in ends.items():
            if state is not None:
                get(results[how], propagate=False)
                assert results[how].state == state, how
        error = get(results["root"], propagate=False)
        assert "error in the root factory" in str(error)
        found = threadlocals_of_each(site)
    assert all(depths == {1} for depths in found.values()), found
    assert "root" not in lines(log)


@pytest.fixture(scope="module")
def site(tmp_path_factory, redis_broker):
    """Return the web application beside a worker with threads, for many tests."""
    with pool("threads", redis_broker, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_patching_pool_of_the_file(pool, write_example, redis_queue, tmp_path, after):
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


def test_task_has_the_request_of_the_application(site):
    """A task's request is that of the worker's application, not of who deferred it."""
    found = get(site.defer_with("describe", "x"))
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


def test_environ_header_fills_the_environ(site):
    """The header ``environ`` of a message is the WSGI environ of the request."""
    host = {"HTTP_HOST": "example.com", "wsgi.url_scheme": "https"}
    environ = {**host, "SCRIPT_NAME": "/shop"}
    found = get(site.defer_with("describe", headers={"environ": environ}))
    assert found["url"] == "https://example.com/shop"


def test_task_defers_a_task(site):
    """A task can defer another one, which runs."""
    task_id = get(site.defer("defer_another", 20, 22))
    assert get(site.request.get_task_result(task_id)) == 42


@pytest.mark.parametrize("option", ["eta", "countdown"])
def test_task_runs_no_sooner_than_asked(option, site):
    """``eta`` and ``countdown`` hold a task back until then."""
    then = datetime.now(UTC) + timedelta(seconds=0.5)
    value = then if option == "eta" else 0.5
    ran = get(site.defer_with("now", **{option: value}))
    assert datetime.fromisoformat(ran) >= then


def test_expired_task_does_not_run(site):
    """A task whose ``expires`` is past is revoked."""
    result = site.defer_with("add", 1, 2, countdown=0.3, expires=0.01)
    with pytest.raises(celery.exceptions.TaskRevokedError):
        get(result)


def test_failing_task_is_run_again_with_backoff(site):
    """``autoretry_for`` with ``retry_backoff`` runs the task until it is well."""
    log = site.folder / "flaky"
    assert get(site.defer("flaky", str(log))) == "well at last"
    assert lines(log) == ["0", "1", "2"]


def test_acks_late_runs_task_of_lost_process_again(redis_queue, tmp_path):
    """A task that takes its process down is run again, by another process."""
    log = tmp_path / "lost"
    with pool("prefork", redis_queue, tmp_path) as site:
        pid = get(site.defer("lose_process_once", str(log)))
    first, second = lines(log)
    assert first != second == str(pid)
