"""The demonstration, run as a user runs it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Process, start

SAMPLE = Path(__file__).parents[2] / "sample"
DEADLINE = 120
STOPPED = (
    "celery has stopped with exit status 0",
    "pserve has stopped with exit status 0",
)

pytestmark = pytest.mark.acceptance


def test_demo(tmp_path: Path) -> None:
    """The demo imports a file with a web process and a worker, and stops both."""
    with start("python", SAMPLE / "demo.py", cwd=tmp_path) as process:
        assert process.popen.wait(DEADLINE) == 0, process.output
    output = process.output
    served = re.search(
        r"import 1 is waiting: (http://127\.0\.0\.1:\d+/imports/1)", output
    )
    for text in (
        "celery --ini",
        "Groceries                 43.00",
        "line 7: amount “twelve” is not a number such as 12.50",
        f"Your file is imported, 4 of 6 rows: {served[1]}\n",
        *STOPPED,
    ):
        assert text in output


@pytest.fixture
def demo(tmp_path: Path, free_port: int) -> Path:
    """Return a copy of demo.py that serves on a free port, beside its ini."""
    for name in "demo.py", "development.ini":
        text = (SAMPLE / name).read_text()
        text = text.replace("localhost:6543", f"127.0.0.1:{free_port}")
        (tmp_path / name).write_text(text)
    return tmp_path / "demo.py"


def test_failure(demo: Path) -> None:
    """A worker that does not start fails the demo, which shows the logs."""
    ini = demo.with_name("development.ini")
    ini.write_text(ini.read_text().replace("[celery:main]", "[celery:main]\napp = no"))
    with start("python", demo, cwd=demo.parent) as process:
        assert process.popen.wait(DEADLINE) == 1, process.output
    for text in (
        "FAILED: celery ended with exit status",
        "--- the log of celery",
        "--- the log of pserve",
    ):
        assert text in process.output


@pytest.fixture
def serving(demo: Path) -> Iterator[Process]:
    """Run the demo until it serves; it has named its logs."""
    with start("python", demo, "--serve", cwd=demo.parent) as process:
        process.wait_for("\nOpen ", DEADLINE)
        yield process


def logs(process: Process) -> list[Path]:
    (line,) = re.findall("^The logs.*", process.output, re.MULTILINE)
    return [Path(word) for word in re.findall(r"/\S+\.log", line)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve(serving: Process, number: signal.Signals) -> None:
    """The demo names its logs and serves until it is interrupted, and stops both."""
    assert [log.exists() for log in logs(serving)] == [True, True]
    serving.popen.send_signal(number)
    assert serving.popen.wait(DEADLINE) == 0, serving.output
    assert all(text in serving.output for text in STOPPED), serving.output


def test_second_interrupt(serving: Process, demo: Path) -> None:
    """A second Ctrl-C kills both processes and what they have started."""
    folder = logs(serving)[0].parent
    serving.popen.send_signal(signal.SIGINT)
    serving.wait_for("\nStopping")
    serving.popen.send_signal(signal.SIGINT)
    assert serving.popen.wait(DEADLINE) in {0, 130}, serving.output
    left = subprocess.run(["pgrep", "-f", demo.parent], check=False, stdout=-3)
    assert left.returncode == 1
    assert not folder.exists()


def test_port_that_is_taken(demo: Path, free_port: int) -> None:
    """The demo does not take another program for its own."""
    with (
        socket.create_server(("127.0.0.1", free_port)),
        start("python", demo, "--serve", cwd=demo.parent) as process,
    ):
        assert process.popen.wait(DEADLINE) == 1
    assert f"another program listens on http://127.0.0.1:{free_port}" in process.output
