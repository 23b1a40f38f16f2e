"""An application whose tasks are async functions."""

import asyncio
import os
from pathlib import Path

from pyramid.config import Configurator
from pyramid.threadlocal import get_current_request

from pyramid_tasks import CeleryWorkerProcessShutdown, task

LOOPS = []


def write_down(path, text):
    Path(path).write_text(text)


@task(bind=True)
async def describe(self, request, word):
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    LOOPS.append(loop)
    return {
        "word": word,
        "where": [os.getpid(), id(loop)],
        "current": request.current_task is self and get_current_request() is request,
    }


@task(autoretry_for=(OSError,), default_retry_delay=0)
async def flaky(request):
    await asyncio.sleep(0)
    retries = request.current_task.request.retries
    if retries < 2:
        raise OSError("not yet")
    return retries


@task
async def wait(request, path):
    write_down(path, "waiting")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        write_down(path, "cancelled")
        raise


def note_end(event):
    """Write down which loops are closed when the process ends."""
    path = Path(event.registry.settings["coroutines.log"])
    path.write_text(" ".join(str(loop.is_closed()) for loop in LOOPS))


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(__name__)
        config.commit()  # to be told after the package
        config.add_subscriber(note_end, CeleryWorkerProcessShutdown)
    return config.make_wsgi_app()
