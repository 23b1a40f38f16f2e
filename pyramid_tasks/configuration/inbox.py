"""Which tasks have an inbox, and the options that come with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyramid.settings import asbool

from ..exceptions import TaskError
from ..interfaces import ITaskDerivers

if TYPE_CHECKING:
    from pyramid.registry import Registry

# The name of the deriver in pyramid_tasks.contrib.pyramid_tm.
_TRANSACTIONS = "transaction_task_deriver"

_WITH_INBOX = {"inbox": True, "acks_late": True, "reject_on_worker_lost": True}


def inbox_options(
    registry: Registry, name: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a task, with those that an inbox adds.

    Args:
        registry: The registry of the application.
        name: The name of the task.
        options: The options that the task was registered with.

    Raises:
        TaskError: The task is to have an inbox, but has no transaction.
    """
    derivers = registry.queryUtility(ITaskDerivers)
    has_transaction = (
        derivers is not None
        and _TRANSACTIONS in derivers.names
        and options.get("tm") is not False
    )
    default = has_transaction and asbool(registry.settings.get("pyramid_tasks.inbox"))
    if not options.get("inbox", default):
        return options
    if not has_transaction:
        raise TaskError(
            f"The task {name!r} has inbox=True, but no transaction: include "
            "pyramid_tasks.contrib.pyramid_tm, and do not register the task with "
            "tm=False."
        )
    return {**_WITH_INBOX, **options}
