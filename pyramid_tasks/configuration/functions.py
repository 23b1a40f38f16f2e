"""The kinds of callables: those that can be tasks, and those that cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..exceptions import TaskError

#: What gives no result when it is called: a test for it, and what it is.
_REFUSED: dict[Callable[[Any], bool], str] = {
    inspect.isclass: "a class: register a function, which can use the class",
    inspect.isgeneratorfunction: "a generator function, and nobody would iterate over "
    "it: return a list, or defer a task for each item",
    inspect.isasyncgenfunction: "an async generator function, and nobody would iterate "
    "over it: return a list, or defer a task for each item",
}


def check_kind(func: Callable[..., Any]) -> None:
    """Check that a callable does its work when it is called.

    Raises:
        TaskError: It is a class, or a function whose call only makes an object.
    """
    for is_kind, problem in _REFUSED.items():
        if is_kind(_called(func)):
            raise TaskError(f"{_describe(func)} cannot be a task. It is {problem}.")


def is_async(func: Callable[..., Any]) -> bool:
    """Whether a call makes a coroutine, also inside a decorator that is not async."""
    called = _called(func)
    return any(map(inspect.iscoroutinefunction, (called, inspect.unwrap(called))))


def _called(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, the method or the class that a call would call."""
    if isinstance(func, type) or inspect.isroutine(func) or hasattr(func, "func"):
        return func  # a partial has a function; inspect looks into it
    return type(func).__call__


def _describe(func: Callable[..., Any]) -> str:
    name = getattr(func, "__qualname__", None)
    return f"{func.__module__}.{name}" if name else repr(func)
