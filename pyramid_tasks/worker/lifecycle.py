"""The events of a worker and of its processes, sent to one application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery.bootsteps import StartStopStep
from pyramid.threadlocal import manager

from ..events import (
    CeleryWorkerInit,
    CeleryWorkerProcessInit,
    CeleryWorkerProcessShutdown,
    CeleryWorkerReady,
    CeleryWorkerShutdown,
    ProcessEvent,
)

if TYPE_CHECKING:
    from celery.worker import WorkController

logger = logging.getLogger(__name__)


@contextmanager
def logged(what: str) -> Iterator[None]:
    """Log an error with what it happened in, and raise it.

    Those who call the hooks of a worker swallow errors, or name the wrong culprit.
    """
    try:
        yield
    except Exception:
        logger.critical("%s failed", what, exc_info=True)
        raise


def notify_subscribers(event: ProcessEvent) -> None:
    """Tell the subscribers of an event, with the registry as a threadlocal."""
    manager.push({"registry": event.registry, "request": None})
    try:
        with logged(f"A subscriber of {type(event).__name__}"):
            event.registry.notify(event)
    finally:
        manager.pop()


class WorkerEvents(StartStopStep):
    """A part of a worker, which tells its application how the worker fares.

    Unlike the receivers of Celery's signals, it belongs to one application, its errors
    are not swallowed, and it is told of every way to stop.
    """

    label = "Pyramid events"

    def __init__(self, worker: WorkController, **options: Any) -> None:
        super().__init__(worker, **options)
        self.loader = worker.app.loader
        self.registry = self.loader.registry
        worker.ready_callback = self._after(worker.ready_callback)
        notify_subscribers(CeleryWorkerInit(self.registry))

    def include(self, worker: WorkController) -> bool:
        # The first to start is the last to stop: after the pool and its tasks.
        worker.steps.insert(0, self)
        self.runs_tasks = not _is_prefork(worker.pool_cls)
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

    def _after(self, ready: Callable[[Any], Any]) -> Callable[[Any], None]:
        def ready_and_notify(consumer: Any) -> None:
            ready(consumer)
            self.loader.is_ready = True
            # Raised here, an OSError would be taken for a lost connection.
            with suppress(Exception):
                notify_subscribers(CeleryWorkerReady(self.registry))

        return ready_and_notify


def _is_prefork(pool: type) -> bool:
    from celery.concurrency.prefork import TaskPool

    return issubclass(pool, TaskPool)
