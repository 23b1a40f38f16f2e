"""The request of a task: made, entered, left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import IRequestExtensions, IRequestFactory, IRootFactory
from pyramid.request import Request
from pyramid.threadlocal import manager
from pyramid.traversal import DefaultRootFactory
from pyramid.util import InstancePropertyHelper

if TYPE_CHECKING:
    from celery import Task
    from pyramid.registry import Registry

logger = logging.getLogger(__name__)

TASK_ENVIRON_KEY = "pyramid_tasks.task"

# Keys whose values are objects, or switches, of the server and of packages.
_RESERVED = ("wsgi.", "webob.", "tm.", "retry.", "pyramid_tasks.")

_BASE_ENVIRON = Request.blank("/").environ


class TaskRunner:
    """Runs the tasks of an application, each with a request of its own.

    The request is what :func:`pyramid.scripting.prepare` would make with the
    application's request factory: it has the registry, the request methods and
    properties, the threadlocals, the root and the context.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        # A request class with the properties of the application, by the class that
        # the request factory makes, with the properties it was made for.
        self._classes: dict[type, tuple[dict[str, Any], type]] = {}

    def run(
        self,
        task: Task,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        environ: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func(request, *args, **kwargs)`` and leave the request cleanly.

        The finished callbacks of the request run whatever way the call ends, and no
        threadlocal stays behind.

        Args:
            task: The Celery task, whose header ``environ`` fills the WSGI environ.
            environ: What else the environ has.
        """
        depth = len(manager.stack)
        try:
            request = self._make_request(task, environ)
            manager.push({"registry": self.registry, "request": request})
            try:
                self._extend(request)
                _set_context(request)
                result = func(request, *args, **kwargs)
            except BaseException:
                # What the task raised decides what becomes of it (a Retry, an Ignore,
                # a failure); an error in a callback must not take its place.
                try:
                    _run_finished_callbacks(request)
                except Exception:
                    logger.exception(
                        "A finished callback of %s[%s] failed",
                        task.name,
                        task.request.id,
                    )
                raise
            _run_finished_callbacks(request)
            return result
        finally:
            # By depth, not by a pop: a time limit can strike anywhere, and a task can
            # leave threadlocals of its own.
            del manager.stack[depth:]

    def _make_request(self, task: Task, extra: dict[str, Any] | None) -> Request:
        environ = dict(_BASE_ENVIRON)
        if headers := task.request.headers:
            environ.update(_environ_header(headers))
        if extra:
            environ.update(extra)
        environ["wsgi.input"] = BytesIO()
        environ["wsgi.errors"] = sys.stderr
        environ[TASK_ENVIRON_KEY] = task
        factory = self.registry.queryUtility(IRequestFactory, default=Request)
        request = factory(environ)
        request.registry = self.registry
        return request

    def _extend(self, request: Any) -> None:
        """Give a request its methods and properties.

        As :func:`pyramid.request.apply_request_extensions`, which makes a class anew
        for each request; that takes longer than all the rest.
        """
        extensions = self.registry.queryUtility(IRequestExtensions)
        if extensions is None:
            return
        parent = request.__class__
        for name, method in extensions.methods.items():
            setattr(request, name, method.__get__(request, parent))
        properties, extended = self._classes.get(parent, (None, parent))
        if properties != extensions.descriptors:
            InstancePropertyHelper.apply_properties(request, extensions.descriptors)
            extended = request.__class__
            self._classes[parent] = (dict(extensions.descriptors), extended)
        request.__class__ = extended


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


def _set_context(request: Any) -> None:
    factory = request.registry.queryUtility(IRootFactory, default=DefaultRootFactory)
    root = factory(request)
    if getattr(request, "context", None) is None:
        request.context = root
    request.root = root


def _run_finished_callbacks(request: Any) -> None:
    """Run the finished callbacks, all of them even when one fails."""
    if not request.finished_callbacks:
        return
    try:
        request._process_finished_callbacks()  # noqa: SLF001 as pyramid.scripting does
    except Exception:
        _run_finished_callbacks(request)
        raise
