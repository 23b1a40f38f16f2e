"""A monitor for hupper that looks for changed files often."""

from __future__ import annotations

from typing import Any

from hupper.polling import PollingFileMonitor


class QuickMonitor(PollingFileMonitor):
    def __init__(self, callback: Any, interval: float, **options: Any) -> None:
        super().__init__(callback, interval=interval / 5, **options)
