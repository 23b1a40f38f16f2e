"""The states of tasks, read from the result backend within a time limit."""

from __future__ import annotations

from functools import cached_property
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.states import SUCCESS
from celery.utils.text import truncate

from ..._celery import new_backend
from ...registry import get_tasks
from .rows import MAX_TEXT, shortened

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.registry import Registry

    from .rows import Row

MAX_TRACEBACK = 20_000

#: How many seconds a page waits for the result backend.
TIMEOUT = 2.0


class StateReader:
    """Asks the result backend of an application for the states of tasks.

    Args:
        registry: The registry of the application, which may still be configured.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = Lock()

    @cached_property
    def _app(self) -> Celery:
        return get_tasks(self._registry).app

    @cached_property
    def _backend(self) -> Any:
        # A backend of our own: a thread may still wait for it when the next page asks.
        return new_backend(self._app)

    def update(self, rows: list[Row]) -> dict[str, Any]:
        """Bring rows up to date, and return the answer for the page."""
        waiting = [row for row in rows if row.id and not row.is_final]
        reason = problem = ""
        if waiting:
            reason = self._why_nobody_knows()
            problem = reason or self._ask(waiting)
        return {
            "tasks": [
                {"state": row.state, "result": row.result}
                | ({"traceback": row.traceback} if row.traceback else {})
                for row in rows
            ],
            "problem": problem,
            "done": bool(reason) or all(row.is_final for row in waiting),
        }

    def _why_nobody_knows(self) -> str:
        conf, backend = self._app.conf, self._backend
        if conf.task_always_eager and not conf.task_store_eager_result:
            return "Tasks run eagerly, and their results are not stored."
        if isinstance(backend, DisabledBackend):
            return "No result backend: celery.result_backend is not set."
        if isinstance(backend, RPCBackend):
            return "The result backend rpc:// tells nobody but the thread that defers."
        return ""

    def _ask(self, rows: list[Row]) -> str:
        """Ask for the states of tasks, and return what went wrong."""
        errors: list[Exception] = []

        def ask() -> None:
            try:
                for row in rows:
                    self._ask_for(row)
            except Exception as error:  # noqa: BLE001 whatever a backend raises
                errors.append(error)
            finally:
                self._lock.release()

        # Not every backend has a time limit, so a thread asks. As long as it gets no
        # answer, no other thread asks.
        silent = f"The result backend has not answered within {TIMEOUT:g} seconds."
        if not self._lock.acquire(timeout=TIMEOUT):
            return silent
        thread = Thread(target=ask, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the process may have no more threads
            self._lock.release()
            return f"The result backend cannot be asked: {error}."
        thread.join(TIMEOUT)
        if thread.is_alive():
            return silent
        if errors:  # their words may hold the URL
            return f"The result backend cannot be read: {type(errors[0]).__name__}."
        return ""

    def _ask_for(self, row: Row) -> None:
        meta = self._backend.get_task_meta(row.id)
        state, result = meta["status"], meta["result"]
        # The state comes last, as a row with a final state is not asked for again.
        row.result = shortened(result) if state == SUCCESS or result is not None else ""
        if traceback := (meta.get("traceback") or "").strip():
            row.traceback = traceback[-MAX_TRACEBACK:]
            row.result = truncate(traceback.splitlines()[-1], MAX_TEXT)
        row.state = state
