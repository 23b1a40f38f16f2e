"""How much later a web process starts with this package, and with plain Celery."""

from __future__ import annotations

from functools import partial

from .measuring import OURS, PLAIN, Effort, rows, take_turns
from .report import Section
from .scripts import time_script

NOTE = """\
Milliseconds from exec until a process has made its WSGI application: with a plain
Celery application of one task beside it, with this package included and the same task,
and with neither."""

_BEGIN = """
from pyramid.config import Configurator

config = Configurator(settings={"celery.broker_url": "memory://"})
config.add_route("home", "/")
config.add_view(lambda request: {}, route_name="home", renderer="json")
"""
_PLAIN = """
from celery import Celery

def nothing():
    pass

app = Celery("web", broker="memory://")
app.task(nothing, name="nothing")
app.finalize()
"""
_OURS = """
def nothing(request):
    pass

config.include("pyramid_tasks")
config.register_task(nothing, name="nothing")
"""
_END = """
config.make_wsgi_app()
"""


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    scripts = {PLAIN: _PLAIN, OURS: _OURS, "Pyramid alone": ""}
    cases = {
        label: partial(time_script, _BEGIN + script + _END)
        for label, script in scripts.items()
    }
    samples = take_turns("webstart", cases, effort.turns(15))
    found = list(rows(samples, "ms", "ms"))
    return [Section("Start of a web process", "webstart", NOTE, found)]
