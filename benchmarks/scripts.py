"""Python processes that run a few lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from .workers import ROOT


def run_script(lines: str) -> Any:
    """Run lines that print JSON, and return that."""
    found = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(found.stdout or "null")


def time_script(lines: str) -> dict[str, float]:
    """Run lines that print nothing, and return the milliseconds from exec to exit."""
    begin = time.perf_counter()
    run_script(lines)
    return {"ms": 1000 * (time.perf_counter() - begin)}
