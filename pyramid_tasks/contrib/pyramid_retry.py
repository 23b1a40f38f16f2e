"""If an application includes ``pyramid_retry``, its tasks are retried like its views.

After an error that ``pyramid_retry`` calls retryable, such as a conflict between two
transactions, the task runs again, with a fresh request and a fresh transaction. It runs
``retry.attempts`` times at most, the first time included. Celery gets the error of the
last attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pyramid.config import PHASE2_CONFIG

from ..registry import ExecutionPolicy, get_tasks

try:
    from pyramid_retry import BeforeRetry, is_error_retryable
except ImportError:  # the package is optional
    is_error_retryable = None

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request


def includeme(config: Configurator) -> None:
    """Retry tasks if the application includes ``pyramid_retry``, in either order."""

    def register() -> None:
        # pyramid_retry adds this in an earlier phase, and leaves no other trace.
        predicates = config.get_predlist("view").sorter.names
        if is_error_retryable is not None and "retryable_error" in predicates:
            attempts = config.get_settings()["retry.attempts"]
            get_tasks(config.registry).execution_policy = retry_policy(attempts)

    config.action(("pyramid_tasks", "retry"), register, order=PHASE2_CONFIG)


def retry_policy(attempts: int) -> ExecutionPolicy:
    """Return a policy that runs a task up to ``attempts`` times."""

    def policy(attempt: Callable[[dict[str, Any]], Any]) -> Any:
        for number in range(attempts - 1):
            environ = {"retry.attempt": number, "retry.attempts": attempts}
            try:
                return attempt(environ)
            except Exception as error:
                if not is_error_retryable(SimpleNamespace(environ=environ), error):
                    raise
        return attempt({"retry.attempt": attempts - 1, "retry.attempts": attempts})

    return policy


def notify_before_retry(request: Request, error: BaseException) -> None:
    """Notify subscribers of ``BeforeRetry`` if the task runs again."""
    if is_error_retryable is not None and is_error_retryable(request, error):
        request.registry.notify(BeforeRetry(request, error))
