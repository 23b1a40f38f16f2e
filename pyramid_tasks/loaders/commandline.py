"""The application of a ``celery`` command, from its ``--ini``.

An error here ends the command before it connects to a broker.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click
from celery import Celery
from celery.bin.base import CeleryOption

from . import cli, keys
from .errors import explain
from .opening import open_app
from .patching import start_with_patching_pool

_NO_INI = (
    "No configuration file: pass --ini config.ini, or set "
    f"{keys.ENVIRON_KEY}=config.ini in the environment."
)


def app_for_command() -> Celery:
    """Return the application that the running ``celery`` command asks for.

    With ``--ini`` before the sub-command, the application itself is returned. Without,
    the sub-command may still have its own ``--ini``. Until that option is parsed, a
    stand-in takes the place of the application.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None:  # imported, not found by -A
        return _load(os.environ.get(keys.ENVIRON_KEY))
    if keys.URI_KEY in ctx.meta:
        app = _load(ctx.meta[keys.URI_KEY])
    else:
        app = _StandIn("pyramid_tasks", set_as_current=False)
        options = cli.make_options(_SubCommandOption, _replace_stand_in)
        app.user_options["preload"].update(options)
        _add_to_commands_of_groups(ctx, options)
    for command in keys.RELOADED:
        app.user_options[command].add(cli.make_reload_option(CeleryOption))
    return app


class _StandIn(Celery):
    """The application of a command until its ``--ini`` is parsed."""


def _add_to_commands_of_groups(ctx: click.Context, options: list[click.Option]) -> None:
    """Add options to such commands as ``celery list bindings``; Celery does not."""
    for group in getattr(ctx.command, "commands", {}).values():
        if isinstance(group, click.Group):
            for command in group.commands.values():
                command.params.extend(options)


class _SubCommandOption(CeleryOption):
    def handle_parse_result(
        self, ctx: click.Context, opts: dict[str, Any], args: list[str]
    ) -> Any:
        # The callback of --ini loads the application, which needs the variables.
        cli.keep_variables(ctx, self, opts.get("ini_var") or ())
        return super().handle_parse_result(ctx, opts, args)


def _replace_stand_in(
    ctx: click.Context, _param: click.Parameter, uri: str | None
) -> None:
    if uri is None and not isinstance(ctx.obj.app, _StandIn):
        return  # the group had one
    if uri is None and isinstance(ctx.command, click.Group):
        # The command of the group has its own --ini. Celery before 5.7 would ask the
        # group for the value.
        ctx.obj.app.user_options["preload"].clear()
        return
    # The option is eager: some of Celery's own options look at the settings of
    # ctx.obj.app, and click converts those later.
    ctx.obj.app = _load(uri or os.environ.get(keys.ENVIRON_KEY))


def _load(config_uri: str | None) -> Celery:
    """Open the application, or end the command with a sentence."""
    # Celery catches every Exception here, and prints a traceback as if the module of -A
    # could not be found. Celery lets SystemExit pass.
    if not config_uri:
        _end(_NO_INI, status=2)
    ctx = click.get_current_context(silent=True)
    meta = {} if ctx is None else ctx.meta
    variables = meta.get(keys.VARIABLES_KEY, {})
    command = meta.get(keys.COMMAND_KEY)
    try:
        # Click has not come to a --reload after the sub-command yet.
        if command in keys.RELOADED and "--reload" in sys.argv:
            from .reload import start_reloader
            from .watched import watch_config

            start_reloader(config_uri, variables)
            watch_config(config_uri, variables)
        app = open_app(config_uri, variables=variables)
        start_with_patching_pool(app, command)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 the application's own, of any kind
        _end(explain(error, config_uri))
    return app


def _end(message: str, status: int = 1) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
