"""The name and the signature of a task that Celery sees: without the request."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import TaskError

if TYPE_CHECKING:
    from celery import Celery


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
    """Return the signature of a task for its callers: without the request.

    The first parameter is the task that Celery binds. Its name is not ``self``, so that
    a parameter of the task can have that name.

    Raises:
        TaskError: The function does not take a request first.
    """
    original = inspect.signature(func)
    parameters = list(original.parameters.values())
    positional = {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }
    for leading in ("self", "request") if bind else ("request",):
        if parameters and parameters[0].kind in positional:
            del parameters[0]
        elif not parameters or parameters[0].kind != inspect.Parameter.VAR_POSITIONAL:
            expected = "(self, request, ...)" if bind else "(request, ...)"
            raise TaskError(
                f"The task {name!r} must take {expected}, but {func!r} has no "
                f"positional parameter for {leading}"
            )
    return inspect.Signature(
        [
            inspect.Parameter("_celery_task", inspect.Parameter.POSITIONAL_ONLY),
            *parameters,
        ],
        return_annotation=original.return_annotation,
    )


def present_as(
    run: Callable[..., Any], func: Callable[..., Any], signature: inspect.Signature
) -> None:
    """Show Celery the name and the signature of the task, without the request.

    Celery checks arguments against this signature, and ``pydantic=True`` validates
    them by its annotations.
    """
    name = getattr(func, "__name__", "")
    # Celery puts the name into source code, where "<lambda>" is a syntax error.
    valid = name.isidentifier() and not keyword.iskeyword(name)
    run.__name__ = name if valid else "task"
    run.__qualname__ = getattr(func, "__qualname__", run.__name__)
    run.__module__ = func.__module__
    run.__doc__ = func.__doc__
    annotations = getattr(func, "__annotations__", {})
    run.__annotations__ = {
        name: annotation
        for name, annotation in annotations.items()
        if name == "return" or name in signature.parameters
    }
    run.__wrapped__ = func  # type: ignore[attr-defined]  # whose globals name the types
    run.__signature__ = signature  # type: ignore[attr-defined]
