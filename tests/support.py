"""What the tests share: processes started as a user starts them, and services."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NoReturn

import launcher
import pytest

if TYPE_CHECKING:
    from celery.result import AsyncResult

#: Where the console scripts of the environment under test are.
BIN = Path(sys.executable).parent
#: The applications of the tests, importable in the processes that tests start.
APPS = Path(__file__).parent / "apps"

DEADLINE = 60.0

#: Scripts that run in a fork of a process which has imported Celery, Pyramid and so on,
#: unless a test is about how they start.
FORKED = {"celery", "proutes", "pserve", "pshell", "ptasks", "ptweens", "pviews"}


def environment(**extra: str) -> dict[str, str]:
    """Return the environment for a process: nothing of ours but the applications.

    Coverage is not measured: it makes the start of a process longer by half.
    """
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CELERY_", "COVERAGE_"))
    }
    return environ | {"PYTHONPATH": str(APPS), "PYTHONUNBUFFERED": "1"} | extra


def measured() -> dict[str, str]:
    """Return the variables of a process that measures coverage, if this one does."""
    return {key: os.environ[key] for key in os.environ if key[:9] == "COVERAGE_"}


#: The variables of a process whose children, which are started afresh, do not measure.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}


def run(
    *command: object,
    cwd: Path,
    stdin: str = "",
    timeout: float = DEADLINE,
    fresh: bool | None = None,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Run a console script of the environment to its end.

    Args:
        fresh: Not in a fork that has imported other packages. If ``False``, a script
            in Python that is not of the environment runs in a fork too.
    """
    with TemporaryFile("w+") as input_, TemporaryFile() as out, TemporaryFile() as err:
        input_.write(stdin)
        input_.seek(0)
        files = {"stdin": input_, "stdout": out, "stderr": err}
        process = _launch(command, files, cwd=cwd, fresh=fresh, env=env)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        output = []
        for file in (out, err):
            file.seek(0)
            output.append(file.read().decode())
    return subprocess.CompletedProcess(process.args, status, *output)


def _launch(
    command: Sequence[object],
    files: Mapping[str, IO[Any]],
    *,
    cwd: Path,
    fresh: bool | None,
    env: Mapping[str, str],
    new_session: bool = False,
) -> launcher.Child | subprocess.Popen[bytes]:
    program, *arguments = map(str, command)
    script = program in FORKED if fresh is None else not fresh
    return launcher.start(
        [str(BIN / program), *arguments],
        cwd=cwd,
        env=environment(**(measured() if script else {}) | env),
        script=script,
        new_session=new_session,
        **files,
    )


@dataclass
class Process:
    """A running console script, with its output in a file."""

    popen: launcher.Child | subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = DEADLINE) -> None:
        """Wait until a text is in the output; fail when the process ends before."""
        self.wait_until(lambda: text in self.output, repr(text), timeout)

    def wait_until(
        self,
        condition: Callable[[], Any],
        what: str = "the condition",
        timeout: float = DEADLINE,
    ) -> None:
        """Wait for a condition; fail when the process ends before."""

        def is_met() -> bool:
            ended = self.popen.poll() is not None
            if condition():
                return True
            if ended:
                pytest.fail(
                    f"ended with {self.popen.returncode} before {what}:\n{self.output}"
                )
            return False

        wait_until(is_met, timeout, lambda: f"{what} in:\n{self.output}")

    def stop(self) -> int:
        """Ask the process to stop, as a service manager does, and wait for it."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def start(
    *command: object, cwd: Path, fresh: bool | None = None, **env: str
) -> Iterator[Process]:
    """Start a console script of the environment; kill it at the end.

    What a process does when it is stopped takes seconds, and is for the tests that are
    about it: they call ``stop()``.
    """
    program = Path(str(command[0])).name
    log = cwd / f"{program}-{uuid.uuid4().hex[:8]}.log"
    with log.open("wb") as output, Path(os.devnull).open() as nothing:
        files = {"stdin": nothing, "stdout": output, "stderr": output}
        popen = _launch(command, files, cwd=cwd, fresh=fresh, env=env, new_session=True)
    process = Process(popen, log)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def start_worker(
    config_uri: object,
    *options: object,
    cwd: Path,
    fresh: bool | None = None,
    **env: str,
) -> Iterator[Process]:
    """Start a worker as the README does, and wait until it is ready."""
    command = ("celery", "-A", "pyramid_tasks.loaders", "--ini", config_uri, "worker")
    options = ("--loglevel=INFO", *options)
    with start(*command, *options, cwd=cwd, fresh=fresh, **env) as process:
        process.wait_for(" ready.")
        yield process


def wait_until(
    condition: Callable[[], Any],
    timeout: float = DEADLINE,
    what: Callable[[], str] = lambda: "the condition",
) -> Any:
    """Wait for a condition with a deadline, and return its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what()}")
        time.sleep(0.02)
    return value


