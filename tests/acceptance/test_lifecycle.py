"""The events of workers, of their processes and of beat, as a shell starts them."""

import importlib.util
import signal
from collections import defaultdict

import pytest
from celery.bin.worker import worker
from support import (
    QUICK,
    as_ini,
    ini_form,
    make_client,
    start,
    start_worker,
    wait_until,
)

pytestmark = pytest.mark.acceptance

IN_WORKER = ["CeleryWorkerInit", "CeleryWorkerReady", "CeleryWorkerShutdown"]
IN_PROCESS = ["CeleryWorkerProcessInit", "CeleryWorkerProcessShutdown"]


@pytest.fixture
def ini(redis_queue, write_example):
    """Return a function that writes an ini for the application of these tests."""

    def ini(**settings):
        app = as_ini({"log": "%(here)s/events", **settings}, "lifecycle.")
        return write_example(broker=redis_queue, use="call:lifecycleapp:main", app=app)

    return ini


@pytest.fixture
def client(redis_queue):
    """Return what sends tasks to the worker, without being an application."""
    return make_client(redis_queue)


def events(folder):
    """Return the events with the process each was sent in, in order."""
    path = folder / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, int(pid)) for name, pid in map(str.split, lines)]


def by_process(found):
    """Return the events of each process, in order."""
    sent = defaultdict(list)
    for name, pid in found:
        sent[pid].append(name)
    return dict(sent)


def run_tasks(client, count):
    """Run tasks, and return the processes they ran in."""
    results = [client.send_task("lifecycleapp.pid") for _ in range(count)]
    return {result.get(timeout=30, interval=0.02) for result in results}


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent", "eventlet"])
def test_worker_that_runs_tasks_itself(pool, ini, tmp_path):
    """A worker that is its own process sends each event once, in order."""
    if pool in {"gevent", "eventlet"} and not importlib.util.find_spec(pool):
        pytest.skip(f"{pool} is not installed")
    with start_worker(ini(), f"--pool={pool}", *QUICK, cwd=tmp_path) as process:
        process.wait_until(lambda: len(events(tmp_path)) == 3)
        process.stop()
    check_alone(process, events(tmp_path))


def check_alone(process, found):
    """Check the events of a worker that ran tasks in its own process, and has ended."""
    init, ready, shutdown = IN_WORKER
    process_init, process_shutdown = IN_PROCESS
    names = [init, process_init, ready, process_shutdown, shutdown]
    assert found == [(name, process.popen.pid) for name in names]


def check_prefork(process, found):
    """Check the events of a prefork worker that has ended, and return its children."""
    sent = by_process(found)
    assert sent.pop(process.popen.pid) == IN_WORKER
    assert all(names == IN_PROCESS for names in sent.values()), sent
    assert found[0][0] == "CeleryWorkerInit"
    assert found[-1][0] == "CeleryWorkerShutdown"
    return set(sent)


def test_children_of_the_prefork_pool(ini, client, tmp_path):
    """Each child, one that replaces another too, is begun and ended with an event."""
    options = ("--max-tasks-per-child=2", *QUICK)
    with start_worker(ini(), *options, cwd=tmp_path) as process:
        children = run_tasks(client, 10)
        process.stop()
    assert len(children) >= 5
    assert process.popen.returncode == 0
    assert check_prefork(process, events(tmp_path)) >= children


@pytest.mark.skipif(
    not any("--pool-start-method" in param.opts for param in worker.params),
    reason="this Celery always forks",
)
def test_spawned_children(ini, client, tmp_path):
    """Children that are spawned send the same events, and so does their beat."""
    options = ("--pool-start-method=spawn", "-B", "--loglevel=INFO", *QUICK)
    command = ini_form(ini(), "worker", *options, after=True)
    with start(*command, cwd=tmp_path) as process:
        process.wait_for(" ready.")
        children = run_tasks(client, 4)
        process.wait_until(lambda: "CeleryBeatInit" in dict(events(tmp_path)))
        process.stop()
    found = events(tmp_path)
    (beat,) = [pid for name, pid in found if name == "CeleryBeatInit"]
    found.remove(("CeleryBeatInit", beat))
    assert check_prefork(process, found) >= children
    assert beat not in by_process(found)


