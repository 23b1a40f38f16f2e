"""Workers of both sides, started as users start them, and stopped whatever happens."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyramid.scripting import prepare

from pyramid_tasks.loaders import get_celery_app

from .applications import plain_celery
from .names import unique

if TYPE_CHECKING:
    from celery import Celery

ROOT = Path(__file__).parent.parent
_DEADLINE = 120.0
_DOUBLE = struct.Struct("d")

#: Those of both sides: what workers say to each other takes seconds at the start.
_OPTIONS = ("--without-mingle", "--without-gossip", "--without-heartbeat")


@dataclass
class Worker:
    """A running worker.

    Attributes:
        begin: When it was started.
        record: The file that its tasks append to.
    """

    popen: subprocess.Popen[bytes]
    log: Path
    record: Path
    begin: float

    def check(self) -> None:
        """Fail when the worker has ended."""
        if self.popen.poll() is not None:
            raise RuntimeError(
                f"The worker ended with {self.popen.returncode}:\n{self.read_log()}"
            )

    def read_log(self) -> str:
        """Return what it has said."""
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Wait until it takes tasks; it must have ``--loglevel=INFO``."""
        deadline = time.monotonic() + _DEADLINE
        while " ready." not in self.read_log():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"The worker is not ready:\n{self.read_log()}")
            time.sleep(0.001)

    def wait_recorded(self, size: int) -> tuple[float, int]:
        """Wait until its tasks have appended so many bytes; return when, and the size.

        Fails when none have come for long.
        """
        last, deadline = 0, time.monotonic() + _DEADLINE
        while True:
            found = self.record.stat().st_size
            now = time.perf_counter()
            if found >= size:
                return now, found
            if found > last:
                last, deadline = found, time.monotonic() + _DEADLINE
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found} of {size} bytes:\n{self.read_log()}")
            time.sleep(0.002)

    def read_delays(self, start: int, number: int) -> list[float]:
        """Return the milliseconds that so many tasks noted, from a place on."""
        self.wait_recorded(start + number * _DOUBLE.size)
        noted = self.record.read_bytes()[start:]
        return [1000 * seconds for (seconds,) in _DOUBLE.iter_unpack(noted)]

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        pid = self.popen.pid
        return [
            int(child)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]


@dataclass
class Plain:
    """Plain Celery, with the Pyramid application loaded."""

    folder: Path
    settings: dict[str, Any]
    command: tuple[str, ...] = ("-A", "benchmarks.plain")
    pyramid_settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def app(self) -> Celery:
        """The application in this process, to send tasks with."""
        return plain_celery(self.settings)

    @contextmanager
    def sender(self) -> Iterator[Callable[..., object]]:
        """Give what a web process sends a task with: ``send(name, *args)``."""
        tasks = self.app.tasks
        yield lambda name, *args: tasks[name].apply_async(args)
        self.app.close()

    @property
    def environ(self) -> dict[str, str]:
        """What the worker has in its environment."""
        return {
            "BENCHMARK_CELERY": json.dumps(self.settings),
            "BENCHMARK_APPLICATION": json.dumps(self.pyramid_settings),
        }


class Ours:
    """This package, with the Pyramid application of an ini."""

    environ: dict[str, str] = {}  # noqa: RUF012 the ini has it all

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        factory: str = "benchmarks.applications:main",
        **application: str,
    ) -> None:
        self.folder = folder
        lines = [f"{key} = {value}" for key, value in application.items()]
        lines += [
            f"celery.{key} = {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in settings.items()
        ]
        self.ini = folder / f"{unique()}.ini"
        self.ini.write_text("\n".join(["[app:main]", f"use = call:{factory}", *lines]))
        self.command = ("-A", "pyramid_tasks.loaders", "--ini", str(self.ini))

    @cached_property
    def app(self) -> Celery:
        """The application in this process, to send tasks with."""
        return get_celery_app(str(self.ini))

    @contextmanager
    def sender(self) -> Iterator[Callable[..., object]]:
        """Give what a web process sends a task with: ``send(name, *args)``."""
        with prepare(registry=self.app.loader.registry) as env:
            yield env["request"].defer_task
        self.app.close()


Side = Plain | Ours


@contextmanager
def worker(side: Side, *options: str) -> Iterator[Worker]:
    """Start a worker, and stop it at the end, with all of its processes.

    Args:
        options: Those of ``celery worker``, beside what both sides have.
    """
    name = unique()
    log, record = side.folder / f"{name}.log", side.folder / f"{name}.record"
    record.touch()
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith("CELERY_")
    }
    environ |= {
        **side.environ,
        "BENCHMARK_RECORD": str(record),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(side.folder),  # billiard leaves folders when it is killed
    }
    command = [sys.executable, "-m", "celery", *side.command, "worker", *_OPTIONS]
    begin = time.perf_counter()
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [*command, f"--hostname={name}@localhost", *options],
            cwd=side.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C is for the benchmark, which stops its workers then.
            start_new_session=True,
        )
    try:
        yield Worker(popen, log, record, begin)
    finally:
        _stop(popen)


def _stop(popen: subprocess.Popen[bytes]) -> None:
    # All at once, and not as users do: nothing is left to be done, and a warm shutdown
    # takes some workers ten seconds.
    with suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
