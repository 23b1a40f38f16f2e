"""``--ini``, ``--ini-var`` and ``--reload`` on the ``celery`` command itself.

Celery parses the options of ``celery`` before it imports what ``-A`` names, so these
must be on the command before that. The entry-point group ``celery.commands`` is
loaded at the right moment, while the command is being built, in every environment this
package is installed in: this module must stay tiny, and must not fail.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from click.core import ParameterSource

from .keys import COMMAND_KEY, ENVIRON_KEY, URI_KEY, VARIABLES_KEY


def _keep_uri(ctx: click.Context, param: click.Parameter, uri: str | None) -> None:
    if uri is None:
        return
    # Celery has click read every option from CELERY_<OPTION>, so this may be
    # CELERY_INI, over which an --ini of the sub-command wins.
    if ctx.get_parameter_source(param.name or "") is not ParameterSource.ENVIRONMENT:
        ctx.meta[URI_KEY] = uri
    # For the workers that `celery multi` starts, as Celery does with --broker.
    os.environ[ENVIRON_KEY] = uri
    # Without -A, Celery would start on an empty application and its default broker.
    ctx.default_map = {**(ctx.default_map or {}), "app": "pyramid_tasks.loaders"}


def keep_variables(
    ctx: click.Context, _param: click.Parameter, variables: tuple[str, ...]
) -> None:
    """Leave the variables of ``--ini-var`` for the loading of the application."""
    if not variables:
        return
    for variable in variables:
        if "=" not in variable:
            raise click.BadParameter(f"{variable!r} is not NAME=VALUE.")
    pairs = dict(variable.split("=", 1) for variable in variables)
    ctx.meta[VARIABLES_KEY] = {**ctx.meta.get(VARIABLES_KEY, {}), **pairs}


def make_options(
    option: type[click.Option] = click.Option, keep_uri: Any = _keep_uri
) -> list[click.Option]:
    """Return the options, for ``celery`` or for one of its sub-commands."""
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
        # Eager: Celery 5.3 and 5.4 convert -A to an application while they parse.
        ctx.meta[COMMAND_KEY] = args[0] if args else None
        return super().handle_parse_result(ctx, opts, args)


def _reload(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 so called by click
    if value and not ctx.resilient_parsing and ctx.command.callback:
        from .reload import reloading

        ctx.command.callback = reloading(ctx.command.callback)


def make_reload_option(
    option: type[click.Option] = click.Option, callback: Any = None
) -> click.Option:
    """Return ``--reload``, for ``celery`` or for one of its sub-commands."""
    return option(
        ["--reload"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,  # CELERY_RELOAD would be for every command
        callback=callback,
        help="Start worker or beat again after every change of the code or of the "
        "configuration file, as pserve --reload does.",
    )


def _celery_group() -> click.Group | None:
    """Return the ``celery`` command, which is being built further up the stack.

    It has no name that could be imported yet.
    """
    frame = sys._getframe()  # noqa: SLF001 there is no other way to look at the stack
    while frame := frame.f_back:  # type: ignore[assignment]
        group = frame.f_locals.get("group")
        if isinstance(group, click.Group) and group.name == "celery":
            return group
    return None


if (_group := _celery_group()) is not None:
    _group.params.extend([*make_options(), make_reload_option(_ReloadOption, _reload)])

#: What the entry point must name: a command. It does nothing and is not shown.
command = click.Command("pyramid_tasks", hidden=True)
