"""What a load in progress tells ``includeme``, and what it learns from it.

The loaders start an application without knowing how it wraps itself; the Celery
application is found by watching which one is created meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery
    from pyramid.registry import Registry

    from .settings import Settings


@dataclass
class Load:
    """An application being loaded for a worker.

    Attributes:
        settings: The Celery settings of the worker, which win over those of the
            application.
        created: The Celery applications created so far, with their registries.
    """

    settings: Settings
    created: list[tuple[Celery, Registry]] = field(default_factory=list)


_current: ContextVar[Load | None] = ContextVar("pyramid_tasks.load", default=None)


def current_load() -> Load | None:
    """Return the load that this code runs in, or ``None`` in a web process."""
    return _current.get()


@contextmanager
def loading(settings: Settings) -> Iterator[Load]:
    """Watch the applications that are created inside the ``with`` block."""
    load = Load(settings)
    token = _current.set(load)
    try:
        yield load
    finally:
        _current.reset(token)
