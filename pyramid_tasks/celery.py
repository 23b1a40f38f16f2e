"""``celery -A pyramid_tasks`` finds its application here, as in the loaders."""

from __future__ import annotations

from typing import Any

from . import loaders


def __getattr__(name: str) -> Any:
    return getattr(loaders, name)
