"""A real worker, in a thread of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from celery.contrib.testing import worker

from .._celery import keeping_state
from ..registry import get_tasks
from .isolation import RESULTS_IN_MEMORY, isolated

if TYPE_CHECKING:
    from celery.worker import WorkController
    from pyramid.registry import Registry


@contextmanager
def start_worker(registry: Registry, **options: Any) -> Iterator[WorkController]:
    """Run a worker of an application in a thread, with a broker and results in memory.

    The broker, the result backend and ``task_always_eager`` of the settings have no
    effect meanwhile. Afterwards the application is as it was::

        with start_worker(app.registry):
            result = request.defer_task(add, 2, 3)
            assert result.get(timeout=10) == 5

    Args:
        registry: The registry of the application: ``app.registry`` or
            ``config.registry``.
        options: The options of ``celery.contrib.testing.worker.start_worker``, such as
            ``pool="threads"``, ``concurrency`` and ``shutdown_timeout``.

    Raises:
        TaskError: The application does not include ``pyramid_tasks``.
    """
    app = get_tasks(registry).app
    settings = {"result_backend": RESULTS_IN_MEMORY, "task_always_eager": False}
    options = {"perform_ping_check": False, **options}
    with (
        isolated(app, **settings),
        # A worker changes the logging of the process, and the state of Celery.
        mock.patch.object(app, "log"),
        keeping_state(),
        worker.start_worker(app, **options) as started,
    ):
        yield started
