"""A panel of pyramid_debugtoolbar that shows the tasks that a request deferred.

Add it in the settings, beside ``pyramid.includes = pyramid_debugtoolbar``::

    debugtoolbar.includes = pyramid_tasks.contrib.debugtoolbar

It needs the extra ``pyramid-tasks[debugtoolbar]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid_debugtoolbar.panels import DebugPanel

from ...registry import get_tasks
from .recording import REQUEST_ATTRIBUTE, RecordedTasks, RecordingDelivery
from .states import StateReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyramid.config import Configurator
    from pyramid.request import Request

_STATES = "pyramid_tasks.states"


class TasksPanel(DebugPanel):
    """The tasks that a request deferred, and what became of them."""

    name = "tasks"
    title = "Deferred Tasks"
    nav_title = "Tasks"
    # This is a path, as Pyramid 2.0 cannot resolve an asset specification in a package
    # that pytest has loaded for its plugin.
    template = str(Path(__file__).with_name("panel.dbtmako"))

    def __init__(self, request: Request) -> None:
        self.recorded = RecordedTasks()
        # Not the id of the request that looks at the panel, which has none at "/".
        self.request_id: str = request.pdtb_id
        setattr(request, REQUEST_ATTRIBUTE, self.recorded)

    def wrap_handler(self, handler: Callable[[Request], Any]) -> Any:
        def wrapper(request: Request) -> Any:
            try:
                return handler(request)
            finally:
                # The toolbar is outside pyramid_tm, so the transaction has ended.
                self.recorded.mark_unsent()

        return wrapper

    @property
    def has_content(self) -> bool:
        return bool(self.recorded.count)

    @property
    def nav_subtitle(self) -> str:
        return str(self.recorded.count or "")

    @property
    def nav_subtitle_style(self) -> str:
        unsent = any(row.is_unsent for row in self.recorded.rows)
        return "progress-bar-danger" if unsent else ""

    def render_vars(self, request: Request) -> dict[str, Any]:
        url = request.route_url("debugtoolbar.tasks", request_id=self.request_id)
        return {"recorded": self.recorded, "states_url": url}


def states_view(request: Request) -> dict[str, Any]:
    """Return the states of the tasks in the panel of one request."""
    toolbar = request.pdtb_history.get(request.matchdict["request_id"])
    panels = [] if toolbar is None else toolbar.panels
    for panel in panels:
        if isinstance(panel, TasksPanel):
            states: StateReader = request.registry[_STATES]
            return states.update(panel.recorded.rows)
    raise HTTPBadRequest("No history found for request.")


def includeme(config: Configurator) -> None:
    """Add the panel to the toolbar. The toolbar is an application of its own."""
    config.add_debugtoolbar_panel(TasksPanel)
    config.registry[_STATES] = StateReader(config.registry.parent_registry)
    config.add_route("debugtoolbar.tasks", "/{request_id}/tasks")
    config.add_view(
        states_view, route_name="debugtoolbar.tasks", renderer="json", http_cache=0
    )
    config.inject_parent_action(_record)


def _record(config: Configurator) -> None:
    """Let the deliveries of the application tell the panel about each task."""
    deliveries = get_tasks(config.registry).deliveries
    for name, delivery in deliveries.items():
        deliveries[name] = RecordingDelivery(name, delivery)
