"""A Celery worker that is a full Pyramid application.

The names below are imported when first used: ``celery`` imports this package in every
environment it is installed in, and must not pay for what it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from .configuration.tasks import task
    from .deferring.request_methods import defer_task
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

# Where these names are defined.
_MODULES = (
    ".configuration.tasks",
    ".deferring.request_methods",
    ".events",
    ".exceptions",
)


def includeme(config: Configurator) -> None:
    """Make a Pyramid application one that has tasks.

    Every name is a dotted one, relative to this package.
    """
    # The Celery application, with what the ini says of it.
    config.include(".configuration.celery_app")
    if config.get_settings().get("pyramid_tasks.config_uri"):
        config.include(".loaders.config_uri")

    # Configuring tasks.
    rooms = ".configuration."
    config.add_directive("register_task", rooms + "tasks.register_task")
    config.add_directive("add_periodic_task", rooms + "schedules.add_periodic_task")
    config.add_directive("add_task_deriver", rooms + "derivers.add_task_deriver")
    config.add_directive("add_fork_safe", rooms + "fork_safe.add_fork_safe")
    config.add_directive("make_celery_app", rooms + "celery_app.make_celery_app")

    # Deferring tasks.
    methods = ".deferring.request_methods."
    config.add_request_method(methods + "defer_task")
    config.add_request_method(methods + "defer_task", name="delay_task")
    config.add_request_method(methods + "defer_task_with_options")
    config.add_request_method(methods + "defer_tasks")
    config.add_request_method(".deferring.canvases.defer_canvas")
    config.add_request_method(".deferring.canvases.task_signature")
    config.add_request_method(methods + "get_task_result")

    # Delivering tasks.
    config.include(".delivery.immediate")

    # Running tasks.
    config.include(".worker.request")
    config.add_request_method(".worker.request.current_task", property=True)
    config.add_request_method(".worker.request.deferred_by", property=True)

    # Telling tasks about the requests that deferred them.
    config.add_directive("add_task_context", rooms + "contexts.add_task_context")
    if {"pyramid_tasks.context", "pyramid_tasks.base_url"} & {*config.get_settings()}:
        config.include(".configuration.builtin_contexts")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("importlib.metadata").version("pyramid-tasks")
    for module in _MODULES if name in __all__ else ():
        found = import_module(module, __name__)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
