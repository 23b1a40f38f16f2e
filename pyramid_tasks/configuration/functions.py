"""The kinds of callables: those that can be tasks, and those that cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..exceptions import TaskError

#: The callables that give no result when called: a test, and the words for the error.
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
    if not callable(func):
        raise TaskError(
            f"{func!r} cannot be a task, as it cannot be called: register a function, "
            "or the dotted name of one, such as myapp.tasks.add."
        )
    for is_kind, problem in _REFUSED.items():
        if is_kind(_called(func)):
            raise TaskError(f"{_describe(func)} cannot be a task. It is {problem}.")


def is_async(func: Callable[..., Any]) -> bool:
    """Whether a call makes a coroutine, also inside decorators that are not async."""
    return any(map(inspect.iscoroutinefunction, _layers(func)))


def check_callback(what: str, func: Callable[..., Any], *arguments: str) -> None:
    """Check that a function can be called with some arguments, and then does its work.

    Args:
        what: The purpose of the function, as the beginning of the error.
        func: The function.
        arguments: The names of its arguments, all of them positional.

    Raises:
        TaskError: It is async, or takes other arguments.
    """
    called = f"{what} is called as {_describe(func)}({', '.join(arguments)})"
    if is_async(func):
        raise TaskError(f"{called}, and nobody awaits it: write a plain def.")
    try:
        inspect.signature(func).bind(*arguments)
    except TypeError as error:
        raise TaskError(f"{called}: {error}.") from None
    except ValueError:  # a builtin does not tell its arguments
        pass


def _layers(func: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield what a call would call, then what that seems to wrap, and so on."""
    called = _called(func)
    yield called
    for each in [func] if called is func else [func, called]:
        if (wrapped := getattr(each, "__wrapped__", None)) is not None:
            yield from _layers(wrapped)


def _called(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, the method or the class that a call would call."""
    while isinstance(func, partial):
        func = func.func
    if isinstance(func, type) or inspect.isroutine(func):
        return func
    return type(func).__call__


def _describe(func: Callable[..., Any]) -> str:
    name = getattr(func, "__qualname__", None)
    return f"{func.__module__}.{name}" if name else repr(func)
