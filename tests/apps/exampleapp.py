"""The application that most tests load: one task for each thing a task can do."""

import gc
import logging
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from celery.exceptions import Ignore, Reject
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_registry, get_current_request, manager

from pyramid_tasks import task


@task
def add(request, x, y):
    return x + y


@task(bind=True)
def describe(self, request, label="none"):
    return {
        "label": label,
        "name": self.name,
        "id": request.current_task.request.id,
        "same_task": request.current_task is self,
        "url": request.application_url,
        "greeting": request.greet("task"),
        "current": get_current_request() is request,
        "registry": get_current_registry() is request.registry,
        "root": type(request.root).__name__,
        "context": type(request.context).__name__,
        "setting": request.registry.settings.get("example.setting"),
        "pid": os.getpid(),
    }


@task
def threadlocals(request):
    """How deep the stack of threadlocals is; 1 is this task's own request."""
    return len(manager.stack)


@task
def threadlocals_here(request):
    """The same, with the process and the thread it is asked in."""
    # Long enough for the others of the pool to get a task as well.
    time.sleep(0.05)
    return os.getpid(), threading.get_ident(), len(manager.stack)


@task
def frozen_objects(request):
    """How many objects the garbage collector leaves alone."""
    return gc.get_freeze_count()


@task
def log(request):
    logging.getLogger(__name__).info("said by a task")


@task
def note(request, path, text):
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


@task
def now(request):
    return datetime.now(UTC).isoformat()


@task(
    bind=True,
    autoretry_for=(ConnectionError,),
    retry_backoff=True,
    retry_backoff_max=1,
    retry_jitter=False,
)
def flaky(self, request, path):
    """Fail twice."""
    retries = self.request.retries
    with Path(path).open("a") as file:
        file.write(f"{retries}\n")
    if retries < 2:
        raise ConnectionError("not yet")
    return "well at last"


@task(acks_late=True, reject_on_worker_lost=True)
def lose_process_once(request, path):
    """End the process it runs in, the first time."""
    lost = Path(path).exists()
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if not lost:
        os._exit(1)
    return os.getpid()


@task
def defer_another(request, x, y):
    """A task can defer a task."""
    return request.defer_task(add, x, y).id


@task(bind=True, max_retries=2)
def end(self, request, how, path=None):
    """End in one of the ways a task can end, and say so in a file afterwards."""

    def finished(request):
        if path is not None:
            with Path(path).open("a") as file:
                file.write(f"{how}\n")
        if how == "callback":
            raise RuntimeError("error in a finished callback")

    request.add_finished_callback(finished)
    if how == "dirty":
        manager.push({"request": None, "registry": request.registry})
    if how == "error":
        raise ValueError("error in the task")
    if how == "retry":
        raise self.retry(countdown=0)
    if how == "ignore":
        raise Ignore
    if how in {"reject", "requeue"}:
        raise Reject("rejected", requeue=how == "requeue")
    if how == "sleep":
        time.sleep(60)
    return how


class Root:
    def __init__(self, request):
        if request.host == "broken.example":
            raise RuntimeError("error in the root factory")


def defer(request):
    """Defer a task over HTTP: POST /defer/exampleapp.add with JSON arguments."""
    result = request.defer_task(request.matchdict["name"], *request.json_body)
    return {"id": result.id}


def result(request):
    result = request.get_task_result(request.matchdict["id"])
    state = result.state  # once, as it may change
    return {
        "state": state,
        "result": result.result if state == "SUCCESS" else None,
        "error": str(result.result) if state == "FAILURE" else None,
    }


def configure(settings):
    config = Configurator(settings=settings, root_factory=Root)
    config.include("pyramid_tasks")
    config.add_request_method(lambda request, name: f"hello {name}", "greet")
    config.scan(__name__)
    if path := settings.get("example.periodic"):
        config.add_periodic_task(0.2, note, (path, "application"))
    config.add_route("defer", "/defer/{name}", request_method="POST")
    config.add_view(defer, route_name="defer", renderer="json")
    config.add_route("result", "/result/{id}")
    config.add_view(result, route_name="result", renderer="json")
    return config


def main(global_config, **settings):
    """The WSGI application, for ``use = call:exampleapp:main``."""
    return configure(settings).make_wsgi_app()


def without_tasks(global_config, **settings):
    """An application that does not include pyramid_tasks."""
    return Configurator(settings=settings).make_wsgi_app()


def broken(global_config, **settings):
    """An application with an error of its own."""
    raise AttributeError("an error of the application itself")


class Middleware:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        return self.app(environ, start_response)


def wrap(global_config, **settings):
    """A filter that hides the application it wraps."""
    return Middleware


def both(loader, global_config, **names):
    """A composite: loads every application it names."""
    return [loader.get_app(name, global_conf=global_config) for name in names.values()]


def custom_factory(loader, global_config, **settings):
    """A ``[celery:NAME]`` factory of another package."""
    from celery import Celery

    return Celery("custom", broker="memory://", set_as_current=False)