@pytest.mark.parametrize(
    ("pool", "check", "count"),
    [("prefork", check_prefork, 4), ("threads", check_alone, 3)],
)
def test_cold_shutdown(pool, check, count, ini, tmp_path):
    """A worker that does not wait for its tasks says all the same that it ends."""
    with start_worker(ini(), f"--pool={pool}", *QUICK, cwd=tmp_path) as process:
        process.wait_until(lambda: len(events(tmp_path)) == count)
        process.popen.send_signal(signal.SIGQUIT)
        process.popen.wait(30)
    assert "Cold shutdown" in process.output
    check(process, events(tmp_path))


def test_beat(ini, tmp_path):
    """``celery beat`` sends its event, and none of those of workers."""
    with start(*ini_form(ini(), "beat"), cwd=tmp_path) as process:
        process.wait_until(lambda: events(tmp_path))
    assert events(tmp_path) == [("CeleryBeatInit", process.popen.pid)]


def test_beat_in_a_worker(ini, tmp_path):
    """The beat of ``worker -B`` sends its event in its own process."""
    with start_worker(ini(), "-B", *QUICK, cwd=tmp_path) as process:
        process.wait_until(lambda: len(events(tmp_path)) == 5)
        process.stop()
    found = by_process(events(tmp_path))
    assert found.pop(process.popen.pid) == IN_WORKER
    assert sorted(found.values()) == [["CeleryBeatInit"], IN_PROCESS, IN_PROCESS]


def failure(event):
    """Return what is logged when the subscriber of an event fails, up to its error."""
    return f"A subscriber of {event} failed\nTraceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("event", "options"),
    [
        ("CeleryWorkerInit", ("worker", "--pool=prefork", *QUICK)),
        ("CeleryWorkerProcessInit", ("worker", "--pool=solo", *QUICK)),
        ("CeleryBeatInit", ("beat",)),
    ],
    ids=["worker", "solo", "beat"],
)
def test_error_that_keeps_from_starting(event, options, ini, tmp_path):
    """After an error in a subscriber of an init event, nothing starts."""
    with start(*ini_form(ini(fail=event), *options), cwd=tmp_path) as process:
        assert process.popen.wait(30) == 1, process.output
    assert failure(event) in process.output
    assert f"OSError: {event} was not to our liking" in process.output


def test_error_that_ends_a_child(ini, tmp_path):
    """After an error in a subscriber of process init, a child ends, with the error.

    Whether the worker ends too, or has another child try, Celery decides by the time.
    """
    command = ini_form(ini(fail="CeleryWorkerProcessInit"), "worker", *QUICK)
    with start(*command, cwd=tmp_path) as process:
        error = "OSError: CeleryWorkerProcessInit was not to our liking"
        wait_until(lambda: error in process.output, what=lambda: process.output)
    assert failure("CeleryWorkerProcessInit") in process.output


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_error_that_is_logged(pool, ini, client, tmp_path):
    """After an error in any other subscriber, the worker works and stops as ever."""
    failing = "CeleryWorkerReady CeleryWorkerProcessShutdown CeleryWorkerShutdown"
    config = ini(fail=failing)
    with start_worker(config, f"--pool={pool}", *QUICK, cwd=tmp_path) as process:
        assert run_tasks(client, 1)
        process.stop()
    assert process.popen.returncode == 0, process.output
    assert all(failure(event) in process.output for event in failing.split())
    assert events(tmp_path)[-1][0] == "CeleryWorkerShutdown"


def test_error_in_the_beat_of_a_worker(ini, client, tmp_path):
    """A worker goes on without a beat that does not start."""
    config = ini(fail="CeleryBeatInit")
    with start_worker(config, "-B", *QUICK, cwd=tmp_path) as process:
        process.wait_for("OSError: CeleryBeatInit was not to our liking")
        assert run_tasks(client, 1)
    assert failure("CeleryBeatInit") in process.output


def test_children_are_replaced_until_one_starts(ini, client, tmp_path):
    """Tasks wait while the processes of a running worker cannot be started."""
    config = ini(fail_while_there="%(here)s/there")
    options = ("--max-tasks-per-child=1", "--concurrency=1", *QUICK)
    with start_worker(config, *options, cwd=tmp_path) as process:
        # A worker can be ready before its first child is.
        process.wait_until(lambda: "CeleryWorkerProcessInit" in dict(events(tmp_path)))
        (tmp_path / "there").touch()
        first = run_tasks(client, 1)
        waiting = client.send_task("lifecycleapp.pid")
        process.wait_for("AssertionError: still there")
        assert not waiting.ready()
        (tmp_path / "there").unlink()
        second = waiting.get(timeout=30, interval=0.02)
    assert {second}.isdisjoint(first)
