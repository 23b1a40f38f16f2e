"""``--reload``: hupper runs the command in a process, and again after each change.

``pserve --reload`` works in the same way. A command without ``--reload`` does not
import this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import click
import hupper

from .keys import COMMAND_KEY, ENVIRON_KEY, RELOADED, VARIABLES_KEY
from .patching import without_workdir
from .reload_child import SHUTDOWN_TIMEOUT, limit_shutdown, run_command
from .watched import find_ignored


def reloading(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callback of ``celery``, with a reloader around it."""

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
            # Celery turns every error in the module of -A into a usage error. A change
            # of the code can mend the error, so the status must not be the status of
            # wrong usage.
            error.show()
            sys.exit(1)

    return callback_with_reload


def start_reloader(config_uri: str | None, variables: dict[str, str]) -> None:
    """Run the command of this process in child processes, one after another.

    The function returns in these child processes only.

    Raises:
        click.UsageError: The command would leave the foreground.
    """
    if hupper.is_active():
        limit_shutdown()
        return
    if {"-D", "--detach"} & set(sys.argv):
        raise click.UsageError(
            "--reload is for a worker or beat in the foreground; leave --detach out."
        )
    ignored: list[str] = []
    with suppress(Exception):  # the command raises the error again, and reports it
        ignored = find_ignored(config_uri, variables) if config_uri else []
    sys.argv[:] = without_workdir(sys.argv)
    if {"gevent", "eventlet"} & sys.modules.keys():
        _run_afresh(ignored)
    run_reloader(ignored)


def run_reloader(ignored: list[str]) -> None:
    """Run the command of ``sys.argv``, and again after each change of a file."""
    hupper.start_reloader(
        f"{run_command.__module__}.{run_command.__name__}",
        # A worker ends within SHUTDOWN_TIMEOUT, unless it hangs.
        shutdown_interval=SHUTDOWN_TIMEOUT + 2,
        ignore_files=ignored,
    )


def _run_afresh(ignored: list[str]) -> NoReturn:
    """Run the reloader in a new Python, which no pool has patched.

    The threads of hupper never run in a Python that gevent or eventlet has patched.
    """
    code = (
        f"import sys; sys.argv = {sys.argv!r}; sys.path = {sys.path!r}; "
        f"from {__name__} import {run_reloader.__name__} as run; run({ignored!r})"
    )
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606 no shell
