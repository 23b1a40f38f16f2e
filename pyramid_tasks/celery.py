"""What ``celery -A pyramid_tasks`` finds: the same as in ``pyramid_tasks.loaders``."""

from __future__ import annotations

from typing import Any

from . import loaders


def __getattr__(name: str) -> Any:
    return getattr(loaders, name)
