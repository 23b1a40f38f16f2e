"""Reads the metadata of installed packages once: it stays the same while tests run.

Each application that is loaded by its entry point, and each command of Celery, looks
through all packages of the environment. For tests these are many, and the look takes a
tenth of a second.
"""

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from typing import Any

try:
    import importlib_metadata  # of plaster, PasteDeploy and kombu
except ImportError:
    importlib_metadata = importlib.metadata  # type: ignore[assignment]


PACKAGES = {importlib.metadata, importlib_metadata}
#: What is read of each installed package.
PROPERTIES = ("metadata", "entry_points", "_normalized_name")


def read_once() -> None:
    """Have the metadata of each package read and parsed once, when it is asked for."""
    for package in PACKAGES:
        kind = package.PathDistribution
        for name in PROPERTIES:
            setattr(kind, name, property(_once(getattr(kind, name).fget)))
        if hasattr(kind, "_has_metadata"):
            kind._has_metadata = _once(kind._has_metadata)


def read_for_forks() -> None:
    """Do the same now, for the forks of this process."""
    read_once()
    for package in PACKAGES:
        for distribution in package.distributions():
            with suppress(FileNotFoundError):  # it has no metadata
                for name in PROPERTIES:
                    getattr(distribution, name)


def _once(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def remembered(distribution: Any) -> Any:
        path = str(distribution._path)
        if path not in known:
            known[path] = read(distribution)
        return known[path]

    return remembered
