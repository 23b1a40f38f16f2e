"""The demonstration, run as a user runs it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import environment

SAMPLE = Path(__file__).parents[2] / "sample"
DEADLINE = 120

pytestmark = pytest.mark.acceptance


def start(demo: Path, *options: str) -> subprocess.Popen[str]:
    """Start demo.py; it is ended if it hangs."""
    process = subprocess.Popen(
        [sys.executable, demo, *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(DEADLINE, process.terminate)
    timer.daemon = True
    timer.start()
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for demo.py; return its exit status and the rest of its output."""
    output, _ = process.communicate(timeout=DEADLINE + 60)
    return process.returncode, output


def test_demo() -> None:
    """The demo imports a file with a web process and a worker, and stops both."""
    status, output = finish(start(SAMPLE / "demo.py"))
    assert status == 0, output
    assert "celery --ini" in output
    assert "Groceries                 43.00" in output
    assert "line 7: amount “twelve” is not a number such as 12.50" in output
    served = re.search(
        r"import 1 is waiting: (http://127\.0\.0\.1:\d+/imports/1)", output
    )
    assert served
    assert f"Your file is imported, 4 of 6 rows: {served[1]}\n" in output
    assert "celery has stopped with exit status 0" in output
    assert "pserve has stopped with exit status 0" in output


@pytest.fixture
def copied_demo(tmp_path: Path) -> Path:
    """Return a copy of demo.py, beside a copy of development.ini."""
    demo = tmp_path / "demo.py"
    demo.write_text((SAMPLE / "demo.py").read_text())
    ini = (SAMPLE / "development.ini").read_text()
    (tmp_path / "development.ini").write_text(ini)
    return demo


def test_failure(copied_demo: Path) -> None:
    """A worker that does not start fails the demo, which shows the logs."""
    ini = copied_demo.with_name("development.ini")
    ini.write_text(ini.read_text().replace("[celery:main]", "[celery:main]\napp = no"))
    status, output = finish(start(copied_demo))
    assert status == 1, output
    assert "FAILED: celery ended with exit status" in output
    assert "--- the log of celery" in output
    assert "--- the log of pserve" in output


@pytest.fixture
def served_demo(copied_demo: Path, free_port: int) -> Path:
    """Return a copy of demo.py that serves on a free port."""
    for path in copied_demo, copied_demo.with_name("development.ini"):
        text = path.read_text().replace("localhost:6543", f"127.0.0.1:{free_port}")
        path.write_text(text)
    return copied_demo


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the first line that begins with a text."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(beginning))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve(served_demo: Path, number: signal.Signals) -> None:
    """The demo names its logs and serves until it is interrupted, and stops both."""
    process = start(served_demo, "--serve")
    logs = [
        Path(word) for word in re.findall(r"/\S+\.log", wait_for(process, "The logs"))
    ]
    assert [log.exists() for log in logs] == [True, True]
    wait_for(process, "Open ")
    process.send_signal(number)
    status, output = finish(process)
    assert status == 0, output
    assert "celery has stopped with exit status 0" in output
    assert "pserve has stopped with exit status 0" in output


def test_second_interrupt(served_demo: Path) -> None:
    """A second Ctrl-C kills both processes and what they have started."""
    process = start(served_demo, "--serve")
    folder = Path(re.search(r"/\S+", wait_for(process, "The logs"))[0]).parent
    wait_for(process, "Open ")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Stopping")
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status in {0, 130}, output
    left = subprocess.run(["pgrep", "-f", served_demo.parent], check=False, stdout=-3)
    assert left.returncode == 1
    assert not folder.exists()


def test_port_that_is_taken(served_demo: Path, free_port: int) -> None:
    """The demo does not take another program for its own."""
    with socket.create_server(("127.0.0.1", free_port)):
        status, output = finish(start(served_demo, "--serve"))
    assert status == 1
    assert f"another program listens on http://127.0.0.1:{free_port}" in output
