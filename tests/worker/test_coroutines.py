"""Tasks that are async functions, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

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
def call(config):
    """Return a function that runs a task as a worker does, in this thread."""

    def call(func, *args, **options):
        config.register_task(func, name="it", **options)
        task = config.make_celery_app().tasks["it"]
        task.push_request(id="1", is_eager=False, called_directly=False, headers=None)
        try:
            return task.run(*args)
        finally:
            task.pop_request()

    yield call
    config.registry.notify(CeleryWorkerProcessShutdown(config.registry))


async def double(request, x):
    await asyncio.sleep(0)
    return x * 2


class Doubler:
    async def __call__(self, request, x):
        return x * 2


@functools.wraps(double)
def decorated(*args, **kwargs):
    return double(*args, **kwargs)


@functools.wraps(double)
def run_by_itself(*args, **kwargs):
    return asyncio.run(double(*args, **kwargs))


class Decorator:
    def __init__(self, func):
        functools.update_wrapper(self, func)

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)


@pytest.mark.parametrize(
    "func",
    [
        *(double, Doubler(), decorated, run_by_itself, Decorator(double)),
        *(functools.partial(each, x=1) for each in (double, Doubler(), decorated)),
    ],
)
def test_coroutine_is_awaited(eager, func):
    """The task has the result of the coroutine, whatever makes it."""
    eager.register_task(func, name="it")
    kwargs = {} if isinstance(func, functools.partial) else {"x": 1}
    assert eager.make_celery_app().tasks["it"].apply_async(kwargs=kwargs).get() == 2


def list_of(func):
    @functools.wraps(func)
    def wrapped(*args):
        return list(func(*args))

    return wrapped


def numbers(request, x):
    yield x


async def async_numbers(request, x):
    yield x


@pytest.mark.parametrize(
    ("func", "kind"),
    [
        (lambda request, x: double(request, x=x), "a coroutine"),
        (lambda request, x: numbers(request, x=x), "a generator"),
        (lambda request, x: async_numbers(request, x=x), "a generator"),
        (contextlib.contextmanager(numbers), "a context manager"),
        (contextlib.asynccontextmanager(async_numbers), "a context manager"),
    ],
)
def test_task_that_has_not_done_its_work(call, func, kind):
    """A hidden async function or generator fails when it has returned."""
    with pytest.raises(CoroutineError, match=f"The task it returned {kind}, and"):
        call(func, 2)


def test_generator_that_a_decorator_iterates_over(call):
    """A decorator can make a task of a generator function."""
    assert call(list_of(numbers), 2) == [2]


def test_request(call):
    """The coroutine has the task, the request and the threadlocals."""

    async def bound(self, request):
        await asyncio.sleep(0)
        return self is request.current_task, get_current_request() is request

    assert call(bound, bind=True) == (True, True)


def test_context_variables(call):
    """The coroutine has the context variables of its caller, each time."""

    async def read(request):
        return VARIABLE.get()

    for value in "first", "second":
        token = VARIABLE.set(value)
        assert call(read) == value
        VARIABLE.reset(token)


def test_derivers_are_around(config, run):
    """A deriver sees a plain function, which has awaited the coroutine."""

    def deriver(task, info):
        return lambda request, x: task(request, x) + 1

    config.add_task_deriver(deriver)
    assert run(double, 2).get() == 5


def test_one_loop_for_a_thread(config, call):
    """The tasks of a thread share a loop until the process ends."""

    async def loop(request):
        return asyncio.get_running_loop()

    first, second = call(loop), call(loop)
    with ThreadPoolExecutor() as threads:
        third = threads.submit(call, loop).result()
    assert first is second is not third
    config.registry.notify(CeleryWorkerProcessShutdown(config.registry))
    assert first.is_closed()
    assert third.is_closed()
    assert not call(loop).is_closed()


def test_children_end_with_the_task(call):
    """What a coroutine has begun and not awaited is cancelled before it returns."""
    ended = []

    async def parent(request):
        task = asyncio.create_task(wait(ended))
        await asyncio.sleep(0)
        ended.append("parent")
        return task.get_name()

    call(parent)
    assert ended == ["parent", "cancelled"]


def test_nothing_goes_on_in_the_next_task(call):
    """What ends begins more, and generators that nobody iterates over any more end."""
    ended, tasks = [], []

    async def note(what):
        await asyncio.sleep(0)
        ended.append(what)

    async def numbers():
        try:
            yield 1
        finally:
            await note("generator")

    async def child():
        try:
            await asyncio.sleep(60)
        finally:
            tasks.append(asyncio.create_task(wait(ended)))

    async def parent(request):
        tasks.append(asyncio.create_task(child()))
        async for _ in numbers():
            break
        await asyncio.sleep(0)

    call(parent)
    before = list(ended)
    call(double, 2)
    assert set(before) == {"cancelled", "generator"}
    assert ended == before


def test_errors(call):
    """An error, and a Retry, of the coroutine are those of the task."""

    async def fail(self, request, error):
        await asyncio.sleep(0)
        raise error

    for error in ValueError("no"), Retry("later"):
        with pytest.raises(type(error)) as caught:
            call(fail, error, bind=True)
        assert caught.value is error


async def fail_in_group(request, *errors):
    async def fail(error):
        raise error

    async with asyncio.TaskGroup() as group:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fail(errors[0]))
        for error in errors[1:]:
            group.create_task(fail(error))


def test_task_group(call):
    """A Retry in a group is that of the task, if nothing else went wrong."""
    with pytest.raises(Retry):
        call(fail_in_group, Retry("later"))
    with pytest.raises(ExceptionGroup):
        call(fail_in_group, ValueError("no"))


def test_autoretry(run):
    """``autoretry_for`` runs the coroutine again."""
    attempts = []

    async def flaky(request):
        attempts.append(request)
        if len(attempts) < 3:
            raise OSError("not yet")
        return len(attempts)

    assert run(flaky, autoretry_for=(OSError,), default_retry_delay=0).get() == 3
    assert len(set(map(id, attempts))) == 3


def test_cancelled_by_itself(call):
    """A coroutine that cancels itself fails, and does not end the process."""

    async def cancel(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    with pytest.raises(CoroutineError, match="task it was cancelled by its own code"):
        call(cancel)
    assert call(double, 2) == 4


@contextlib.contextmanager
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


async def block(ended):
    try:
        threading.Event().wait(60)
    except SoftTimeLimitExceeded:
        ended.append("raised")
        raise


@pytest.mark.parametrize("in_child", [False, True])
@pytest.mark.parametrize(("func", "how"), [(wait, "cancelled"), (block, "raised")])
def test_soft_time_limit(call, func, how, in_child):
    """A soft time limit cancels a coroutine that waits, and is raised in what runs."""
    ended, loops = [], []

    async def limited(request):
        loops.append(asyncio.get_running_loop())
        # By then the coroutine waits, or blocks.
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        if in_child:
            async with asyncio.TaskGroup() as group:
                group.create_task(func(ended))
        await func(ended)

    with limit_of_pool():
        with pytest.raises(SoftTimeLimitExceeded):
            call(limited)
        assert ended == [how]
        assert not loops[0].is_closed()
        assert call(double, 2) == 4


def test_soft_time_limit_before_the_coroutine(call, monkeypatch, recwarn):
    """A coroutine that has not begun is closed, and Python warns of none."""

    def strike(runner, coroutine, **_):
        coroutine.close()
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(asyncio.Runner, "run", strike)
    with pytest.raises(SoftTimeLimitExceeded):
        call(double, 1)
    gc.collect()
    assert not [each for each in recwarn if "double" in str(each.message)]


def test_soft_time_limit_of_what_cannot_be_cancelled(call):
    """It ends the task, and the next task has another event loop."""

    async def stay():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    loops = []

    async def limited(request):
        loops.append(asyncio.get_running_loop())
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        staying = asyncio.create_task(stay())
        await asyncio.sleep(0)
        return staying

    with limit_of_pool(), pytest.raises(SoftTimeLimitExceeded):
        call(limited)
    assert loops[0].is_closed()
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


def test_capture_and_worker(config):
    """Both ways to test tasks run coroutines."""
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
