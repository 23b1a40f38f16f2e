"""The end of an attempt to run a task: its request is left, whatever fails then."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from .._pyramid import run_finished_callbacks

if TYPE_CHECKING:
    from pyramid.request import Request

logger = logging.getLogger(__name__)

#: The key of the environ of a request, and of the threadlocals, that has the task.
TASK_KEY = "pyramid_tasks.task"

#: The key of the environ of a request whose task has not run, as it had run before.
REPEATED = "pyramid_tasks.repeated"

#: The attribute of the message of a task with an inbox that has the ``Retry`` it sent.
RETRY = "pyramid_tasks_retry"

# The key of the environ of a request that could not close what it had opened.
_LEFT_OPEN = "pyramid_tasks.left_open"


@contextmanager
def keeping_error(request: Request, what: str) -> Iterator[None]:
    """Log an error in the clean-up after a task that failed: the task has its own.

    Args:
        request: The request of the task.
        what: The step of the clean-up, for the log.
    """
    try:
        yield
    except Exception as error:
        task = request.environ[TASK_KEY]
        logger.exception("%s of %s[%s] failed", what, task.name, task.request.id)
        clear_frames(error.__traceback__)  # a log may keep the error
        request.environ[_LEFT_OPEN] = True


def is_left_open(request: Request) -> bool:
    """Whether a connection may still be open that nobody could close."""
    return _LEFT_OPEN in request.environ


def finish(request: Request) -> None:
    """Run the finished callbacks of a task that has returned."""
    try:
        run_finished_callbacks(request)
    except BaseException:
        request.environ[_LEFT_OPEN] = True
        raise


def end_attempt(
    threadlocals: dict[str, Any], error: BaseException | None = None
) -> None:
    """Leave the request of an attempt that failed.

    Args:
        threadlocals: They have the request.
        error: The error of the task, if nobody has handled it yet.
    """
    request = threadlocals["request"]
    if request is None:
        return
    with keeping_error(request, "A finished callback"):
        run_finished_callbacks(request)
    threadlocals["request"] = None
    if is_left_open(request):
        del request
        _let_go(error)


def _let_go(error: BaseException | None) -> None:
    """Drop all references to what a task has left open.

    A time limit that strikes in a query leaves a connection that can be neither rolled
    back nor closed. The traceback of the error keeps the session, and so the connection
    with its locks. A pool of SQLAlchemy closes a connection that nobody refers to.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
