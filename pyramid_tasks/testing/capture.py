"""Tasks that are kept instead of being sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from celery import chain as make_chain
from celery.canvas import maybe_signature

from ..exceptions import CaptureError
from ..registry import get_tasks
from ..worker.request import get_runner
from .capturing import CapturingDelivery
from .deferred import Deferred
from .isolation import RESULTS_IN_MEMORY, isolated

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.registry import Registry

    from ..registry import Delivery


# What Celery.send_task is told that says nothing of the task.
_OF_THE_SENDER = {
    *("add_to_parent", "connection", "producer", "publisher", "reply_to"),
    *("result_cls", "router", "task_type"),
}


@contextmanager
def capture(
    registry: Registry, environ: Mapping[str, Any] | None = None
) -> Iterator[Deferred]:
    """Keep what an application defers instead of sending it.

    Whatever delivery the application chose, and whether or not it runs tasks eagerly:
    nothing goes to a broker or an outbox, and nothing runs. Afterwards the application
    is as it was::

        with capture(app.registry) as deferred:
            testapp.post("/orders")
        deferred.assert_deferred(send_invoice, 7)

    Inside the block, ``deferred.run()`` runs what was deferred.

    Args:
        registry: That of the application: ``app.registry`` or ``config.registry``.
        environ: What every task that runs has in the environ of its request, as
            ``extra_environ`` of a WebTest application. With ``tm.active`` in it the
            transaction, ``tm.manager``, is the test's own, which may never commit: what
            is deferred counts as committed at once, and tasks run inside it.

    Raises:
        TaskError: The application does not include ``pyramid_tasks``.
    """
    tasks = get_tasks(registry)
    app = tasks.app
    deferred = Deferred(tasks)
    environ = dict(environ or {})
    deliveries = {
        name: _capturing(delivery, registry, deferred, at_once="tm.active" in environ)
        for name, delivery in tasks.deliveries.items()
    }
    settings: dict[str, Any] = {
        "task_always_eager": False,
        "task_eager_propagates": False,
    }
    if app.conf.result_backend:  # without any, results need not be JSON
        settings["result_backend"] = RESULTS_IN_MEMORY
        settings["task_store_eager_result"] = True
    at_once = CapturingDelivery(app, registry, deferred)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(tasks.deliveries, deliveries))
        stack.enter_context(mock.patch.dict(get_runner(registry).base_environ, environ))
        stack.enter_context(isolated(app, **settings))
        if "result_backend" in settings:
            for task in app.tasks.values():  # each has read its setting
                stored = mock.patch.object(task, "store_eager_result", new=True)
                stack.enter_context(stored)
        # What does not go by a delivery: task.delay(), and what Celery sends itself.
        send_task = _send_task(app, at_once)
        stack.enter_context(mock.patch.object(app, "send_task", send_task))
        yield deferred


def _capturing(
    delivery: Delivery, registry: Registry, deferred: Deferred, *, at_once: bool
) -> CapturingDelivery:
    """Return what stands in for a delivery, and is part of transactions as that is."""
    if at_once or not delivery.is_transactional:
        return CapturingDelivery(delivery.app, registry, deferred)
    from .transactions import TransactionalCapturing

    return TransactionalCapturing(delivery.app, registry, deferred)


def _send_task(app: Celery, delivery: CapturingDelivery) -> Any:
    def send_task(
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        chain: Sequence[Any] | None = None,
        **options: Any,
    ) -> Any:
        if options.get("chord"):
            raise CaptureError(
                f"The chord with {name} in it, which Celery sends by itself, cannot be "
                "captured, as only a result backend knows when its body may run. Defer "
                "it with request.defer_canvas(), or test it with a worker."
            )
        own = {
            key: value
            for key, value in options.items()
            if value is not None and key not in _OF_THE_SENDER
        }
        signature = app.signature(name, tuple(args or ()), dict(kwargs or {}), **own)
        if chain:  # the rest of it, the next one last
            rest = [maybe_signature(each, app=app) for each in reversed(chain)]
            signature = make_chain(signature, *rest, app=app)
        return delivery.deliver(None, [signature])[0]

    return send_task
