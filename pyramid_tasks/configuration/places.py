"""Where settings stand, for messages: the file and the section, as far as it is known.

The loader of a worker knows. A web process is loaded by PasteDeploy, which tells the
name of the file to the application and not to its includes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_source: ContextVar[str | None] = ContextVar("pyramid_tasks.source", default=None)


@contextmanager
def source_of_settings(source: str) -> Iterator[None]:
    """Name the place of the settings that are read inside the block."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def find_source() -> str | None:
    """Return the file and the section whose settings are read, if they are known.

    This is for a mistake, or a warning, and no more, as it is slow.
    """
    if source := _source.get():
        return source
    from ._pastedeploy import find_section

    return find_section()
