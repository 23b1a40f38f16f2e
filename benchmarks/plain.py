"""What ``celery -A benchmarks.plain`` finds."""

from __future__ import annotations

from .applications import load_plain

app = load_plain()
