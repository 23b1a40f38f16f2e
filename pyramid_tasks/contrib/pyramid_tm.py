"""Transactions in tasks, and tasks that are sent when a transaction commits.

Call ``config.include("pyramid_tasks.contrib.pyramid_tm")``, before or after you include
``pyramid_tm``. Each task then runs inside a transaction of ``request.tm``. A task that
is deferred inside a transaction is sent when the transaction commits. This needs the
extra ``pyramid-tasks[tm]``. With ``pyramid_tasks.delivery = outbox`` in the settings,
no crash loses a task; see :mod:`pyramid_tasks.contrib.outbox`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import IRequestExtensions, IRequestFactory
from pyramid.request import Request
from pyramid.settings import asbool
from pyramid_tm import maybe_tag_retryable

from ..configuration.deliveries import add_delivery
from ..configuration.load import check_at_commit
from ..delivery.commit import CommitDelivery
from ..events import CeleryWorkerInit
from ..exceptions import OutboxError, TaskError
from ..outbox.configuration import get_outbox
from ..registry import get_tasks, tasks_with_inbox
from ..worker.ending import keeping_error
from ..worker.unfinished import check_finished
from .pyramid_retry import notify_before_retry

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Registry

    from ..configuration.derivers import TaskDeriverInfo, TaskFunc


def transaction_task_deriver(task: TaskFunc, info: TaskDeriverInfo) -> TaskFunc:
    """Run a task inside a transaction of ``request.tm``.

    The deriver treats a task as ``pyramid_tm`` treats a view. It begins the transaction
    before the task and commits it afterwards. It aborts the transaction after any
    exception, also after a time limit or an exception with which Celery ends a task
    (``Retry``, ``Ignore``, ``Reject``), and if the task called ``request.tm.doom()``.

    If ``tm.active`` is in the environ, the transaction is left to whoever set that key.
    A task that is registered with ``tm=False`` runs without a transaction. With
    ``pyramid_retry``, a task whose transaction conflicts with another runs again.

    Args:
        task: The task, with the derivers inside this one.
        info: The name, the options and the registry of the task.
    """
    if info.options.get("tm") is False:
        return task
    if info.options.get("inbox"):
        return _with_inbox(task, info)
    return _in_transaction(task, info)


def _with_inbox(task: TaskFunc, info: TaskDeriverInfo) -> TaskFunc:
    outbox = get_outbox(info.registry)
    try:
        from ..outbox.inbox import inside_transaction, outside_transaction
    except ImportError as error:
        raise TaskError(
            f"The task {info.name!r} has an inbox, which needs SQLAlchemy: install "
            "pyramid-tasks[outbox]."
        ) from error
    task = _in_transaction(inside_transaction(task, outbox, info), info)
    return outside_transaction(task, outbox, outbox.number("max_deliveries"))


def _in_transaction(task: TaskFunc, info: TaskDeriverInfo) -> TaskFunc:
    annotate_user = asbool(info.registry.settings.get("tm.annotate_user", True))

    def transaction_task(request: Request, /, *args: Any, **kwargs: Any) -> Any:
        environ = request.environ
        if "tm.active" in environ:
            return task(request, *args, **kwargs)
        manager = request.tm
        environ["tm.active"] = True
        environ["tm.manager"] = manager
        try:
            transaction = manager.begin()
            if annotate_user and (userid := request.authenticated_userid):
                transaction.user = str(userid)
            transaction.note(info.name)
            result = task(request, *args, **kwargs)
            check_finished(info.name, result)
            if manager.isDoomed():
                manager.abort()
            else:
                manager.commit()
        except BaseException as error:
            with keeping_error(request, "The transaction"):
                # This asks the resources of the transaction, so it precedes the abort.
                maybe_tag_retryable(request, sys.exc_info())
            with keeping_error(request, "The abort of the transaction"):
                manager.abort()
            with keeping_error(request, "A subscriber of BeforeRetry"):
                notify_before_retry(request, error)
            raise
        finally:
            del environ["tm.active"], environ["tm.manager"]
        return result

    return transaction_task


def includeme(config: Configurator) -> None:
    """Add the deriver, and make delivery by commit the default."""
    include_deriver(config)
    tasks = get_tasks(config.registry)
    add_delivery(config, "commit", CommitDelivery(tasks.app))
    tasks.delivery = config.get_settings().get("pyramid_tasks.delivery", "commit")
    config.include("pyramid_tasks.outbox.delivery")
    config.add_subscriber(_check_inbox, CeleryWorkerInit)


def include_deriver(config: Configurator) -> None:
    """Run tasks in transactions, and leave the deliveries alone."""
    config.include("pyramid_tasks")
    if not config.autocommit:  # pyramid_tm may be included later
        check = partial(_check_manager, config.registry)
        # The methods of requests are added before, in the default order.
        check_at_commit(config, __name__, check, order=1)
    config.add_task_deriver(transaction_task_deriver)
    config.include("pyramid_tasks.contrib.pyramid_retry")


def _check_manager(registry: Registry) -> None:
    """Refuse an application whose requests have no transaction manager."""
    added = registry.queryUtility(IRequestExtensions)
    factory = registry.queryUtility(IRequestFactory, default=Request)
    has_one = added is not None and "tm" in {*added.descriptors, *added.methods}
    # A factory that is a function may return any request.
    if not has_one and isinstance(factory, type) and not hasattr(factory, "tm"):
        raise TaskError(
            f"{__name__} uses request.tm, and requests have no tm. Include the package "
            'that adds it: config.include("pyramid_tm").'
        )


def _check_inbox(event: CeleryWorkerInit) -> None:
    """Keep a worker from starting whose tasks have an inbox but no table for it."""
    if any(tasks_with_inbox(get_tasks(event.registry).app)):
        from ..outbox.inbox import check_database

        try:
            check_database(get_outbox(event.registry))
        except OutboxError as error:
            raise SystemExit(f"Error: {error}") from error
