"""The memory that the processes of a prefork worker share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from celery.signals import worker_before_create_process
from pyramid.settings import asbool

if TYPE_CHECKING:
    from pyramid.registry import Registry


def freeze_before_forks(registry: Registry) -> None:
    """Have the children of a worker share what was loaded before they were forked.

    Not with ``pyramid_tasks.gc_freeze = false`` in the settings.
    """
    if asbool(registry.settings.get("pyramid_tasks.gc_freeze", True)):
        worker_before_create_process.connect(_freeze)


def _freeze(**_: Any) -> None:
    """Leave all objects out of garbage collections to come.

    A collection writes to every object it looks at, and what a child writes to is
    copied for it. ``docs/benchmarks.md`` has the figures.
    """
    # No gc.unfreeze() before: to collect what is shared with earlier children would
    # write to it. Celery collects before each fork too, which is why they share little.
    gc.collect()
    gc.freeze()
