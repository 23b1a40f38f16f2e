"""Defer a task when, and only when, the transaction has committed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyramid.request import Request

log = logging.getLogger(__name__)


def defer_after_commit(
    request: Request,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    task_id: str,
    on_failure: Callable[[Exception], None],
) -> None:
    """Send a task after the commit of the current transaction.

    A task that is sent at once can start before the rows it is about can be seen,
    and is sent even if the transaction fails.

    Args:
        request: The request with the transaction.
        func: The task.
        args: Its arguments, less the request.
        task_id: Its id, which the caller can so store in the transaction.
        on_failure: Called if the task could not be sent. The transaction is over by
            then: it must not use `request.dbsession`.
    """

    def send(committed: bool) -> None:  # noqa: FBT001 - called by the transaction
        if not committed:
            return
        try:
            request.defer_task_with_options(func, args, task_id=task_id)
        except Exception as error:
            # The transaction package would log it in its own words and go on.
            log.exception("Task %s could not be sent", task_id)
            on_failure(error)

    request.tm.get().addAfterCommitHook(send)
