"""An application with the debug toolbar, in this process."""

from __future__ import annotations

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp as WebTestApp

from pyramid_tasks.registry import get_tasks

pytest.importorskip("pyramid_debugtoolbar")
pytest.importorskip("pyramid_tm")

DELIVERIES = {
    "immediate": "pyramid_tasks",
    "commit": "pyramid_tm pyramid_tasks.contrib.pyramid_tm",
}


def echo(request, *args, **kwargs):
    return request.current_task.request.id


def add_up(request, ids): ...


class Site:
    """An application with the toolbar, and a view that defers tasks."""

    def __init__(self, view, delivery="immediate", **settings):
        self.results = []

        def keep(request):
            self.results.append(view(request))
            return Response("<body></body>")

        settings = {
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
            "pyramid.includes": f"pyramid_debugtoolbar {DELIVERIES[delivery]}",
            "debugtoolbar.includes": "pyramid_tasks.contrib.debugtoolbar",
            "debugtoolbar.intercept_exc": True,
        } | {key.replace("__", "."): value for key, value in settings.items()}
        with Configurator(settings=settings) as config:
            config.register_task(echo, name="echo")
            config.register_task(add_up, name="add_up", ignore_result=True)
            config.add_route("view", "/")
            config.add_view(keep, route_name="view")
            app = config.make_wsgi_app()
        self.registry = app.registry
        self.celery = get_tasks(app.registry).app
        self.testapp = WebTestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})

    def get(self, **params):
        """Ask for the page, whatever its status."""
        self.testapp.get("/", params, status="*")
        return self

    @property
    def panel(self):
        """The panel of the last request, as the toolbar keeps it."""
        (_, toolbar) = self.registry.pdtb_history.last(1)[0]
        return next(panel for panel in toolbar.panels if panel.name == "tasks")

    @property
    def rows(self):
        return self.panel.recorded.rows

    @property
    def url(self):
        return f"/_debug_toolbar/{self.registry.pdtb_history.last(1)[0][0]}"

    @property
    def page(self):
        """The panel on the page of the toolbar."""
        _, _, text = self.testapp.get(self.url).text.partition("Deferred Tasks</h3>")
        assert text
        return text.partition("</script>")[0]

    @property
    def states(self):
        """The answer to the script of the page."""
        return self.testapp.get(f"{self.url}/tasks").json


@pytest.fixture
def make_site():
    """Return the class of the applications: ``make_site(view, "commit")``."""
    return Site


@pytest.fixture(params=DELIVERIES)
def delivery(request):
    return request.param
