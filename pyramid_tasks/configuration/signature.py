"""The name and the signature of a task that Celery sees: without the request."""

from __future__ import annotations

import inspect
import keyword
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_type_hints

from ..exceptions import TaskError

if TYPE_CHECKING:
    from celery import Celery

_POSITIONAL = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
}


def default_name(app: Celery, func: Callable[..., Any]) -> str:
    """Return the name that Celery gives a function.

    Raises:
        TaskError: The function has no name, or a name that is no identifier.
    """
    name = getattr(func, "__name__", "")
    if not name.isidentifier():
        raise TaskError(
            f"{func!r} has no name of its own; "
            "give one: config.register_task(..., name='...')"
        )
    return str(app.gen_task_name(name, func.__module__))


def signature_less_request(
    func: Callable[..., Any], name: str, *, bind: bool
) -> inspect.Signature:
    """Return the signature that a task would have in Celery: without the request.

    Raises:
        TaskError: The function does not take a request first, or takes ``self``
            where ``bind`` says otherwise.
    """
    original = _signature(func)
    parameters = list(original.parameters.values())
    for index, leading in enumerate(("self", "request") if bind else ("request",)):
        kind = parameters[index].kind if index < len(parameters) else None
        if kind == inspect.Parameter.VAR_POSITIONAL:
            return original
        if kind not in _POSITIONAL:
            expected = "(self, request, ...)" if bind else "(request, ...)"
            raise TaskError(
                f"The task {name!r} must take {expected}, but {func!r} has no "
                f"positional parameter for {leading}"
            )
    names = [parameter.name for parameter in parameters[:2]]
    if bind and names[0] == "request":
        raise TaskError(
            f"The task {name!r} has bind=True, and so takes (self, request, ...): "
            "write self before request, or leave out bind=True."
        )
    if not bind and names == ["self", "request"]:
        raise TaskError(
            f"The task {name!r} takes (self, request, ...) without bind=True: give "
            "the option, or leave out self."
        )
    del parameters[bind]
    return original.replace(parameters=parameters)


def present_as(
    run: Callable[..., Any],
    func: Callable[..., Any],
    signature: inspect.Signature,
    *,
    evaluate: bool,
) -> None:
    """Show Celery the name and the signature of the task, without the request.

    Celery checks arguments against this signature, tells by it how to call a
    ``link_error``, and ``pydantic=True`` validates by its annotations.

    Args:
        run: The function for Celery.
        func: The function of the application.
        signature: The signature that ``run`` gets.
        evaluate: Whether to evaluate annotations that are strings, if possible.
    """
    name = getattr(func, "__name__", "")
    # Celery puts the name into source code, where "<lambda>" is a syntax error.
    valid = name.isidentifier() and not keyword.iskeyword(name)
    run.__name__ = name if valid else "task"
    run.__qualname__ = getattr(func, "__qualname__", run.__name__)
    run.__module__ = func.__module__
    run.__doc__ = func.__doc__
    run.__annotations__ = {
        each.name: each.annotation
        for each in signature.parameters.values()
        if each.annotation is not inspect.Parameter.empty
    }
    if signature.return_annotation is not inspect.Signature.empty:
        run.__annotations__["return"] = signature.return_annotation
    # No __wrapped__: Celery's annotation "@run" would go around the function behind it.
    run.__signature__ = signature  # type: ignore[attr-defined]
    if evaluate:
        names = getattr(inspect.unwrap(func), "__globals__", {})
        with suppress(Exception):  # a name that only type checkers import
            run.__annotations__ = get_type_hints(run, names, include_extras=True)


def _signature(func: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # A name that only type checkers import is no error.
        return inspect.signature(func, annotation_format=Format.FORWARDREF)
    return inspect.signature(func)
