"""An application that writes down the events of its processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry

import pyramid_tasks
from pyramid_tasks import task

EVENTS = [name for name in pyramid_tasks.__all__ if name.startswith("Celery")]


@task
def pid(request, seconds=0.05):
    # Long enough for the others of the pool to get a task as well.
    time.sleep(seconds)
    return os.getpid()


@task
def note(request, text):
    write_down(request.registry, text)


def write_down(registry, text):
    with Path(registry.settings["lifecycle.log"]).open("a") as file:
        file.write(f"{text} {os.getpid()}\n")


def on_event(event):
    name = type(event).__name__
    assert get_current_registry() is event.registry
    write_down(event.registry, name)
    if name == event.registry.settings.get("lifecycle.fail"):
        raise OSError(f"{name} was not to our liking")


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(__name__)
        for name in EVENTS:
            config.add_subscriber(on_event, getattr(pyramid_tasks, name))
        return config.make_wsgi_app()
