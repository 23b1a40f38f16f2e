"""A Celery worker that is a full Pyramid application.

The names below are imported when first used: ``celery`` imports this package in every
environment it is installed in, and must not pay for what it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from .directives import task
    from .events import (
        AfterTask,
        BeforeDeferTask,
        BeforeTask,
        CeleryBeatInit,
        CeleryWorkerInit,
        CeleryWorkerProcessInit,
        CeleryWorkerProcessShutdown,
        CeleryWorkerReady,
        CeleryWorkerShutdown,
        TaskDeliveryFailed,
        TaskFailed,
        TaskRetried,
    )
    from .exceptions import PyramidTasksError
    from .request_methods import defer_task

    __version__: str

__all__ = [  # noqa: RUF022 grouped: the functions, the events, the errors
    "task",
    "defer_task",
    "BeforeDeferTask",
    "BeforeTask",
    "AfterTask",
    "TaskFailed",
    "TaskRetried",
    "TaskDeliveryFailed",
    "CeleryBeatInit",
    "CeleryWorkerInit",
    "CeleryWorkerProcessInit",
    "CeleryWorkerProcessShutdown",
    "CeleryWorkerReady",
    "CeleryWorkerShutdown",
    "PyramidTasksError",
    "includeme",
]


def includeme(config: Configurator) -> None:
    """Make a Pyramid application one that has tasks.

    Every name is a dotted one, relative to this package.
    """
    # The Celery application, with what the ini says of it.
    config.include(".registry")
    if config.get_settings().get("pyramid_tasks.config_uri"):
        config.include(".loaders.config_uri")

    # Configuring tasks.
    config.add_directive("register_task", ".directives.register_task")
    config.add_directive("add_periodic_task", ".directives.add_periodic_task")
    config.add_directive("add_task_deriver", ".taskderivers.add_task_deriver")
    config.add_directive("add_fork_safe", ".forking.add_fork_safe")
    config.add_directive(
        "make_celery_app", ".directives.make_celery_app", action_wrap=False
    )

    # Deferring tasks.
    methods = ".request_methods."
    config.add_request_method(methods + "defer_task")
    config.add_request_method(methods + "defer_task", name="delay_task")
    config.add_request_method(methods + "defer_task_with_options")
    config.add_request_method(methods + "defer_tasks")
    config.add_request_method(methods + "defer_canvas")
    config.add_request_method(methods + "task_signature")
    config.add_request_method(methods + "get_task_result")

    # Running tasks.
    config.add_request_method(methods + "current_task", property=True)
    config.add_request_method(methods + "deferred_by", property=True)

    # What tasks know of the requests that deferred them.
    config.add_directive("add_task_context", ".directives.add_task_context")
    config.include(".builtin_contexts")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("importlib.metadata").version("pyramid-tasks")
    for module in ("directives", "request_methods", "events", "exceptions"):
        if name in __all__ and hasattr(
            found := import_module(f".{module}", __name__), name
        ):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
