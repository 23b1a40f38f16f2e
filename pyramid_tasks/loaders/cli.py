"""``--ini``, ``--ini-var`` and ``--reload`` on the ``celery`` command itself.

Celery parses the options of ``celery`` before it imports the module of ``-A``. So
these options must be on the command earlier. Celery loads the entry-point group
``celery.commands`` at the right moment, while it builds the command. It does so in
every environment that has this package: this module must stay tiny, and must not fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from ._click_plugins import find_celery_group
from .keys import COMMAND_KEY, ENVIRON_KEY, URI_KEY, VARIABLES_KEY


def _keep_uri(ctx: click.Context, param: click.Parameter, uri: str | None) -> None:
    if uri is None:
        return
    # Click reads every option of Celery from CELERY_<OPTION> too. An --ini of the
    # sub-command wins over CELERY_INI.
    if ctx.get_parameter_source(param.name or "") is not ParameterSource.ENVIRONMENT:
        ctx.meta[URI_KEY] = uri
        if ctx.command.callback:
            ctx.command.callback = _refusing_other_apps(ctx.command.callback)
    # `celery multi` starts workers, which inherit the environment. Celery does the same
    # with --broker.
    os.environ[ENVIRON_KEY] = uri
    _find_app(ctx)


def _refusing_other_apps(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callback of ``celery``, which must find what ``--ini`` loads."""

    def callback_with_ini(**params: Any) -> Any:
        result = callback(**params)
        ctx = click.get_current_context()
        # Only what loads a file says so on the application.
        if URI_KEY in ctx.meta and getattr(ctx.obj.app, "origin", None) is None:
            raise click.UsageError(
                "--ini is not read, as the module of -A makes its own application. "
                "Write -A pyramid_tasks.loaders, or leave out --ini."
            )
        return result

    return callback_with_ini


def _find_app(ctx: click.Context) -> None:
    # Without -A, Celery would start on an empty application and its default broker.
    ctx.default_map = {**(ctx.default_map or {}), "app": "pyramid_tasks.loaders"}


def keep_variables(
    ctx: click.Context, _param: click.Parameter, variables: tuple[str, ...]
) -> None:
    """Keep the variables of ``--ini-var`` until the application is loaded."""
    for variable in variables:
        if "=" not in variable:
            raise click.BadParameter(f"{variable!r} is not NAME=VALUE.")
    pairs = dict(variable.split("=", 1) for variable in variables)
    ctx.meta[VARIABLES_KEY] = {**ctx.meta.get(VARIABLES_KEY, {}), **pairs}


def make_options(
    option: type[click.Option] = click.Option, keep_uri: Any = _keep_uri
) -> list[click.Option]:
    """Return ``--ini`` and ``--ini-var``, for ``celery`` or for a sub-command."""
    return [
        option(
            ["--ini"],
            metavar="CONFIG_URI",
            is_eager=True,
            expose_value=False,
            callback=keep_uri,
            help="The configuration file of a Pyramid application, as for pserve; goes "
            f"with -A pyramid_tasks.loaders.  [env var: {ENVIRON_KEY}]",
        ),
        option(
            ["--ini-var"],
            multiple=True,
            metavar="NAME=VALUE",
            is_eager=True,
            expose_value=False,
            callback=keep_variables,
            help="Set %(NAME)s in the configuration file. Can be repeated.",
        ),
    ]


class _ReloadOption(click.Option):
    def handle_parse_result(
        self, ctx: click.Context, opts: Any, args: list[str]
    ) -> tuple[Any, list[str]]:
        # The option is eager, and the name of the sub-command is kept here, because
        # Celery 5.3 and 5.4 load the application of -A while they parse.
        ctx.meta[COMMAND_KEY] = args[0] if args else None
        # `multi` hands all options on.
        if args[:1] != ["multi"] and any(each.startswith("--ini") for each in args):
            _find_app(ctx)  # the sub-command has this option then
        return super().handle_parse_result(ctx, opts, args)


def _reload(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 click passes it so
    if value and not ctx.resilient_parsing and ctx.command.callback:
        from .reload import reloading

        ctx.command.callback = reloading(ctx.command.callback)


def make_reload_option(
    option: type[click.Option] = click.Option, callback: Any = None
) -> click.Option:
    """Return ``--reload``, for ``celery`` or for a sub-command."""
    return option(
        ["--reload"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,  # CELERY_RELOAD would count for every command
        callback=callback,
        help="Start worker or beat again after every change of the code or of the "
        "configuration file, as pserve --reload does.",
    )


if (_group := find_celery_group()) is not None:
    _group.params.extend([*make_options(), make_reload_option(_ReloadOption, _reload)])

#: The entry point must name a command. This one does nothing, and is hidden.
command = click.Command("pyramid_tasks", hidden=True)
