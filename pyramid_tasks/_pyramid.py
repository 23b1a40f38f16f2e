"""The names of Pyramid that its documentation does not have.

Nothing else in the package uses a private name of Pyramid. Each name says why it is
needed. They were tried on Pyramid 2.0 and 2.1; ``tests/test_private_names.py`` fails
when a new version changes one.
"""

from __future__ import annotations

from typing import Any

# A task may leave several entries on the stack, and a time limit can strike anywhere.
# config.end() removes one entry, and config.begin() takes longer than a task.
from pyramid.threadlocal import manager

# An application whose registry was not set up by a Configurator has no root factory.
from pyramid.traversal import DefaultRootFactory

__all__ = [
    "DefaultRootFactory",
    "is_outermost_request",
    "manager",
    "run_finished_callbacks",
]


def is_outermost_request() -> bool:
    """Whether the current request of this thread is inside no other one.

    Pyramid's functions tell only which request is the current one.
    """
    return len(manager.stack) < 2  # noqa: PLR2004 this one and the one outside


def run_finished_callbacks(request: Any) -> None:
    """Run the finished callbacks of a request, all of them even if one fails.

    No public function runs them, and Pyramid's own stops at the first error.
    """
    # The attribute makes itself when somebody asks for it, which takes time.
    callbacks = request.__dict__.get("finished_callbacks")
    try:
        while callbacks:
            callbacks.popleft()(request)
    except Exception:
        run_finished_callbacks(request)
        raise
