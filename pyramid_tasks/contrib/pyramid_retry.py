"""With ``pyramid_retry`` included, it retries tasks as it retries views.

An error that it calls retryable, such as a conflict between two transactions, runs
the task again, with a fresh request and a fresh transaction, up to ``retry.attempts``
times. After the last attempt the error is Celery's, as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pyramid.config import PHASE2_CONFIG

from ..registry import ExecutionPolicy, get_tasks

try:
    from pyramid_retry import BeforeRetry, is_error_retryable
except ImportError:  # it is optional
    is_error_retryable = None

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request


def includeme(config: Configurator) -> None:
    """Retry tasks if the application includes ``pyramid_retry``, before or after."""

    def register() -> None:
        # What pyramid_retry adds before this phase, and the only trace of it by then.
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
    """Send pyramid_retry's event if the task is going to run again."""
    if is_error_retryable is not None and is_error_retryable(request, error):
        request.registry.notify(BeforeRetry(request, error))
