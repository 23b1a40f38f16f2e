"""``config.add_task_context``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyramid.exceptions import ConfigurationError

from ..registry import get_tasks

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from ..registry import Capture, Restore


def add_task_context(
    config: Configurator, name: str, capture: Capture | str, restore: Restore | str
) -> None:
    """Have every task know something of the request that deferred it.

    It travels in a header of the message, so it should be small, and whoever can write
    to the broker can make it up. A task that defers a task hands on what came to it.

    Args:
        name: The name of the context.
        capture: ``capture(request)`` is called when a task is deferred, and returns
            what JSON can hold, or ``None`` for nothing. The request is that of a task
            where no request deferred that, as with ``celery beat``.
        restore: ``restore(request, value)`` is called with the request of the task,
            which has its methods and properties, before its root, its derivers and the
            task; not where the message brings no value.

    Both can be dotted names. An error of the one is raised where the task is deferred;
    one of the other is an error of the task.
    """
    functions = config.maybe_dotted(capture), config.maybe_dotted(restore)
    if not all(map(callable, functions)):
        raise ConfigurationError(
            f"The task context {name!r} needs two functions, capture(request) and "
            f"restore(request, value), not {functions[0]!r} and {functions[1]!r}"
        )

    def register() -> None:
        get_tasks(config.registry).contexts[name] = functions

    introspectable = config.introspectable("task contexts", name, name, "task context")
    introspectable.update(name=name, capture=functions[0], restore=functions[1])
    config.action(("task context", name), register, introspectables=(introspectable,))
