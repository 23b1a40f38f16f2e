"""The section that PasteDeploy loads now, which it tells nobody.

PasteDeploy has no public way to ask. So this reads the arguments of its functions
``loadapp`` and ``ConfigLoader.get_app`` from the call stack. They were tried on
PasteDeploy 3.0 and 3.1.
"""

from __future__ import annotations

from inspect import currentframe
from traceback import walk_stack


def find_section() -> str | None:
    """Return the file and the section, if PasteDeploy is a caller. This is slow."""
    for frame, _ in walk_stack(currentframe()):
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
