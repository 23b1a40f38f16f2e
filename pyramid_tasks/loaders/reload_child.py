"""The process that ``--reload`` starts: it reports files to watch, and ends in time."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress

import click
import hupper

#: How many seconds a worker that ends leaves to its running tasks.
SHUTDOWN_TIMEOUT = 10


def run_command() -> None:
    """Run the command of ``sys.argv``. Hupper calls this function.

    Neither Celery nor :mod:`.cli` may be imported earlier: the pools gevent and
    eventlet patch Python before Celery is imported, and Celery imports :mod:`.cli`
    while it builds the command.
    """
    from celery.__main__ import main

    try:
        main()
    except BaseException as error:
        reloader = hupper.get_reloader()
        # Hupper watches the modules that are imported, but not one that fails.
        reloader.watch_files(list(_files_of(error)))
        if isinstance(error, SystemExit) and error.code == click.UsageError.exit_code:
            # No change of a file could mend a wrong command line. End with its status,
            # not by a signal.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            reloader.graceful_shutdown()
        raise


def limit_shutdown() -> None:
    """Limit the time in which this worker ends, with all its processes."""
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
    # A timer would be a thread, and under gevent no thread can start here.
    signal.signal(signal.SIGALRM, _end_at_once)
    signal.alarm(SHUTDOWN_TIMEOUT)


def _end_with_parent(**_: object) -> None:
    from celery.platforms import set_pdeathsig

    # Celery does so for the children of the pool, but not for the beat of worker -B.
    set_pdeathsig("SIGKILL")


def _end_at_once(*_: object) -> None:
    from billiard import active_children

    click.echo(f"Tasks still run after {SHUTDOWN_TIMEOUT} seconds: killed.", err=True)
    # On Linux alone, children end with their parent.
    for child in active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
