"""The request of a task: made, entered, left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry
from pyramid.interfaces import IRequestExtensions, IRequestFactory, IRootFactory
from pyramid.request import Request

from .._pyramid import DefaultRootFactory, manager
from ..events import AfterTask, BeforeTask, TaskFailed, TaskRetried, has_subscribers
from ..registry import get_tasks
from .contexts import restore_contexts
from .ending import REPEATED, TASK_KEY, end_attempt, finish
from .environ import environ_header
from .extensions import ExtendedClasses
from .unfinished import check_finished

if TYPE_CHECKING:
    from celery import Task
    from pyramid.config import Configurator
    from pyramid.registry import Registry

    from ..registry import Contexts

logger = logging.getLogger(__name__)

#: The key of the environ that has the userid of the request that deferred the task.
DEFERRED_BY = "pyramid_tasks.deferred_by"

_RUNNER_KEY = "pyramid_tasks.runner"


class TaskRunner:
    """Runs the tasks of an application, each with a request of its own.

    The request is what :func:`pyramid.scripting.prepare` would make with the
    application's request factory: it has the registry, the request methods and
    properties, the threadlocals, the root and the context.

    Attributes:
        base_environ: The environ that each request begins with.
    """

    def __init__(self, registry: Registry, contexts: Contexts) -> None:
        self.registry = registry
        self.contexts = contexts
        self.base_environ: dict[str, Any] = Request.blank("/").environ
        self._classes = ExtendedClasses()

    def run(
        self, task: Task, call: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a task, notify subscribers of its end, and leave its request cleanly.

        The finished callbacks of the request run however the task ends, and no
        threadlocal stays behind.

        Args:
            task: The Celery task.
            call: The function that Celery made of the task, with ``autoretry_for`` and
                the like. It calls :meth:`attempt`.
            args: The positional arguments of the task.
            kwargs: The keyword arguments of the task.
        """
        stack = manager.stack
        depth = len(stack)
        threadlocals = {"registry": self.registry, "request": None, TASK_KEY: task}
        stack.append(threadlocals)
        try:
            try:
                result = call(*args, **kwargs)
                request = threadlocals["request"]
                if request is None:  # Celery's annotation "@run" can answer for a task
                    return result
                is_repeated = REPEATED in request.environ
                if not is_repeated and has_subscribers(self.registry, AfterTask):
                    self.registry.notify(AfterTask(request, task, args, kwargs, result))
                finish(request)
            except BaseException as error:
                self._notify_end(task, args, kwargs, threadlocals, error)
                end_attempt(threadlocals, error)
                raise
            return result
        finally:
            # Not one pop: a task may leave several entries, and a time limit can
            # strike anywhere.
            del stack[depth:]

    def attempt(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        environ: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func(request, *args, **kwargs)``, inside :meth:`run`.

        Args:
            func: The derived task.
            args: The positional arguments of the task.
            kwargs: The keyword arguments of the task.
            environ: More keys for the environ of the request, from an execution policy.

        Raises:
            CoroutineError: The task has not done its work, but returned a coroutine, a
                generator or the like.
        """
        stack = manager.stack
        while TASK_KEY not in (threadlocals := stack[-1]):
            stack.pop()  # left by the attempt before
        task: Task = threadlocals[TASK_KEY]
        if threadlocals["request"] is not None:
            end_attempt(threadlocals)
        request = self._enter_request(task, threadlocals, environ)
        # An inbox finds out first whether the task runs.
        if not getattr(task, "inbox", False):
            notify_before_task(request, task, args, kwargs)
        result = func(request, *args, **kwargs)
        check_finished(task.name, result)
        return result

    def _enter_request(
        self,
        task: Task,
        threadlocals: dict[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> Request:
        registry = self.registry
        given = environ_header(task.request.headers)
        environ = {
            **self.base_environ,
            **given,
            **(extra or {}),
            "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr,
            TASK_KEY: task,
        }
        # As queryUtility() does, without its defaults.
        lookup = registry.utilities.lookup
        request = lookup((), IRequestFactory, "", Request)(environ)
        request.registry = registry
        threadlocals["request"] = request
        extensions = lookup((), IRequestExtensions)
        if extensions is not None:
            self._classes.extend(request, extensions)
        if self.contexts:
            restore_contexts(self.contexts, request, _headers_with_context(task))
            # The header is for this task, the context for each task of the request.
            request.environ.update(given)
        root = lookup((), IRootFactory, "", DefaultRootFactory)(request)
        if getattr(request, "context", None) is None:
            request.context = root
        request.root = root
        return request

    def _notify_end(
        self,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        threadlocals: dict[str, Any],
        error: BaseException,
    ) -> None:
        """Notify subscribers that a task failed, or will run again.

        An error of a subscriber is logged: the error of the task decides what Celery
        does next.
        """
        if isinstance(error, (Ignore, Reject)) or not isinstance(error, Exception):
            return
        event_type = TaskRetried if isinstance(error, Retry) else TaskFailed
        if not has_subscribers(self.registry, event_type):
            return
        try:
            # A task has no request if pydantic refused its arguments.
            request = threadlocals["request"] or self._enter_request(task, threadlocals)
            self.registry.notify(event_type(request, task, args, kwargs, error))
        except Exception:
            logger.exception(
                "Not all subscribers of %s could be told of %s[%s]",
                event_type.__name__,
                task.name,
                task.request.id,
            )


def notify_before_task(
    request: Request, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Notify subscribers that a task is about to run."""
    if has_subscribers(request.registry, BeforeTask):
        request.registry.notify(BeforeTask(request, task, args, kwargs))


def includeme(config: Configurator) -> None:
    """Put a :class:`TaskRunner` on the registry of an application."""
    registry = config.registry
    registry[_RUNNER_KEY] = TaskRunner(registry, get_tasks(registry).contexts)


def get_runner(registry: Registry) -> TaskRunner:
    """Return the :class:`TaskRunner` of an application."""
    runner: TaskRunner = registry[_RUNNER_KEY]
    return runner


def current_task(request: Request) -> Task | None:
    """Return the running task, or ``None`` in a view.

    The Celery task has the message as ``.request`` (``.request.id``,
    ``.request.retries``) and the methods ``.retry()`` and ``.update_state()``.
    """
    return request.environ.get(TASK_KEY)


def deferred_by(request: Request) -> Any:
    """Return the ``authenticated_userid`` of the request that deferred this task.

    ``None`` if that request had no userid, in a view, and without
    ``pyramid_tasks.context = user`` in the settings.
    """
    return request.environ.get(DEFERRED_BY)


def _headers_with_context(task: Task) -> dict[str, Any]:
    """Return the headers that bring the context; a plain call has its caller's."""
    message = task.request
    if message.called_directly:
        # Celery's map, starmap and chunks call a task in this way. So does a failure: a
        # link_error gets what failed, and the worker itself may be the caller.
        failed = next(iter(message.args or ()), None)
        if caller := task.app.current_worker_task:
            message = caller.request
        elif isinstance(failed, Context):
            message = failed
    return message.headers or {}
