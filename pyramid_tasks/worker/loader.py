"""Celery's hooks into the processes of a worker.

A web process imports this module too, and not what the hooks import.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.loaders.app import AppLoader
from celery.platforms import EX_FAILURE

from ..events import (
    CeleryBeatInit,
    CeleryWorkerProcessInit,
    CeleryWorkerProcessShutdown,
)
from ..registry import tasks_with_inbox

if TYPE_CHECKING:
    from ..application import PyramidCelery

_SECONDS_BETWEEN_ATTEMPTS = 1.0


class PyramidLoader(AppLoader):
    """Celery's hooks into a worker, for one application.

    A loader belongs to its Celery application, and Celery calls these hooks only in
    processes of its own: a web process connects nothing to Celery's signals.

    Attributes:
        is_ready: Whether the worker of this process, or of its parent, takes tasks.
    """

    is_ready = False

    def __init__(self, app: PyramidCelery) -> None:
        super().__init__(app)
        self.registry = app.registry
        # Celery 5.3 takes the methods of two loaders for one without such an id.
        self._uid = f"pyramid_tasks.{id(self)}"

    def on_worker_init(self) -> None:
        # Celery calls this in a worker, in beat, and in a spawned child of the pool.
        from celery import Task

        from .lifecycle import WorkerEvents
        from .memory import freeze_before_forks
        from .messages import CheckedMessages

        self.app.steps["worker"].add(WorkerEvents)
        self.app.steps["consumer"].add(CheckedMessages)
        freeze_before_forks(self.registry)
        self.connect_beat()
        for task in tasks_with_inbox(self.app):
            if task.Request == Task.Request:
                task.Request = "pyramid_tasks.worker.lost:InboxRequest"

    def connect_beat(self) -> None:
        """Send ``CeleryBeatInit`` if beat starts in this process or in a fork of it."""
        signals.beat_init.connect(self._on_beat_init, dispatch_uid=self._uid)

    def on_worker_process_init(self) -> None:
        # Celery calls this in a child of the prefork pool of this application's worker.
        with _ending_the_process():
            self._check_fork()
        signals.worker_process_init.connect(
            self._on_process_init, dispatch_uid=self._uid
        )
        signals.worker_process_shutdown.connect(
            self._on_process_shutdown, dispatch_uid=self._uid
        )

    def _on_process_init(self, **_: Any) -> None:
        from .lifecycle import notify_subscribers

        with _ending_the_process():
            try:
                notify_subscribers(CeleryWorkerProcessInit(self.registry))
            except Exception:
                # A worker that starts watches for children that end at once. Later it
                # replaces them without a pause.
                if self.is_ready:
                    time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
                raise

    def _on_process_shutdown(self, **_: Any) -> None:
        from .lifecycle import notify_subscribers

        with suppress(Exception):  # logged
            notify_subscribers(CeleryWorkerProcessShutdown(self.registry))

    def _on_beat_init(self, sender: Any, **_: Any) -> None:
        from .beat import log_first_task
        from .lifecycle import notify_subscribers

        if sender.app is self.app:
            with _ending_the_process():
                self._check_fork()
                notify_subscribers(CeleryBeatInit(self.registry))
            with suppress(Exception):  # beat itself will say what is wrong
                log_first_task(sender.scheduler)

    def _check_fork(self) -> None:
        if self.app.fork_error is not None:  # logged
            raise self.app.fork_error


@contextmanager
def _ending_the_process() -> Iterator[None]:
    """Turn an error into the end of a process, where a signal would swallow it."""
    try:
        yield
    except Exception as error:
        raise SystemExit(EX_FAILURE) from error
