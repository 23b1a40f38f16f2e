"""``--reload``: the command in a process of its own, started again after a change.

By hupper, as with ``pserve --reload``. Imported only where ``--reload`` is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

import click
import hupper

from .keys import COMMAND_KEY, ENVIRON_KEY, RELOADED, VARIABLES_KEY
from .reloaded import SHUTDOWN_TIMEOUT, limit_shutdown, run_command
from .watched import find_ignored


def reloading(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callback of ``celery --reload``, around that of ``celery``."""

    def callback_with_reload(**params: Any) -> Any:
        ctx = click.get_current_context()
        command = ctx.meta.get(COMMAND_KEY)
        if command is not None and command not in RELOADED:
            raise click.UsageError(
                f"--reload goes with {' and '.join(RELOADED)}, not with {command}.", ctx
            )
        if command is not None:
            variables = ctx.meta.get(VARIABLES_KEY, {})
            start_reloader(os.environ.get(ENVIRON_KEY), variables)
        try:
            return callback(**params)
        except click.UsageError as error:
            if error.__context__ is None:
                raise
            # Celery makes one of every error in the module of -A. It can be mended.
            error.show()
            sys.exit(1)

    return callback_with_reload


def start_reloader(config_uri: str | None, variables: dict[str, str]) -> None:
    """Run the command of this process in others, one after another, until it is ended.

    Returns in those others only.

    Raises:
        click.UsageError: The command would not stay in the foreground.
    """
    if hupper.is_active():
        limit_shutdown()
        return
    if {"-D", "--detach"} & set(sys.argv):
        raise click.UsageError(
            "--reload is for a worker or beat in the foreground; leave --detach out."
        )
    ignored: list[str] = []
    with suppress(Exception):  # which the command will raise again, and say
        ignored = find_ignored(config_uri, variables) if config_uri else []
    sys.argv[:] = _without_workdir()
    if {"gevent", "eventlet"} & sys.modules.keys():
        _run_afresh(ignored)
    run_reloader(ignored)


def run_reloader(ignored: list[str]) -> None:
    """Watch files, and run the command of ``sys.argv`` again after each change."""
    hupper.start_reloader(
        f"{run_command.__module__}.{run_command.__name__}",
        # Longer than the worker gives itself: this is for one that hangs.
        shutdown_interval=SHUTDOWN_TIMEOUT + 2,
        ignore_files=ignored,
    )


def _run_afresh(ignored: list[str]) -> NoReturn:
    """Do the same in a Python that these pools have not changed.

    In one that they have, the threads of hupper never run.
    """
    code = (
        f"import sys; sys.argv = {sys.argv!r}; sys.path = {sys.path!r}; "
        f"from {__name__} import {run_reloader.__name__} as run; run({ignored!r})"
    )
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606 no shell


def _without_workdir() -> Iterator[str]:
    """Return the arguments without the directory, which has been entered already."""
    arguments = iter([*sys.argv])
    for argument in arguments:
        if argument == "--workdir":
            next(arguments, None)
        elif not argument.startswith("--workdir="):
            yield argument
