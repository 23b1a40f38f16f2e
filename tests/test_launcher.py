"""What tests start ends with them, however they end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from support import start, wait_until

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of orphans"),
]

TEST = """\
import json
import os
import shutil
from pathlib import Path

from support import example_config, filesystem_settings, start, start_worker, wait_until


def test_waits(tmp_path):
    config = example_config(filesystem_settings(tmp_path))
    (tmp_path / "config.ini").write_text(config)
    shell = (shutil.which("bash"), "-c", "setsid sleep 600 & echo $!")
    with (
        start_worker("config.ini", cwd=tmp_path) as worker,
        start(*shell, cwd=tmp_path) as shell,
    ):
        pid = worker.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        orphan = wait_until(lambda: shell.output.endswith("\\n") and shell.output)
        found = [os.getpid(), pid, *map(int, children), int(orphan)]
        Path("pids.new").write_text(json.dumps(found))
        Path("pids.new").rename("pids")
        wait_until(lambda: False, timeout=600)
"""


@pytest.mark.parametrize(
    ("options", "victim"),
    [
        ((), "pytest"),
        (("-n", "1"), "pytest"),
        (("-n", "1", "--max-worker-restart=0"), "worker of pytest-xdist"),
    ],
)
def test_killed_run_leaves_no_process(options, victim, tmp_path):
    """When pytest is killed, a worker, its children and an orphan end."""
    (tmp_path / "test_waits.py").write_text(TEST)
    options = ("-s", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *options)
    path = str(Path(__file__).parent)
    with start("pytest", *options, cwd=tmp_path, PYTHONPATH=path) as process:
        process.wait_until((tmp_path / "pids").exists)
        runner, *pids = json.loads((tmp_path / "pids").read_text())
        assert len(pids) == 4  # a worker, two children, an orphan
        assert all(map(is_alive, pids))
        killed = process.popen.pid if victim == "pytest" else runner
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), what=lambda: process.output)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
