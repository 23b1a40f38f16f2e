"""The sample at work: a web process, a worker, and one CSV file through both.

    python sample/demo.py            an import over HTTP in a scratch folder, checked
    python sample/demo.py --serve    both processes on development.ini, until Ctrl-C

It needs pyramid_tasks and the sample installed, and no server.
"""

# ruff: noqa: INP001 - a script
# ruff: noqa: T201 - it shows what it does

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INI = Path(__file__).resolve().with_name("development.ini")
DEADLINE = 30  # seconds, for each step
CHECK_EVERY = 0.05

CSV = """\
date,category,amount
2024-05-01,Rent,950.00
2024-05-02,Groceries,42.10
2024-05-31,"Travel, by train",18.50
2024-06-31,Groceries,12.00
2024-06-03,Groceries,0.90
2024-06-04,Books,twelve
"""
EXPECTED_TOTALS = {
    "Groceries": "43.00",
    "Rent": "950.00",
    "Travel, by train": "18.50",
}
EXPECTED_BAD_LINES = [5, 7]


class DemoError(Exception):
    """What did not go as it should."""


class Process:
    """A command of this environment, running with its output in a file."""

    def __init__(
        self, command: list[str], log: Path, stop_signal: signal.Signals
    ) -> None:
        print("$", shlex.join(command), flush=True)
        self.name = command[0]
        self.log = log
        self._stop_signal = stop_signal
        program = Path(sys.executable).with_name(command[0])
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal reaches this script only,
            # which then stops the processes one after the other.
            self._popen = subprocess.Popen(  # noqa: S603 - our own commands
                [program, *command[1:]],
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise an error if the process has ended."""
        if self._popen.poll() is not None:
            message = f"{self.name} ended with exit status {self._popen.returncode}"
            raise DemoError(message)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        if self._popen.poll() is not None:
            return
        self._popen.send_signal(self._stop_signal)
        try:
            status = self._popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"{self.name} did not stop and was killed"
            raise DemoError(message) from None
        print(f"{self.name} has stopped with exit status {status}")
        if status:
            message = f"{self.name} stopped with exit status {status}"
            raise DemoError(message)

    def kill(self) -> None:
        """End the process and its children at once, if any of them is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def read_log(self) -> str:
        """Return what the process has said."""
        return self.log.read_text(errors="replace")


def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--serve",
        action="store_true",
        help="leave both processes running on development.ini until Ctrl-C",
    )
    arguments = parser.parse_args()
    # Whatever ends this script ends the two processes.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    with tempfile.TemporaryDirectory(prefix="sampleapp-") as scratch:
        processes: list[Process] = []
        try:
            with stopping(processes):
                if arguments.serve:
                    serve(processes, Path(scratch))
                else:
                    demonstrate(processes, Path(scratch))
        except DemoError as error:
            print(f"\nFAILED: {error}")
            for process in processes:
                print(f"\n--- the log of {process.name}\n{process.read_log()}")
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted.")
            return 130
    if not arguments.serve:
        print("\nAll as it should be.")
    return 0


def demonstrate(processes: list[Process], scratch: Path) -> None:
    """Import a CSV file and check the result."""
    step("A copy of development.ini, with a free port")
    port = free_port()
    ini = scratch / "development.ini"
    text = INI.read_text()
    line = "listen = localhost:6543"
    if line not in text:
        message = f"{INI} has no line “{line}”"
        raise DemoError(message)
    ini.write_text(text.replace(line, f"listen = 127.0.0.1:{port}"))
    print(ini)
    url = f"http://127.0.0.1:{port}"
    start(processes, ini, scratch, url)

    step("A CSV file is sent")
    print(CSV, end="")
    status, record = call(f"{url}/imports", CSV.encode())
    print(f"--> {status}, import {record['id']} is {record['status']}: {record['url']}")

    step("The worker imports it")

    def finished() -> dict[str, Any] | None:
        _, found = call(record["url"])
        return found if found["status"] in {"done", "failed"} else None

    result = wait_until(finished, "the import is done", processes)
    if result["status"] == "failed":
        message = f"the import failed: {result['error']}"
        raise DemoError(message)

    step("The result")
    for category, amount in result["totals"].items():
        print(f"{category:<20} {amount:>10}")
    for row in result["bad_rows"]:
        print(f"line {row['line']}: {row['reason']}")
    print(result["notice"])
    bad_lines = [row["line"] for row in result["bad_rows"]]
    expect("the totals", result["totals"], EXPECTED_TOTALS)
    expect("the lines that cannot be read", bad_lines, EXPECTED_BAD_LINES)
    # The worker has made it, and was never told the port.
    links = re.findall(r"https?://\S+", result["notice"])
    expect("the links in the notice", links, [f"{url}/imports/{record['id']}"])

    step("Both processes are stopped")


