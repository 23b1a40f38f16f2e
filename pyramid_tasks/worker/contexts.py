"""The message header that brings a task the context of the request that deferred it."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps, loads

from .._kombu import raise_limit

if TYPE_CHECKING:
    from pyramid.request import Request

    from ..registry import Contexts

#: The name of the message header. Its value is JSON.
HEADER = "pyramid_tasks_context"

#: The key of the environ of a task's request that has the header of its message.
ENVIRON_KEY = "pyramid_tasks.context"


def context_headers(contexts: Contexts, request: Request) -> dict[str, str]:
    """Return the message header of a task that a request defers.

    A task hands on the header of its own message, and asks its request for nothing.

    Raises:
        TypeError: JSON cannot hold a value.
    """
    if not contexts:
        return {}
    text = request.environ.get(ENVIRON_KEY)
    if text is None:
        members = (
            f"{dumps(name)}: {_as_json(name, value)}"
            for name, (capture, _) in contexts.items()
            if (value := capture(request)) is not None
        )
        # An empty object travels too: it tells the task to hand on nothing.
        text = f"{{{', '.join(members)}}}"
    # One string, as every transport can carry strings.
    return {HEADER: text}


def restore_contexts(
    contexts: Contexts, request: Request, headers: dict[str, Any]
) -> None:
    """Give the request of a task the values that its message brought.

    Args:
        contexts: The task contexts of the application.
        request: The request of the task.
        headers: The headers of the message, which could come from anyone.

    Raises:
        ValueError: The header is no JSON object.
    """
    text = headers.get(HEADER)
    if text is None:
        return
    values = _from_json(text)
    request.environ[ENVIRON_KEY] = text
    for name, (_, restore) in contexts.items():
        if (value := values.get(name)) is not None:
            restore(request, value)


def _as_json(name: str, value: Any) -> str:
    try:
        text: str = dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"The task context {name!r} cannot travel, as JSON cannot hold "
            f"{reprlib.repr(value)}: {error}"
        ) from error
    return text


def _from_json(text: Any) -> dict[str, Any]:
    try:
        # Celery's function takes bytes too, which a task could not hand on.
        values = loads(text) if isinstance(text, str) else None
        if not isinstance(values, dict):
            raise TypeError(f"it is of type {type(values).__name__}")
    except Exception as error:
        raise_limit(error)
        raise ValueError(
            f"The header {HEADER!r} is no JSON object: {reprlib.repr(text)}"
        ) from error
    return values
