"""The two sides: a Pyramid application with this package, and plain Celery.

Both have the same Pyramid application, with six request methods and four properties,
and the same tasks; those of plain Celery lack the request and do not use Pyramid.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Celery
from pyramid.config import Configurator

METHODS, PROPERTIES = 6, 4


def nothing() -> None:
    """Do nothing."""


def nothing_with_request(_request: Any) -> None:
    """Do nothing, with a request."""


async def nothing_async(_request: Any) -> None:
    """Do nothing, in a coroutine."""


def count() -> None:
    """Make the file one byte longer, which says that the task has run."""
    os.write(_record(), b".")


def count_with_request(_request: Any) -> None:
    """As ``count``, with a request."""
    os.write(_record(), b".")


def note_delay(sent: float) -> None:
    """Note the seconds since it was sent: all processes have the same clock."""
    os.write(_record(), struct.pack("d", time.monotonic() - sent))


def note_delay_with_request(_request: Any, sent: float) -> None:
    """As ``note_delay``, with a request."""
    os.write(_record(), struct.pack("d", time.monotonic() - sent))


TASKS: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "nothing": (nothing, nothing_with_request),
    "count": (count, count_with_request),
    "note_delay": (note_delay, note_delay_with_request),
}


@cache
def _record() -> int:
    # Appending is atomic, whatever number of processes does it.
    return os.open(os.environ["BENCHMARK_RECORD"], os.O_WRONLY | os.O_APPEND)


def pyramid_part(
    settings: dict[str, Any], *, methods: int = METHODS, properties: int = PROPERTIES
) -> Configurator:
    """Return the configuration that both sides have."""
    config = Configurator(settings=settings)
    for number in range(methods):
        config.add_request_method(lambda _request: None, f"method_{number}")
    for number in range(properties):
        config.add_request_method(
            lambda _request: None, f"property_{number}", reify=True
        )
    config.add_route("home", "/")
    config.add_view(lambda _request: {}, route_name="home", renderer="json")
    return config


def plain_celery(settings: dict[str, Any]) -> Celery:
    """Make a Celery application as Celery's documentation does."""
    app = Celery("benchmark", set_as_current=False)
    app.conf.update(settings)
    for name, (func, _) in TASKS.items():
        app.task(func, name=name, shared=False)
    app.finalize()
    return app


def configure(celery_settings: dict[str, Any], **settings: Any) -> Configurator:
    """Return the configuration of the application with this package, committed."""
    settings.update({f"celery.{key}": value for key, value in celery_settings.items()})
    config = pyramid_part(settings)
    config.include("pyramid_tasks")
    if settings.get("sqlalchemy.url"):
        config.include("benchmarks.transactions")
    for name, (_, func) in TASKS.items():
        # tm: what a task costs in a transaction is the cost of the transaction.
        config.register_task(func, name=name, tm=False)
    config.commit()
    return config


def main(_global_config: Any, **settings: Any) -> Any:
    """Make the application with this package, from an ini."""
    return configure({}, **settings).make_wsgi_app()


def load_plain() -> Celery:
    """Make plain Celery, in a worker which has the Pyramid application too."""
    pyramid_part(json.loads(os.environ["BENCHMARK_APPLICATION"])).make_wsgi_app()
    return plain_celery(json.loads(os.environ["BENCHMARK_CELERY"]))
