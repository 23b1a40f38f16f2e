"""Tasks that are async functions, in this process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import threading
from contextlib import contextmanager

import pytest
from celery.exceptions import Retry, SoftTimeLimitExceeded
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_request

from pyramid_tasks import CeleryWorkerProcessShutdown
from pyramid_tasks.exceptions import CoroutineError
from pyramid_tasks.testing import capture, start_worker

pytestmark = pytest.mark.usefixtures("threadlocals_stay")

VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


@pytest.fixture
def call(configure):
    """Return a function that runs a task as a worker does, in this thread."""
    configs = []

    def call(func, *args, **options):
        config = configure()
        config.register_task(func, name="it", **options)
        task = config.make_celery_app().tasks["it"]
        configs.append(config)
        task.push_request(id="1", is_eager=False, called_directly=False, headers=None)
        try:
            return task.run(*args)
        finally:
            task.pop_request()

    yield call
    for config in configs:
        config.registry.notify(CeleryWorkerProcessShutdown(config.registry))


async def double(request, x):
    await asyncio.sleep(0)
    return x * 2


async def bound(self, request):
    await asyncio.sleep(0)
    return self is request.current_task, get_current_request() is request


class Doubler:
    async def __call__(self, request, x):
        return x * 2


@functools.wraps(double)
def decorated(*args, **kwargs):
    return double(*args, **kwargs)


@functools.wraps(double)
def run_by_itself(*args, **kwargs):
    return asyncio.run(double(*args, **kwargs))


@pytest.mark.parametrize(
    "func",
    [double, functools.partial(double, x=1), Doubler(), decorated, run_by_itself],
)
def test_coroutine_is_awaited(eager, func):
    """The task has the result of the coroutine, whatever makes it."""
    eager.register_task(func, name="it")
    kwargs = {} if isinstance(func, functools.partial) else {"x": 1}
    assert eager.make_celery_app().tasks["it"].apply_async(kwargs=kwargs).get() == 2


def test_request(call):
    """The coroutine has the task, the request and the threadlocals."""
    assert call(bound, bind=True) == (True, True)


def test_context_variables(call):
    """The coroutine has the context variables of its caller, each time."""

    async def read(request):
        return VARIABLE.get()

    for value in "first", "second":
        token = VARIABLE.set(value)
        assert call(read) == value
        VARIABLE.reset(token)


def test_derivers_are_around(configure):
    """A deriver sees a plain function, which has awaited the coroutine."""
    seen = []

    def deriver(task, info):
        def derived(request, *args):
            seen.append(task(request, *args))
            return seen[-1]

        return derived

    config = configure()
    config.add_task_deriver(deriver)
    config.register_task(double, name="it")
    assert config.make_celery_app().tasks["it"].apply((2,)).get() == 4
    assert seen == [4]


def test_one_loop_for_a_thread(call):
    """The tasks of a thread share a loop until the process ends."""

    async def loop(request):
        return asyncio.get_running_loop(), request.registry

    found = [call(loop), call(loop)]
    thread = threading.Thread(target=lambda: found.append(call(loop)))
    thread.start()
    thread.join()
    first, second, third = (each for each, _ in found)
    assert first is second is not third
    registry = found[0][1]
    registry.notify(CeleryWorkerProcessShutdown(registry))
    assert first.is_closed()
    assert third.is_closed()
    assert not call(loop)[0].is_closed()


def test_children_end_with_the_task(call):
    """What a coroutine has begun and not awaited is cancelled before it returns."""
    ended = []

    async def child():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("child")

    async def parent(request):
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        ended.append("parent")
        return task.get_name()

    call(parent)
    assert ended == ["parent", "child"]


def test_errors(call):
    """An error, and a Retry, of the coroutine are those of the task."""

    async def fail(self, request, error):
        await asyncio.sleep(0)
        raise error

    for error in ValueError("no"), Retry("later"):
        with pytest.raises(type(error)) as caught:
            call(fail, error, bind=True)
        assert caught.value is error


def test_autoretry(configure):
    """``autoretry_for`` runs the coroutine again."""
    attempts = []
    config = configure()

    async def flaky(request):
        attempts.append(request)
        if len(attempts) < 3:
            raise OSError("not yet")
        return len(attempts)

    options = {"autoretry_for": (OSError,), "default_retry_delay": 0}
    config.register_task(flaky, name="it", **options)
    assert config.make_celery_app().tasks["it"].apply().get() == 3
    assert len(set(map(id, attempts))) == 3


def test_cancelled_by_itself(call):
    """A coroutine that cancels itself fails, and does not end the process."""

    async def cancel(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    with pytest.raises(CoroutineError, match="task it was cancelled by its own code"):
        call(cancel)
    assert call(double, 2) == 4


@contextmanager
def limit_of_pool():
    """Have the signal of a soft time limit do what it does in a process of a pool."""

    def handle(signum, frame):
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield
        assert signal.getsignal(signal.SIGUSR1) is handle
    finally:
        signal.signal(signal.SIGUSR1, before)


async def wait(ended):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0)  # it can still await
        ended.append("cancelled")
        raise


async def wait_in_child(ended):
    async with asyncio.TaskGroup() as group:
        group.create_task(wait(ended))


async def block(ended):
    try:
        threading.Event().wait(60)
    except SoftTimeLimitExceeded:
        ended.append("raised")
        raise


async def block_in_child(ended):
    async with asyncio.TaskGroup() as group:
        group.create_task(block(ended))


@pytest.mark.parametrize(
    ("func", "how"),
    [
        (wait, "cancelled"),
        (wait_in_child, "cancelled"),
        (block, "raised"),
        (block_in_child, "raised"),
    ],
)
def test_soft_time_limit(call, func, how):
    """A soft time limit cancels a coroutine that waits, and is raised in what runs."""
    ended = []

    async def limited(request):
        # By then the coroutine waits, or blocks.
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await func(ended)

    with limit_of_pool():
        with pytest.raises(SoftTimeLimitExceeded):
            call(limited)
        assert ended == [how]
        assert call(double, 2) == 4


def test_exit_leaves_nothing_in_the_loop(call):
    """What an error in the loop itself leaves behind is cancelled at once."""
    ended = []

    async def leave(request):
        def fail():
            raise SystemExit("asked to")

        asyncio.get_running_loop().call_soon(fail)
        await wait(ended)

    with pytest.raises(SystemExit):
        call(leave)
    assert ended == ["cancelled"]
    assert call(double, 2) == 4


def test_running_loop(eager):
    """Where a loop runs already there is one sentence, and a way around it."""
    eager.register_task(double, name="it")
    task = eager.make_celery_app().tasks["it"]

    async def defer():
        with pytest.raises(CoroutineError, match=r"The task it .* asyncio\.to_thread"):
            task.delay(2)
        return await asyncio.to_thread(task.delay, 2)

    assert asyncio.run(defer()).get() == 4


def test_capture_and_worker(configure):
    """Both ways to test tasks run coroutines."""
    config = configure()
    config.register_task(double, name="it")
    config.make_celery_app()
    registry = config.registry
    with prepare(registry=registry) as env:
        request = env["request"]
        with capture(registry) as deferred:
            request.defer_task("it", 2)
            assert deferred.run() == [4]
        for pool in "solo", "threads":
            with start_worker(registry, pool=pool):
                assert request.defer_task("it", 3).get(timeout=30) == 6
