"""What the tests share: processes started as a user starts them, and services."""

import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, Popen, TimeoutExpired
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

import launcher
import pytest

#: Where the console scripts of the environment under test are.
BIN = Path(sys.executable).parent
#: The applications of the tests, importable in the processes that tests start.
APPS = Path(__file__).parent / "apps"

DEADLINE = 60.0
#: What a test waits for.
Condition = Callable[[], Any]

#: Scripts that run in a fork of a process which has imported Celery, Pyramid and so on,
#: unless a test is about how they start.
FORKED = {"celery", "proutes", "pserve", "pshell", "ptasks", "ptweens", "pviews"}


def logging_sections(line: str = "%(message)s") -> str:
    """Return the sections of an ini that configure logging: a format, of a line."""
    return f"""
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic
[formatter_generic]
format = {line}
"""


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


def run(*command: object, stdin: str = "", **options: Any) -> CompletedProcess[str]:
    """Run a console script of the environment to its end, as ``_launch`` does."""
    with TemporaryFile("w+") as typed, TemporaryFile() as out, TemporaryFile() as err:
        typed.write(stdin)
        typed.seek(0)
        process = _launch(command, typed, out, err, **options)
        try:
            status = process.wait(DEADLINE)
        except TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        for file in (out, err):
            file.seek(0)
        output = out.read().decode(), err.read().decode()
    return CompletedProcess(process.args, status, *output)


def _launch(command, *files: IO, cwd: Path, fresh: bool | None = None, **env: str):
    """Start a console script of the environment, with its standard files.

    Args:
        fresh: Not in a fork that has imported other packages. If ``False``, a script
            in Python that is not of the environment runs in a fork too.
    """
    program, *arguments = map(str, command)
    script = program in FORKED if fresh is None else not fresh
    env = environment(**(measured() if script else {}) | env)
    command = [str(BIN / program), *arguments]
    return launcher.start(command, *files, cwd=cwd, env=env, script=script)


@dataclass
class Process:
    """A running console script, with its output in a file."""

    popen: launcher.Child | Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = DEADLINE) -> None:
        """Wait until a text is in the output; fail when the process ends before."""
        self.wait_until(lambda: text in self.output, repr(text), timeout)

    def wait_until(
        self,
        condition: Condition,
        what: str = "the condition",
        timeout: float = DEADLINE,
    ) -> None:
        """Wait for a condition; fail when the process ends before."""

        def is_met() -> Any:
            status = self.popen.poll()
            met = condition()
            if status is not None and not met:
                pytest.fail(f"ended with {status} before {what}:\n{self.output}")
            return met

        wait_until(is_met, timeout, lambda: f"{what} in:\n{self.output}")

    def stop(self) -> int:
        """Ask the process to stop, as a service manager does, and wait for it."""
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(DEADLINE)
        except TimeoutExpired:
            self.kill()
        return self.popen.returncode

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        with suppress(ProcessLookupError, TimeoutExpired):
            if measured():
                os.killpg(self.popen.pid, launcher.SAVE)
                self.popen.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def start(*command: object, cwd: Path, **options: Any) -> Iterator[Process]:
    """Start a console script of the environment; kill it at the end.

    What a process does when it is stopped takes seconds, and is for the tests that are
    about it: they call ``stop()``.
    """
    log = cwd / f"{unique(Path(str(command[0])).name)}.log"
    with log.open("wb") as output, Path(os.devnull).open() as nothing:
        popen = _launch(command, nothing, output, output, cwd=cwd, **options)
    process = Process(popen, log)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def start_worker(ini: object, *options: object, **others: Any) -> Iterator[Process]:
    """Start a worker as the README does, and wait until it is ready."""
    command = ini_form(ini, "worker", "--loglevel=INFO", *options)
    with start(*command, **others) as process:
        process.wait_for(" ready.")
        yield process


def wait_until(
    condition: Condition,
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
def serve(ini: object, port: int, *options: object, **others: Any) -> Iterator[str]:
    """Start pserve, and give the URL it listens on once it does."""
    with start("pserve", ini, *options, **others) as process:
        process.wait_until(lambda: listens(port), "it listens")
        yield f"http://localhost:{port}"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("localhost", 0)) as sock:
        return sock.getsockname()[1]


def listens(port: int, host: str = "localhost") -> bool:
    """Whether something listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


class Listener:
    """What stands where a server should be, and counts those who connect."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("localhost", 0))
        self.port = self._socket.getsockname()[1]
        self.close = self._socket.close
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                connection.close()


def need_service(name: str, port: int, command: str) -> None:
    """Skip a test whose service is missing, and say what starts it; fail it in CI."""
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
    broker,
    *,
    use="call:exampleapp:main",
    app="",
    worker="worker_concurrency = 2",
    more="",
):
    """Return an ini for the example application: lines of its sections, and more."""
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


def make_client(broker: dict[str, str]):
    """Return a Celery application that sends tasks, and has none of its own."""
    from celery import Celery

    from pyramid_tasks.settings import extract_celery_settings

    client = Celery("client", set_as_current=False)
    settings = {f"celery.{key}": value for key, value in broker.items()}
    client.conf.update(extract_celery_settings(settings))
    return client


class Site:
    """The example application, in this process, beside its worker."""

    def __init__(self, broker: dict[str, str], folder: Path) -> None:
        import exampleapp
        from pyramid.scripting import prepare

        settings = {f"celery.{key}": value for key, value in broker.items()}
        config = exampleapp.configure(settings)
        config.make_celery_app()
        env = prepare(registry=config.registry)
        self.request, self.close = env["request"], env["closer"]
        self.folder = folder
        self.worker: Process | None = None

    def defer(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.request.defer_task(f"exampleapp.{name}", *args, **kwargs)

    def defer_with(self, name: str, *args: Any, **options: Any) -> Any:
        defer = self.request.defer_task_with_options
        return defer(f"exampleapp.{name}", args, **options)


def ini_form(ini: Any, command: Any, *options: Any, after: bool = False) -> list[Any]:
    """Return a ``celery`` command with ``--ini`` before or after the sub-command."""
    named = [command, "--ini", ini] if after else ["--ini", ini, command]
    return ["celery", "-A", "pyramid_tasks.loaders", *named, *options]


#: What makes a worker start sooner, where a test is about something else.
QUICK = ("--without-mingle", "--without-gossip", "--without-heartbeat")
