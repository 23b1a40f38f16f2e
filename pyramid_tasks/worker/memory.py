"""The memory that the processes of a prefork worker share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from celery.signals import worker_before_create_process
from pyramid.settings import asbool

if TYPE_CHECKING:
    from pyramid.registry import Registry


def freeze_before_forks(registry: Registry) -> None:
    """Let the children of a worker share the objects that were there before the fork.

    ``pyramid_tasks.gc_freeze = false`` in the settings switches this off.
    """
    if asbool(registry.settings.get("pyramid_tasks.gc_freeze", True)):
        worker_before_create_process.connect(_freeze)


def _freeze(**_: Any) -> None:
    """Leave all objects out of the garbage collections to come.

    A collection writes to every object that it looks at, and the system copies for a
    child the memory that the child writes to. ``docs/benchmarks.md`` has the figures.
    """
    # No gc.unfreeze() before: a collection would write to the objects that earlier
    # children share. Celery collects before each fork too, so those children share
    # little.
    gc.collect()
    gc.freeze()
