"""An application that writes down the events of its processes, and where it connects.

With ``sqlalchemy.url`` it has two engines that are used at start-up: one on its
registry, one handed over to ``config.add_fork_safe``.
"""

import os
import time
from pathlib import Path

from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry

import pyramid_tasks
from pyramid_tasks import task

EVENTS = [name for name in pyramid_tasks.__all__ if name.startswith("Celery")]

#: Engines that are not on the registry.
ELSEWHERE = {}


@task
def pid(request):
    # Long enough for the others of the pool to get a task as well.
    time.sleep(0.05)
    return os.getpid()


@task
def backends(request):
    """The process, and the server's processes that its engines are connected to."""
    time.sleep(0.05)
    return os.getpid(), ask(request.registry)


def ask(registry):
    from sqlalchemy import text

    found = []
    for engine in registry["engine"], ELSEWHERE["engine"]:
        with engine.connect() as connection:
            for number in range(10):
                row = connection.execute(
                    text("SELECT pg_backend_pid(), CAST(:number AS int)"),
                    {"number": number},
                ).one()
                assert row[1] == number
        found.append(row[0])
    return found


def write_down(registry, *words):
    with Path(registry.settings["lifecycle.log"]).open("a") as file:
        print(*words, os.getpid(), file=file)


def on_event(event):
    name = type(event).__name__
    settings = event.registry.settings
    assert get_current_registry() is event.registry
    if name == "CeleryWorkerProcessInit" and settings.get("lifecycle.fail_while_there"):
        assert not Path(settings["lifecycle.fail_while_there"]).exists(), "still there"
    write_down(event.registry, name)
    if name in settings.get("lifecycle.fail", "").split():
        raise OSError(f"{name} was not to our liking")
    if name == "CeleryWorkerShutdown" and ELSEWHERE:
        write_down(event.registry, "backends", *ask(event.registry))


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(__name__)
        for name in EVENTS:
            config.add_subscriber(on_event, getattr(pyramid_tasks, name))
        if url := settings.get("sqlalchemy.url"):
            from sqlalchemy import create_engine

            config.registry["engine"] = create_engine(url)
            ELSEWHERE["engine"] = create_engine(url)
            config.add_fork_safe(ELSEWHERE["engine"])
            write_down(config.registry, "backends", *ask(config.registry))
        return config.make_wsgi_app()