def serve(processes: list[Process], scratch: Path) -> None:
    """Run both processes until Ctrl-C."""
    url = "http://localhost:6543"
    if is_taken(url):
        message = f"another program listens on {url}. Stop that program first."
        raise DemoError(message)
    start(processes, INI, scratch, url)
    with contextlib.suppress(KeyboardInterrupt):
        logs = " and ".join(str(process.log) for process in processes)
        print(f"\nThe logs are {logs}.")
        print(f"Open {url} in a browser. Ctrl-C stops both processes.", flush=True)
        while True:
            for process in processes:
                process.check()
            time.sleep(CHECK_EVERY)
    print("\nStopping both processes. Ctrl-C again kills what is left.", flush=True)


def start(processes: list[Process], ini: Path, scratch: Path, url: str) -> None:
    """Start the web process and the worker, and wait until both are ready."""
    step("The web process and the worker start from the same ini file")
    # Each is stopped by the signal after which its exit status is 0.
    web = Process(["pserve", str(ini)], scratch / "pserve.log", signal.SIGINT)
    processes.append(web)
    worker = Process(
        ["celery", "--ini", str(ini), "worker"],
        scratch / "celery.log",
        signal.SIGTERM,
    )
    processes.append(worker)
    wait_until(lambda: answers(url), "pserve answers", processes)
    wait_until(lambda: " ready." in worker.read_log(), "the worker is ready", processes)


def interrupt(_signal: int, _frame: object) -> None:
    """Handle Ctrl-C and the request to end, both the same way."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def stopping(processes: list[Process]) -> Iterator[None]:
    """Stop the processes at the end, the last one first."""
    try:
        yield
    except BaseException:
        # What went wrong first is what matters.
        with contextlib.suppress(DemoError):
            stop_all(processes)
        raise
    stop_all(processes)


def stop_all(processes: list[Process]) -> None:
    """Stop every process, even if one of them cannot be stopped.

    A Ctrl-C meanwhile kills all of them.
    """
    errors: list[DemoError] = []
    try:
        for process in reversed(processes):
            try:
                process.stop()
            except DemoError as error:
                errors.append(error)
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise
    if errors:
        raise errors[0]


def wait_until(check: Callable[[], Any], claim: str, processes: list[Process]) -> Any:
    """Return what the check returns, once that is true."""
    begin = time.monotonic()
    print(f"Waiting until {claim} ...", flush=True)
    while True:
        result = check()
        seconds = time.monotonic() - begin
        if result:
            print(f"{claim} ({seconds:.1f} s)", flush=True)
            return result
        for process in processes:
            process.check()
        if seconds > DEADLINE:
            message = f"waited {DEADLINE} seconds, but not: {claim}"
            raise DemoError(message)
        time.sleep(CHECK_EVERY)


def call(url: str, csv: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Send a CSV file, or get JSON."""
    request = urllib.request.Request(url, csv, {"Accept": "application/json"})  # noqa: S310
    if csv is not None:
        request.add_header("Content-Type", "text/csv")
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        message = f"{url} answered {error.code}: {error.read().decode()}"
        raise DemoError(message) from error


def answers(url: str) -> bool:
    """Tell whether the web process answers."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        message = f"{url} answered {error.code}"
        raise DemoError(message) from error
    except OSError:
        return False


def is_taken(url: str) -> bool:
    """Tell whether a program listens on the port already."""
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True


def expect(what: str, found: object, expected: object) -> None:
    """Raise an error if a result is not the right one."""
    if found != expected:
        message = f"{what} should be {expected}, but are {found}"
        raise DemoError(message)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def step(title: str) -> None:
    """Print what comes next."""
    print(f"\n== {title}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
