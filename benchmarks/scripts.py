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
    """Run lines, and return the milliseconds from exec until they are done.

    All processes have the same clock. How long Python takes to end does not count.
    """
    begin = time.perf_counter()
    end: float = run_script(f"{lines}\nimport time\nprint(time.perf_counter())")
    return {"ms": 1000 * (end - begin)}
