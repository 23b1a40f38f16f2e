"""``worker_pool = gevent`` in a file: the worker starts again with the option for it.

These pools patch Python before anything is imported. Celery does so for ``--pool`` on
the command line, which it reads first. The file is read much later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..worker.lifecycle import PATCHING_POOLS

if TYPE_CHECKING:
    from celery import Celery


def start_with_patching_pool(app: Celery, command: str | None) -> None:
    """Run the command anew with ``--pool``, if its file names such a pool.

    The new command takes the place of this process. A pool on the command line wins
    over the file.

    Args:
        app: The application that the file has loaded.
        command: The sub-command of ``celery``.

    Raises:
        click.UsageError: A reloader runs the command, and cannot start it so.
    """
    pool = app.conf.worker_pool
    has_option = any(each.startswith(("-P", "--pool")) for each in sys.argv)
    if command != "worker" or pool not in PATCHING_POOLS or has_option:
        return
    if "--reload" in sys.argv:
        raise click.UsageError(f"--reload needs the pool as an option: --pool={pool}")
    for stream in sys.stdout, sys.stderr:
        stream.flush()
    arguments = [sys.executable, "-m", "celery", *without_workdir(sys.argv[1:])]
    os.execv(sys.executable, [*arguments, f"--pool={pool}"])  # noqa: S606 no shell


def without_workdir(argv: list[str]) -> Iterator[str]:
    """Yield the arguments without ``--workdir``: Celery has entered it already."""
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--workdir":
            next(arguments, None)
        elif not argument.startswith("--workdir="):
            yield argument
