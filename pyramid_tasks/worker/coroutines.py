"""The event loops of a worker, for tasks that are coroutines.

Only an application with such a task imports this module, and asyncio with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded, TaskPredicate

from ..events import CeleryWorkerProcessShutdown
from ..exceptions import CoroutineError
from .ending import TASK_KEY

if TYPE_CHECKING:
    from types import FrameType

    from pyramid.config import Configurator
    from pyramid.request import Request

# By process and thread. A forked child keeps the loops of its parent: to close one
# would take its file descriptors off the selector that both processes share.
_runners: dict[tuple[int, int], asyncio.Runner] = {}


def includeme(config: Configurator) -> None:
    """Close the event loops of a worker's process when the process ends."""
    config.add_subscriber(_close_runners, CeleryWorkerProcessShutdown)


def awaiting(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function that awaits a coroutine function.

    Args:
        func: The task as derivers see it: its first argument is the request.
    """

    def call(request: Request, /, *args: Any, **kwargs: Any) -> Any:
        task = request.environ[TASK_KEY]
        _check_no_loop(task.name)
        coroutine = func(request, *args, **kwargs)
        # A decorator around a coroutine function may have awaited it.
        if not asyncio.iscoroutine(coroutine):
            return coroutine
        if task.request.is_eager:
            # Nobody tells when a thread of a web process ends.
            with asyncio.Runner() as runner:
                return _Run(runner, coroutine, task.name).result()
        key = os.getpid(), threading.get_ident()
        if key not in _runners:
            _runners[key] = asyncio.Runner()
        runner = _runners[key]
        run = _Run(runner, coroutine, task.name)
        try:
            return run.result()
        except BaseException:
            # Nothing must go on in the request of the next task.
            if asyncio.all_tasks(runner.get_loop()):
                run.close()
                del _runners[key]
            raise

    return call


class _Run:
    """One run of a coroutine in an event loop."""

    def __init__(
        self, runner: asyncio.Runner, coroutine: Coroutine[Any, Any, Any], name: str
    ) -> None:
        self._runner = runner
        self._coroutine = coroutine
        self._name = name
        self._main: asyncio.Task[Any] | None = None
        self._limit: SoftTimeLimitExceeded | None = None

    def result(self) -> Any:
        """Return what the coroutine returns, or raise what it raises.

        Raises:
            SoftTimeLimitExceeded: The soft time limit of the task has passed.
            CoroutineError: The coroutine was cancelled by its own code.
        """
        try:
            with self._cancelled_by_limit():
                # A runner would give each coroutine the context of the first.
                return self._runner.run(self._await(), context=copy_context())
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            if self._limit is not None:
                raise self._limit from error
            if isinstance(error, asyncio.CancelledError):
                raise CoroutineError(
                    f"The coroutine of the task {self._name} was cancelled by its own "
                    "code"
                ) from error
            if (predicate := _only_predicate(error)) is not None:
                raise predicate from error
            raise
        finally:
            if self._main is None:  # it has not begun
                self._coroutine.close()

    def close(self) -> None:
        """Close the event loop, in which the run has left something."""
        if self._main is not None and self._main.done():
            # The tasks left do not end when they are cancelled: nobody waits for them.
            self._runner.get_loop().close()
        else:
            self._runner.close()

    async def _await(self) -> Any:
        self._main = asyncio.current_task()
        try:
            return await self._coroutine
        finally:
            # The request and the transaction end with the task.
            await _end_others(self._main)

    @contextmanager
    def _cancelled_by_limit(self) -> Iterator[None]:
        """Let a soft time limit cancel the coroutine.

        The handler of the pool raises an error where the process is. Inside the event
        loop that would leave the coroutine behind, in the middle.
        """
        number = getattr(signal, "SIGUSR1", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(number)
        if not callable(before):
            yield
            return
        loop = self._runner.get_loop()

        def handle(signum: int, frame: FrameType | None) -> None:
            try:
                before(signum, frame)
            except SoftTimeLimitExceeded as error:
                running = asyncio.current_task(loop)
                if self._main is not None and running is not self._main:
                    self._limit = error
                    loop.call_soon_threadsafe(self._main.cancel)
                if self._main is None or running is not None:
                    raise  # into the code that runs, as into a plain function

        signal.signal(number, handle)
        try:
            yield
        finally:
            signal.signal(number, before)


async def _nothing() -> AsyncGenerator[None, None]:
    yield


def _type_of_closing() -> type:
    closing = _nothing().aclose()
    closing.close()
    return type(closing)


#: The type of the object that closes an async generator.
_CLOSING = _type_of_closing()


async def _end_others(main: asyncio.Task[Any] | None) -> None:
    """Cancel all that a coroutine has begun, also what that begins at its end."""
    while True:
        await asyncio.sleep(0)  # the loop begins now to close what nobody iterates over
        others = asyncio.all_tasks() - {main}
        if not others:
            return
        for other in others:
            if not isinstance(other.get_coro(), _CLOSING):
                other.cancel()
        await asyncio.wait(others)


def _only_predicate(error: BaseException) -> TaskPredicate | None:
    """Return what tells Celery how a task ends, if a group holds nothing else."""
    if isinstance(error, TaskPredicate):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [_only_predicate(each) for each in error.exceptions]
        return None if None in found else found[0]
    return None


def _check_no_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise CoroutineError(
        f"The task {name} is an async function, and an event loop already runs in this "
        "thread: defer the task from another one, with await "
        "asyncio.to_thread(request.defer_task, ...)"
    )


def _close_runners(_event: CeleryWorkerProcessShutdown) -> None:
    for key in list(_runners):
        if key[0] == os.getpid():
            _runners.pop(key).close()
