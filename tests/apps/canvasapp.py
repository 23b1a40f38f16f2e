"""Tasks to make chains, groups and chords of; each run of one is noted in Redis."""

import json
import os
import signal

from pyramid.config import Configurator
from redis import Redis

from pyramid_tasks import task


@task
def add(request, x, y):
    return x + y


@task(bind=True)
def bound_add(self, request, x, y):
    assert self is request.current_task
    return x + y


@task
def total(request, numbers):
    return sum(numbers)


@task
def total_of_lists(request, lists):
    return sum(map(sum, lists))


@task
def double(request, x):
    return 2 * x


@task
def hear(request, said):
    return f"heard {said}"


@task
def fail(request, *args):
    raise ValueError("as it should")


@task
def kill_worker(request):
    os.kill(os.getpid(), signal.SIGKILL)


@task
def explain(request, failed, error, traceback):
    note(request, name="explain", id=failed.id, error=str(error))


@task(bind=True, max_retries=2, default_retry_delay=0)
def retry_once(self, request, x):
    if not self.request.retries:
        raise self.retry()
    return x


def note(request, **run):
    run["url"] = request.application_url
    Redis().rpush(request.registry.settings["canvas.notes"], json.dumps(run))


def noted(task, info):
    """Note each run: which task, which id, and what it knows of its request."""

    def wrapper(request, *args, **kwargs):
        message = request.current_task.request
        if not message.called_directly:
            note(request, name=info.name, id=message.id)
        return task(request, *args, **kwargs)

    return wrapper


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("outboxapp.with_database")
        config.add_task_deriver(noted)
        config.scan(__name__)
        return config.make_wsgi_app()