@contextmanager
def serve(
    config_uri: object, port: int, *options: object, cwd: Path, **env: str
) -> Iterator[str]:
    """Start pserve, and give the URL it listens on once it does."""

    def listens() -> bool:
        assert process.popen.poll() is None, process.output
        with socket.socket() as sock:
            return sock.connect_ex(("localhost", port)) == 0

    with start("pserve", config_uri, *options, cwd=cwd, **env) as process:
        wait_until(listens, what=lambda: process.output)
        yield f"http://localhost:{port}"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return int(sock.getsockname()[1])


class Listener:
    """What stands where a server should be, and counts those who connect."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("localhost", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


def need_service(name: str, port: int, command: str) -> None:
    """Skip a test whose service is missing; fail it in CI.

    Args:
        command: What starts the service.
    """
    try:
        socket.create_connection(("localhost", port), timeout=5).close()
    except OSError:
        skip_or_fail(f"{name} is not running on port {port}; start it: {command}")


def skip_or_fail(message: str) -> NoReturn:
    """Skip a test for what is missing on this machine; fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def unique(prefix: str = "test") -> str:
    """Return a name that no other test, or other user of a server, has."""
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


def filesystem_settings(folder: Path) -> dict[str, str]:
    """Return settings for a broker and results in a folder, without any server."""
    for name in ("messages", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options.data_folder_in": f"{folder}/messages",
        "broker_transport_options.data_folder_out": f"{folder}/messages",
        "broker_transport_options.control_folder": f"{folder}/control",
        "broker_transport_options.polling_interval": "0.05",
        "result_backend": f"file://{folder}/results",
    }


def as_ini(settings: dict[str, str], prefix: str = "celery.") -> str:
    """Return settings as the lines of an ini section."""
    return "\n".join(f"{prefix}{key} = {value}" for key, value in settings.items())


def example_config(
    broker: dict[str, str],
    *,
    use: str = "call:exampleapp:main",
    app: str = "",
    worker: str = "worker_concurrency = 2",
    more: str = "",
) -> str:
    """Return an ini for the example application.

    Args:
        broker: The Celery settings of the application.
        app: More lines of ``[app:main]``.
        worker: The lines of ``[celery:main]``.
        more: More sections.
    """
    return f"""\
[app:main]
use = {use}
example.setting = from the ini
{as_ini(broker)}
{app}

[celery:main]
use = egg:pyramid_tasks
{worker}

{more}
"""


class Site:
    """The example application, in this process, beside its worker."""

    def __init__(self, broker: dict[str, str], folder: Path) -> None:
        import exampleapp
        from pyramid.scripting import prepare

        settings = {f"celery.{key}": value for key, value in broker.items()}
        config = exampleapp.configure(settings)
        config.make_celery_app()
        env = prepare(registry=config.registry)
        self.request = env["request"]
        self.close = env["closer"]
        self.folder = folder
        self.worker: Process | None = None

    def defer(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        return self.request.defer_task(f"exampleapp.{name}", *args, **kwargs)

    def defer_with(self, name: str, *args: Any, **options: Any) -> AsyncResult:
        return self.request.defer_task_with_options(
            f"exampleapp.{name}", args, **options
        )


def ini_form(ini: object, command: str, *options: object, after: bool) -> list[object]:
    """Return a ``celery`` command with ``--ini`` before or after the sub-command."""
    option = ["--ini", ini]
    celery: list[object] = ["celery", "-A", "pyramid_tasks.loaders"]
    if after:
        return [*celery, command, *option, *options]
    return [*celery, *option, command, *options]


#: What makes a worker start sooner, where a test is about something else.
QUICK = ("--without-mingle", "--without-gossip", "--without-heartbeat")
