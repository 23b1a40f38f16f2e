"""Where settings stand, for messages: the file and the section, as far as it is known.

The loader of a worker knows. A web process is loaded by PasteDeploy, which tells the
name of the file to the application and not to its includes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

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

    A look at the callers is slow: this is for a mistake, or a warning, and no more.
    """
    return _source.get() or _section_of_pastedeploy()


def _section_of_pastedeploy() -> str | None:
    """Return the section that PasteDeploy loads now, from the arguments of a caller."""
    frame: FrameType | None = inspect.currentframe()
    while frame := frame and frame.f_back:
        if frame.f_globals.get("__name__") == "paste.deploy.loadwsgi":
            given = frame.f_locals
            file = None
            if frame.f_code.co_name == "loadapp":  # called by pserve
                file = given["uri"].removeprefix("config:").partition("#")[0]
            elif frame.f_code.co_name == "get_app":  # called by a composite
                file = getattr(given["self"], "filename", None)
            if file:
                return f"{file}, [app:{given['name'] or 'main'}]"
    return None
