"""Tasks that are kept instead of being sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from ..registry import get_tasks
from ..worker.request import get_runner
from .deferred import Deferred
from .delivery import Captured, CapturingDelivery
from .isolation import RESULTS_IN_MEMORY, isolated

if TYPE_CHECKING:
    from pyramid.registry import Registry

    from ..registry import Delivery


@contextmanager
def capture(
    registry: Registry, environ: Mapping[str, Any] | None = None
) -> Iterator[Deferred]:
    """Keep the tasks that an application defers instead of sending them.

    Nothing goes to a broker or an outbox, and nothing runs. The delivery of the
    application does not matter, nor whether the application runs tasks eagerly.
    Afterwards the application is as it was::

        with capture(app.registry) as deferred:
            testapp.post("/orders")
        deferred.assert_deferred(send_invoice, 7)

    Inside the block, ``deferred.run()`` runs the deferred tasks.

    Args:
        registry: The registry of the application: ``app.registry`` or
            ``config.registry``.
        environ: Keys for the environ of each task's request, as ``extra_environ`` of a
            WebTest application. With ``tm.active`` in it, the transaction of
            ``tm.manager`` belongs to the test and may never commit. Then deferred tasks
            count as committed at once, and tasks run inside this transaction.

    Raises:
        TaskError: The application does not include ``pyramid_tasks``.
    """
    tasks = get_tasks(registry)
    app = tasks.app
    captured: list[Captured] = []
    environ = dict(environ or {})
    deliveries = {
        name: _capturing(delivery, captured, at_once="tm.active" in environ)
        for name, delivery in tasks.deliveries.items()
    }
    settings: dict[str, Any] = {
        "task_always_eager": False,
        "task_eager_propagates": False,
    }
    if app.conf.result_backend:  # without any, results need not be JSON
        settings["result_backend"] = RESULTS_IN_MEMORY
        settings["task_store_eager_result"] = True
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(tasks.deliveries, deliveries))
        stack.enter_context(mock.patch.dict(get_runner(registry).base_environ, environ))
        stack.enter_context(isolated(app, **settings))
        if "result_backend" in settings:
            for task in app.tasks.values():  # each has read its setting
                stored = mock.patch.object(task, "store_eager_result", new=True)
                stack.enter_context(stored)
        # task.delay() uses no delivery, nor does Celery when it sends a task itself.
        send_task = CapturingDelivery(app, captured).send_task
        stack.enter_context(mock.patch.object(app, "send_task", send_task))
        yield Deferred(tasks, captured)


def _capturing(
    delivery: Delivery, captured: list[Captured], *, at_once: bool
) -> CapturingDelivery:
    """Return the stand-in for a delivery, as transactional as the delivery is."""
    if at_once or not delivery.is_transactional:
        return CapturingDelivery(delivery.app, captured)
    from .transactional_delivery import TransactionalCapturing

    return TransactionalCapturing(delivery.app, captured)
