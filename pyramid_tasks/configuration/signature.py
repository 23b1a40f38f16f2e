"""What Celery sees of a task: its name and its signature, less the request."""

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
        TaskError: It has none that could be made one of.
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
    """Return what a caller may pass: the signature without the request.

    It begins with the ``self`` that Celery binds to the task, under a name that leaves
    ``self`` to the parameters of the task.

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
    """Show Celery the task's own name and signature, less the request.

    Celery checks arguments, and validates those of ``pydantic=True``, by what it sees.
    """
    name = getattr(func, "__name__", "")
    # Celery puts the name into source code; that of a lambda is none.
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
