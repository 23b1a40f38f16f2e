"""``config.add_task_context``: what tasks know of the requests that deferred them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyramid.exceptions import ConfigurationError

from ..registry import get_tasks
from .functions import check_callback
from .importable import maybe_dotted
from .load import reporting_directive

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from ..registry import Capture, Restore


@reporting_directive
def add_task_context(
    config: Configurator, name: str, capture: Capture | str, restore: Restore | str
) -> None:
    """Tell every task something about the request that deferred it.

    The value travels in a header of the message, so the value should be small.
    Everyone who can write to the broker can forge it. A task that defers another task
    hands the value on.

    Args:
        name: The name of the context.
        capture: ``capture(request)`` is called when a task is deferred. It returns a
            value that JSON can hold, or ``None`` for nothing. A dotted name is allowed.
        restore: ``restore(request, value)`` is called with the request of the task
            when the message brings a value, so not for a task of beat. The
            request has its methods and properties by then; its root, the derivers and
            the task come later. A dotted name is allowed.

    Raises:
        pyramid.exceptions.ConfigurationError: One of the two cannot be called so, or
            is an async function, or its dotted name leads nowhere.

    An error in ``capture`` is raised where the task is deferred. An error in
    ``restore`` is an error of the task.
    """
    functions = maybe_dotted(config, capture), maybe_dotted(config, restore)
    if not all(map(callable, functions)):
        raise ConfigurationError(
            f"The task context {name!r} needs two functions, capture(request) and "
            f"restore(request, value), not {functions[0]!r} and {functions[1]!r}"
        )
    check_callback(f"The capture of the task context {name!r}", functions[0], "request")
    check_callback(
        f"The restore of the task context {name!r}", functions[1], "request", "value"
    )

    def register() -> None:
        get_tasks(config.registry).contexts[name] = functions

    introspectable = config.introspectable("task contexts", name, name, "task context")
    introspectable.update(name=name, capture=functions[0], restore=functions[1])
    config.action(("task context", name), register, introspectables=(introspectable,))
