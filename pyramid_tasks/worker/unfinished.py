"""Return values that show that a task has not done its work.

A call of an async function or of a generator function only makes an object. Where such
a function is hidden, as in a lambda or a decorator, only the return value tells.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from ..exceptions import CoroutineError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


def _generator() -> Iterator[None]:
    yield


async def _async_generator() -> AsyncGenerator[None, None]:
    yield


_GENERATOR = "a generator, and nobody iterates over it: return a list"
_CONTEXT = "a context manager, and nobody enters it: use it inside the task"

_UNFINISHED: dict[type, str] = {
    CoroutineType: "a coroutine, and nobody awaits it: make the task an async def, and "
    "keep functools.wraps in its decorators",
    GeneratorType: _GENERATOR,
    AsyncGeneratorType: _GENERATOR,
    type(contextmanager(_generator)()): _CONTEXT,
    type(asynccontextmanager(_async_generator)()): _CONTEXT,
}


def check_finished(name: str, result: Any) -> None:
    """Check that a task has done its work, by its return value.

    Raises:
        CoroutineError: The return value is a coroutine, a generator or the like.
    """
    if type(result) in _UNFINISHED:
        if isinstance(result, CoroutineType):
            result.close()  # or Python warns that nobody awaited it
        raise CoroutineError(f"The task {name} returned {_UNFINISHED[type(result)]}.")
