"""What a task knows of the request that deferred it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps, loads

if TYPE_CHECKING:
    from pyramid.request import Request

#: The message header with the values, as JSON.
HEADER = "pyramid_tasks_context"

#: Where the request of a task has the values that its message brought.
ENVIRON_KEY = "pyramid_tasks.context"

#: ``capture(request)`` returns what JSON can hold, or ``None`` for nothing.
Capture = Callable[["Request"], Any]
#: ``restore(request, value)`` gives it to the request of the task.
Restore = Callable[["Request", Any], None]


class TaskContexts:
    """The contexts of an application: what travels from request to task."""

    def __init__(self) -> None:
        self._contexts: dict[str, tuple[Capture, Restore]] = {}

    def __bool__(self) -> bool:
        return bool(self._contexts)

    def add(self, name: str, capture: Capture, restore: Restore) -> None:
        """Add a context, or replace that of the same name."""
        self._contexts[name] = capture, restore

    def capture(self, request: Request) -> dict[str, str]:
        """Return the message header of a task that a request defers, or nothing.

        A task hands on the values that came with its own message.

        Raises:
            TypeError: JSON cannot hold a value.
        """
        received = request.environ.get(ENVIRON_KEY, {})
        values = {}
        for name, (capture, _) in self._contexts.items():
            value = received[name] if name in received else capture(request)
            if value is None:
                continue
            try:
                values[name] = dumps(value)
            except TypeError as error:
                raise TypeError(
                    f"The task context {name!r} cannot travel, as JSON cannot hold "
                    f"{value!r}: {error}"
                ) from error
        if not values:
            return {}
        # As one string, which every transport passes on as it is.
        members = (f"{dumps(name)}: {value}" for name, value in values.items())
        return {HEADER: f"{{{', '.join(members)}}}"}

    def restore(self, request: Request, headers: dict[str, Any]) -> None:
        """Give the request of a task what its message brought.

        Raises:
            ValueError: The header, which could come from anyone, is not JSON.
        """
        text = headers.get(HEADER)
        if text is None:
            return
        try:
            values = dict(loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The header {HEADER!r} is no JSON object: {text!r}"
            ) from error
        request.environ[ENVIRON_KEY] = values
        for name, (_, restore) in self._contexts.items():
            if name in values:
                restore(request, values[name])
