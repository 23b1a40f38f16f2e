"""Starts the processes of tests, and ends those that are left when the tests end.

Each process that runs tests has a launcher, which is a process of its own and reads
requests from a socket. The launcher has two uses:

- The socket ends when the tests end, also when something kills them. The launcher then
  kills every process that it has started, and their children. On Linux, orphans become
  children of the launcher.
- The launcher has imported Celery and Pyramid, but no module of this package. These
  imports take a second of every command. A console script runs in a fork of the
  launcher, with its own arguments, environment, folder, session and exit.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

#: Ends a process. One that measures coverage keeps what it has measured. Nobody else
#: uses this signal.
SAVE = signal.SIGVTALRM

#: Modules that commands import, with all that these import in turn. Left out are those
#: that read entry points or the command line, or start threads.
IMPORTED = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.amqp",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "coverage",
    "flower.command",
    "hupper.cli",
    "importlib_metadata",
    "plaster_pastedeploy",
    "pyramid.scripts.pserve",
    "pyramid_tm",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "waitress",
    "zope.sqlalchemy",
)


class Child:
    """A process that was started, as ``subprocess.Popen`` has it."""

    def __init__(self, args: Sequence[str], reply: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._reply = reply
        self.pid = self._receive()

    def poll(self) -> int | None:
        """Return the exit status, or nothing while the process runs."""
        if self.returncode is None and select.select([self._reply], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process; return its exit status."""
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._receive()
            self._reply.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _receive(self) -> int:
        if not (message := self._reply.recv(64)):
            raise RuntimeError("The launcher has ended.")
        return int(message)


def start(
    args: Sequence[str],
    *files: IO[Any],
    cwd: Path,
    env: Mapping[str, str],
    script: bool,
) -> Child | subprocess.Popen[bytes]:
    """Start a process with its standard files, in its own session; it ends with this.

    A script of this Python runs in a fork of a process that has imported what it needs.
    """
    if sys.platform != "linux":
        given = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
        return subprocess.Popen(args, cwd=cwd, env=env, start_new_session=True, **given)
    request = {"args": args, "cwd": str(cwd.absolute()), "env": env, "script": script}
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        numbers = [file.fileno() for file in (*files, theirs)]
        socket.send_fds(_launcher(), [json.dumps(request).encode()], numbers)
    return Child(args, ours)


@cache
def _launcher() -> socket.socket:
    """Start the launcher, and return its socket."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    # Each fork of it that is a script measures itself.
    env = {key: value for key, value in os.environ.items() if key[:9] != "COVERAGE_"}
    with theirs:
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env=env | {"PYTHONPATH": "", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return ours


def main() -> None:
    """Start processes until the tests end."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.path.append(str(Path(__file__).parent))
    importlib.import_module("installed").read_for_forks()
    sys.path.pop()
    inspect.stack()  # it looks at every module once, and venusian at the stack
    gc.freeze()  # every child would look for garbage among all these objects
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = _serve(requests)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    if request is None:
        _kill_children()
    else:
        _become(**request)


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Return, in a child, the request for it; return ``None`` at the end."""
    replies: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _report_ended(replies))
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            return None
        # A child that ends at once is reported when its reply is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            for number, file in enumerate(files[:3]):
                os.dup2(file, number)
            for file in (*files, *replies.values()):
                os.close(file)
            return dict(json.loads(message))
        for file in files[:3]:
            os.close(file)
        replies[pid] = files[3]
        _send(files[3], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _send(reply: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(reply, str(number).encode())


def _report_ended(replies: dict[int, int]) -> None:
    """Send the exit status of each child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            reply = replies.pop(pid, None)  # none is the child of a child
            if reply is not None:
                _send(reply, os.waitstatus_to_exitcode(status))
                os.close(reply)


def _kill_children() -> None:
    """Kill all children, and theirs, which are children once their parent has ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


def _become(args: list[str], cwd: str, env: dict[str, str], *, script: bool) -> None:
    """Run the command of a request in this process."""
    os.setsid()
    os.chdir(cwd)
    if not script:
        os.execvpe(args[0], args, env)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = args
    path = env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(Path(args[0]).parent), *filter(None, path)]
    if env.get("COVERAGE_PROCESS_CONFIG"):
        import coverage

        coverage.process_startup()
        signal.signal(SAVE, lambda *_: os._exit(1))  # coverage patches this
    status: list[int] = []
    atexit.register(_end_now, status)  # the first that is registered is the last to run
    try:
        runpy.run_path(args[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, int | None):
            status.append(end.code or 0)
        raise
    status.append(0)


def _end_now(status: list[int]) -> None:
    """End this process without freeing its objects, which takes longer than most runs.

    Its threads have ended before, and other functions that run at its exit have run.
    """
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status[0] & 0xFF)


if __name__ == "__main__":
    main()
