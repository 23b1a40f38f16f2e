"""For the tests of applications.

:func:`capture` keeps the deferred tasks instead of sending them. A test looks at them,
and runs them when it wants to. :func:`start_worker` runs a real worker in a thread. The
fixtures of the pytest plugin, :mod:`pyramid_tasks.pytest_plugin`, use both.
"""

from __future__ import annotations

from .capture import capture
from .deferred import Deferred
from .delivery import CapturedTask
from .worker import start_worker

__all__ = ["CapturedTask", "Deferred", "capture", "start_worker"]
