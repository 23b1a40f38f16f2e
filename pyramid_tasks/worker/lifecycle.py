"""The events of a worker and of its processes, sent to one application."""

from __future__ import annotations

import logging
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.bootsteps import StartStopStep
from pyramid.config import Configurator

from ..events import (
    CeleryWorkerInit,
    CeleryWorkerProcessInit,
    CeleryWorkerProcessShutdown,
    CeleryWorkerReady,
    CeleryWorkerShutdown,
    ProcessEvent,
)
from .files import check_files
from .ignored_settings import ignored_settings

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker import WorkController

logger = logging.getLogger(__name__)

#: The pools that patch Python, and that do not run the event loop of asyncio.
PATCHING_POOLS = {"gevent", "eventlet"}


def notify_subscribers(event: ProcessEvent) -> None:
    """Notify the subscribers of an event, with the registry as a threadlocal.

    An error is logged with the place where it happened, and raised: the callers of a
    worker's hooks swallow errors, or name the wrong culprit.
    """
    config = Configurator(registry=event.registry)
    config.begin()
    try:
        event.registry.notify(event)
    except Exception:
        name = type(event).__name__
        logger.critical("A subscriber of %s failed", name, exc_info=True)
        raise
    finally:
        config.end()


class WorkerEvents(StartStopStep):
    """A part of a worker that sends the worker's events to its application.

    It belongs to one application, its errors are not swallowed, and it learns of every
    way to stop: the receivers of Celery's signals have none of this.
    """

    label = "Pyramid events"

    def __init__(self, worker: WorkController, **options: Any) -> None:
        super().__init__(worker, **options)
        self.loader = worker.app.loader
        self.registry = self.loader.registry
        check_files(worker_state_db=worker.statedb, pidfile=worker.pidfile)
        if options.get("beat"):
            from .beat import check_beat

            check_beat(worker.scheduler, worker.schedule_filename)
        for name, problem in ignored_settings(worker.app):
            logger.warning("%s %s", name, problem)
        self._ready_callback = worker.ready_callback
        worker.ready_callback = self._on_ready
        notify_subscribers(CeleryWorkerInit(self.registry))

    def include(self, worker: WorkController) -> bool:
        from celery.concurrency.prefork import TaskPool

        _check_greenlets(worker.pool_cls, worker.app)
        # The first to start is the last to stop: after the pool and its tasks.
        worker.steps.insert(0, self)
        self.runs_tasks = not issubclass(worker.pool_cls, TaskPool)
        if self.runs_tasks:
            notify_subscribers(CeleryWorkerProcessInit(self.registry))
        return True

    def stop(self, _worker: WorkController) -> None:
        if self.runs_tasks:
            with suppress(Exception):  # logged
                notify_subscribers(CeleryWorkerProcessShutdown(self.registry))
        with suppress(Exception):
            notify_subscribers(CeleryWorkerShutdown(self.registry))

    terminate = stop

    def _on_ready(self, consumer: Any) -> None:
        self._ready_callback(consumer)
        self.loader.is_ready = True
        # Celery would take an OSError for a lost connection.
        with suppress(Exception):
            notify_subscribers(CeleryWorkerReady(self.registry))


def _check_greenlets(pool: type, app: Celery) -> None:
    """End a worker whose pool could run no task, nor stop, or not all of its tasks.

    Celery patches Python for an option on the command line, before anything is
    imported, and not for a setting.
    """
    name = pool.__module__.rpartition(".")[2]
    if pool.__module__ == "celery.concurrency.gevent":
        is_patched = import_module("gevent.monkey").is_module_patched("threading")
    elif pool.__module__ == "celery.concurrency.eventlet":
        is_patched = import_module("eventlet.patcher").is_monkey_patched("thread")
    else:
        return
    if not is_patched:
        raise SystemExit(
            f"Error: the pool {name} must patch Python before anything is imported. "
            f"Start the worker with --pool={name}."
        )
    if problem := async_tasks_under(name, app):
        raise SystemExit(
            f"Error: the pool {name} {problem} Start the worker with --pool=prefork, "
            "--pool=threads or --pool=solo."
        )


def async_tasks_under(pool: str, app: Celery) -> str | None:
    """Return what is wrong with a pool that cannot run all tasks of an application."""
    if pool in PATCHING_POOLS:
        for task in app.tasks.values():
            if getattr(task, "is_async", False):
                return f"cannot run async functions, and the task {task.name} is one."
    return None
