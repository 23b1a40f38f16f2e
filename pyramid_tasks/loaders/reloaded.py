"""What ``--reload`` starts: a command that tells what to watch, and ends in time."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress

import click
import hupper

#: How many seconds the running tasks of a worker have, when it is to end.
SHUTDOWN_TIMEOUT = 10


def run_command() -> None:
    """Run the command of ``sys.argv``; what hupper starts.

    Neither Celery nor :mod:`.cli` is imported before: the one must not be before the
    pools gevent and eventlet, the other must be while the command is built.
    """
    from celery.__main__ import main

    try:
        main()
    except BaseException as error:
        reloader = hupper.get_reloader()
        # A module that cannot be imported is not among those that hupper watches.
        reloader.watch_files(list(_files_of(error)))
        if isinstance(error, SystemExit) and error.code == click.UsageError.exit_code:
            # No file could mend this. End with its status, not by a signal.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            reloader.graceful_shutdown()
        raise


def limit_shutdown() -> None:
    """Have this worker end within so many seconds, and none of its processes stay."""
    from celery.signals import beat_embedded_init, worker_shutting_down

    worker_shutting_down.connect(_set_alarm)
    beat_embedded_init.connect(_end_with_parent)


def _files_of(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if os.path.isfile(frame.f_code.co_filename):  # noqa: PTH113 a str for hupper
                yield frame.f_code.co_filename
        error = error.__cause__ or error.__context__


def _set_alarm(**_: object) -> None:
    # No thread: under gevent, none can be started here.
    signal.signal(signal.SIGALRM, _end_at_once)
    signal.alarm(SHUTDOWN_TIMEOUT)


def _end_with_parent(**_: object) -> None:
    from celery.platforms import set_pdeathsig

    # As Celery has it for the children of the pool, but not for the beat of worker -B.
    set_pdeathsig("SIGKILL")


def _end_at_once(*_: object) -> None:
    from billiard import active_children

    click.echo(f"Tasks still run after {SHUTDOWN_TIMEOUT} seconds: killed.", err=True)
    # Not by their parent's death: only on Linux does that end them.
    for child in active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
