"""The request of a task: made, entered, left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject, Retry
from pyramid.interfaces import IRequestExtensions, IRequestFactory, IRootFactory
from pyramid.request import Request
from pyramid.threadlocal import manager
from pyramid.traversal import DefaultRootFactory

from ..events import AfterTask, BeforeTask, TaskFailed, TaskRetried, has_subscribers
from ..registry import get_tasks
from .contexts import restore_contexts
from .extensions import ExtendedClasses

if TYPE_CHECKING:
    from celery import Task
    from pyramid.config import Configurator
    from pyramid.registry import Registry

    from .contexts import Contexts

logger = logging.getLogger(__name__)

#: Where the environ of a request, and the threadlocals of a task, have the task.
TASK_KEY = "pyramid_tasks.task"

#: Where a request has the userid of the request that deferred its task.
DEFERRED_BY = "pyramid_tasks.deferred_by"

_RUNNER_KEY = "pyramid_tasks.runner"

# Keys whose values are objects, or switches, of the server and of packages.
_RESERVED = ("wsgi.", "webob.", "tm.", "retry.", "pyramid_tasks.")


class TaskRunner:
    """Runs the tasks of an application, each with a request of its own.

    The request is what :func:`pyramid.scripting.prepare` would make with the
    application's request factory: it has the registry, the request methods and
    properties, the threadlocals, the root and the context.

    Attributes:
        base_environ: What the environ of each request has at first.
    """

    def __init__(self, registry: Registry, contexts: Contexts) -> None:
        self.registry = registry
        self.contexts = contexts
        self.base_environ: dict[str, Any] = Request.blank("/").environ
        self._classes = ExtendedClasses()

    def run(
        self, task: Task, call: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a task, tell subscribers how it ended, and leave its request cleanly.

        The finished callbacks of the request run whatever way the task ends, and no
        threadlocal stays behind.

        Args:
            task: The Celery task.
            call: What Celery made of the task, ``autoretry_for`` and the like: comes
                to :meth:`attempt`.
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
                if has_subscribers(self.registry, AfterTask):
                    self.registry.notify(AfterTask(request, task, args, kwargs, result))
                _run_finished_callbacks(request)
            except BaseException as error:
                self._notify_end(task, args, kwargs, threadlocals, error)
                _end_attempt(task, threadlocals)
                raise
            return result
        finally:
            # By depth, not by a pop: a time limit can strike anywhere, and a task can
            # leave threadlocals of its own.
            del stack[depth:]

    def attempt(
        self,
        task: Task,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        environ: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func(request, *args, **kwargs)``, inside :meth:`run`.

        Args:
            task: The Celery task.
            func: The derived task.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            environ: What the environ has besides, in a task that may run again.
        """
        stack = manager.stack
        while TASK_KEY not in (threadlocals := stack[-1]):
            stack.pop()  # left by the attempt before
        if threadlocals["request"] is not None:
            _end_attempt(task, threadlocals)
        request = self._enter_request(task, threadlocals, environ)
        if has_subscribers(self.registry, BeforeTask):
            self.registry.notify(BeforeTask(request, task, args, kwargs))
        return func(request, *args, **kwargs)

    def _enter_request(
        self,
        task: Task,
        threadlocals: dict[str, Any],
        extra: dict[str, Any] | None = None,
    ) -> Request:
        registry = self.registry
        headers = task.request.headers
        given = _environ_header(headers) if headers else None
        environ = self.base_environ.copy()
        if given:
            environ.update(given)
        if extra:
            environ.update(extra)
        environ["wsgi.input"] = BytesIO()
        environ["wsgi.errors"] = sys.stderr
        environ[TASK_KEY] = task
        # As queryUtility() does, without its defaults.
        lookup = registry.utilities.lookup
        factory = lookup((), IRequestFactory, "", Request)
        request = factory(environ)
        request.registry = registry
        threadlocals["request"] = request
        extensions = lookup((), IRequestExtensions)
        if extensions is not None:
            self._classes.extend(request, extensions)
        if self.contexts:
            restore_contexts(self.contexts, request, _context_headers(task))
            if given:  # for this one task, where the context is for all of them
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
        """Tell subscribers that a task failed, or will run again.

        An error in one of them is logged: what the task raised decides what becomes of
        it.
        """
        if isinstance(error, (Ignore, Reject)) or not isinstance(error, Exception):
            return
        event_type = TaskRetried if isinstance(error, Retry) else TaskFailed
        if not has_subscribers(self.registry, event_type):
            return
        try:
            # There is none if the arguments were refused, by pydantic for example.
            request = threadlocals["request"] or self._enter_request(task, threadlocals)
            self.registry.notify(event_type(request, task, args, kwargs, error))
        except Exception:
            logger.exception(
                "Not all subscribers of %s could be told of %s[%s]",
                event_type.__name__,
                task.name,
                task.request.id,
            )


def includeme(config: Configurator) -> None:
    """Put what runs the tasks of an application on its registry."""
    registry = config.registry
    registry[_RUNNER_KEY] = TaskRunner(registry, get_tasks(registry).contexts)


def get_runner(registry: Registry) -> TaskRunner:
    """Return what runs the tasks of an application."""
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

    ``None`` if it had none, in a view, and without ``pyramid_tasks.context = user`` in
    the settings.
    """
    return request.environ.get(DEFERRED_BY)


def _environ_header(headers: dict[str, Any]) -> dict[str, str]:
    """Return the ``environ`` header of the message, which could come from anyone."""
    environ = headers.get("environ") or {}
    if not isinstance(environ, dict) or not all(
        isinstance(item, str) for pair in environ.items() for item in pair
    ):
        raise TypeError("The header 'environ' must be a dictionary of strings")
    for key in environ:
        if key.startswith(_RESERVED) and key != "wsgi.url_scheme":
            raise ValueError(f"The header 'environ' must not set {key!r}")
    return environ


def _context_headers(task: Task) -> dict[str, Any]:
    """Return the headers that have the context: for a plain call, the caller's."""
    if task.request.called_directly:
        # As Celery's map, starmap and chunks call a task.
        task = task.app.current_worker_task or task
    return task.request.headers or {}


def _end_attempt(task: Task, threadlocals: dict[str, Any]) -> None:
    """Leave a request after an error, which nothing here must take the place of."""
    request = threadlocals["request"]
    if request is None:
        return
    try:
        _run_finished_callbacks(request)
    except Exception:
        logger.exception(
            "A finished callback of %s[%s] failed", task.name, task.request.id
        )
    threadlocals["request"] = None


def _run_finished_callbacks(request: Any) -> None:
    """Run the finished callbacks, all of them even when one fails."""
    # The attribute itself would be made now, for nothing.
    if not request.__dict__.get("finished_callbacks"):
        return
    try:
        request._process_finished_callbacks()  # noqa: SLF001 as pyramid.scripting does
    except Exception:
        _run_finished_callbacks(request)
        raise
