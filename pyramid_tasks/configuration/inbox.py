"""Which tasks have an inbox, and the options that come with it."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from celery.exceptions import Retry
from pyramid.settings import asbool

from ..exceptions import SettingError, TaskError
from ..interfaces import ITaskDerivers
from ..worker.ending import RETRY

if TYPE_CHECKING:
    from celery import Task
    from pyramid.registry import Registry

# The name of the deriver in pyramid_tasks.contrib.pyramid_tm.
_TRANSACTIONS = "transaction_task_deriver"

_KEY = "pyramid_tasks.inbox"
_WITH_INBOX = {"inbox": True, "acks_late": True, "reject_on_worker_lost": True}


def inbox_options(
    registry: Registry, name: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a task, with those of its class and of its inbox.

    Args:
        registry: The registry of the application.
        name: The name of the task.
        options: The options that the task was registered with.

    Raises:
        TaskError: The task is to have an inbox, but has no transaction.
    """
    base = options.get("base")  # Celery's own has None for these
    of_base = {key: getattr(base, key, None) for key in ("tm", *_WITH_INBOX)}
    said = {key: value for key, value in of_base.items() if value is not None} | options
    has_transaction = _has_transactions(registry) and said.get("tm") is not False
    default = has_transaction and asbool(registry.settings.get(_KEY))
    if not said.get("inbox", default):
        return said
    if not has_transaction:
        raise TaskError(
            f"The task {name!r} has inbox=True, but no transaction: include "
            "pyramid_tasks.contrib.pyramid_tm, and do not register the task with "
            "tm=False."
        )
    return {**_WITH_INBOX, **said}


def set_up_inbox(task: Task, options: dict[str, Any]) -> None:
    """Note each retry of a task with an inbox, also if the task goes on after it.

    If it committed, the inbox would take the retry, which has its id, for a repetition.

    Args:
        task: A task, with an inbox or without.
        options: The options that the task was registered with.

    Raises:
        TaskError: Something else than these options gives an inbox to the task, or
            takes its transaction.
    """
    has_inbox = getattr(task, "inbox", False)
    if has_inbox and not options.get("inbox"):
        raise _too_late(task, "inbox")
    if getattr(task, "tm", None) is False and options.get("tm") is not False:
        raise _too_late(task, "tm")
    if not has_inbox:
        return
    retry = task.retry

    @wraps(retry)
    def noting(*args: Any, **options: Any) -> Any:
        try:
            sent = retry(*args, **options)  # with throw=False
        except Retry as error:
            setattr(task.request, RETRY, error)
            raise
        setattr(task.request, RETRY, sent)
        return sent

    task.retry = noting


def _too_late(task: Task, option: str) -> TaskError:
    value = getattr(task, option)
    return TaskError(
        f"The task {task.name!r} gets {option} = {value!r} from task_annotations or "
        f"from task_cls, which come too late: register it with {option}={value!r}."
    )


def check_inbox_setting(registry: Registry) -> None:
    """Check that the tasks can have the inbox that the settings give to all of them.

    Raises:
        SettingError: No task has a transaction.
    """
    if asbool(registry.settings.get(_KEY)) and not _has_transactions(registry):
        problem = (
            "= true, but no task has a transaction, and so none has an inbox: include "
            "pyramid_tasks.contrib.pyramid_tm."
        )
        raise SettingError(_KEY, problem)


def _has_transactions(registry: Registry) -> bool:
    derivers = registry.queryUtility(ITaskDerivers)
    return derivers is not None and _TRANSACTIONS in derivers.names
