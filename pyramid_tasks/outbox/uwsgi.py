"""What uWSGI says about its process; without uWSGI, a process is like any other."""

from __future__ import annotations

import sys


def has_threads() -> bool:
    """Whether uWSGI lets threads of Python run."""
    # Only a process of uWSGI has this module.
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))


def is_master() -> bool:
    """Whether this is the process that forks the others."""
    # It forks without a word to Python. A thread that holds the lock of the interpreter
    # at that moment would hold it in the child for ever.
    worker_id = getattr(sys.modules.get("uwsgi"), "worker_id", lambda: None)
    return worker_id() == 0
