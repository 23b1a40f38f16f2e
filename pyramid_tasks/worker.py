"""The request of a task: made, entered, left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pyramid.interfaces import IRequestFactory, IRootFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.threadlocal import manager
from pyramid.traversal import DefaultRootFactory

if TYPE_CHECKING:
    from celery import Task
    from pyramid.registry import Registry

logger = logging.getLogger(__name__)

TASK_ENVIRON_KEY = "pyramid_tasks.task"

# Keys whose values are objects, or switches, of the server and of packages.
_RESERVED = ("wsgi.", "webob.", "tm.", "retry.", "pyramid_tasks.")

_BASE_ENVIRON = Request.blank("/").environ


@contextmanager
def task_request(
    registry: Registry, task: Task, environ: dict[str, Any] | None = None
) -> Iterator[Request]:
    """Make the request of a running task and leave it cleanly, whatever happens.

    The request is what :func:`pyramid.scripting.prepare` would make of the
    application's request factory: it has the registry, the request methods and
    properties, the threadlocals, the root and the context. Its finished callbacks run
    at the end.

    Args:
        registry: The registry of the application.
        task: The Celery task, whose header ``environ`` fills the WSGI environ.
        environ: What else the environ has.
    """
    depth = len(manager.stack)
    try:
        request = _make_request(registry, task, environ or {})
        manager.push({"registry": registry, "request": request})
        apply_request_extensions(request)
        try:
            _set_context(request)
            yield request
        except BaseException:
            # What the task raised decides what becomes of it (a Retry, an Ignore, a
            # failure); an error in a callback must not take its place.
            try:
                _run_finished_callbacks(request)
            except Exception:
                logger.exception(
                    "A finished callback of %s[%s] failed", task.name, task.request.id
                )
            raise
        else:
            _run_finished_callbacks(request)
    finally:
        # By depth, not by a pop: a time limit can strike anywhere, and a task can
        # leave threadlocals of its own.
        del manager.stack[depth:]


def _make_request(registry: Registry, task: Task, extra: dict[str, Any]) -> Request:
    environ = _BASE_ENVIRON | _environ_header(task) | extra
    environ["wsgi.input"] = BytesIO()
    environ["wsgi.errors"] = sys.stderr
    environ[TASK_ENVIRON_KEY] = task
    factory = registry.queryUtility(IRequestFactory, default=Request)
    request = factory(environ)
    request.registry = registry
    return request


def _environ_header(task: Task) -> dict[str, str]:
    """Return the ``environ`` header of the message, which could come from anyone."""
    environ = (task.request.headers or {}).get("environ") or {}
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
