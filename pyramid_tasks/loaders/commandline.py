"""The application of a ``celery`` command, from its ``--ini``.

An error here ends the command, before anything connects to a broker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from celery import Celery, signals
from celery.bin.base import CeleryOption
from kombu.utils.url import maybe_sanitize_url

from ..application import names_broker
from ..configuration.load import reporting
from ..exceptions import LoadError
from .cli import keep_variables, make_options, make_reload_option
from .errors import explain
from .keys import COMMAND_KEY, ENVIRON_KEY, RELOADED, URI_KEY, VARIABLES_KEY
from .protocol import find_loader

_NO_INI = (
    f"No configuration file: pass --ini config.ini, or set {ENVIRON_KEY}=config.ini in "
    "the environment."
)

# What the section is called in an ini, and in the formats of other loaders.
_LOGGING_SECTIONS = {"loggers", "logging"}


def app_for_command() -> Celery:
    """Return the application that the running ``celery`` command asks for.

    With ``--ini`` before the sub-command, it is the application. Otherwise the
    sub-command may still bring its own ``--ini``, so it is a stand-in that makes way
    for the application as soon as that is known.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None:  # imported, not found by -A
        return _load(os.environ.get(ENVIRON_KEY), {})
    if URI_KEY in ctx.meta:
        app = _load(ctx.meta[URI_KEY], ctx.meta.get(VARIABLES_KEY, {}))
    else:
        app = Celery("pyramid_tasks", set_as_current=False)
        options = make_options(_SubCommandOption, _replace_stand_in)
        app.user_options["preload"].update(options)
    for command in RELOADED:
        app.user_options[command].add(make_reload_option(CeleryOption))
    return app


class _SubCommandOption(CeleryOption):
    def handle_parse_result(
        self, ctx: click.Context, opts: dict[str, Any], args: list[str]
    ) -> Any:
        # --ini is read when it is met, so --ini-var has to be read before.
        keep_variables(ctx, self, opts.get("ini_var") or ())
        return super().handle_parse_result(ctx, opts, args)


def _replace_stand_in(
    ctx: click.Context, _param: click.Parameter, uri: str | None
) -> None:
    # Eager, so that Celery's own options, some of which look at the settings of
    # ctx.obj.app, find the application.
    ctx.obj.app = _load(
        uri or os.environ.get(ENVIRON_KEY), ctx.meta.get(VARIABLES_KEY, {})
    )


def load_app(config_uri: str, variables: dict[str, str]) -> Celery:
    """Load an application as ``pserve`` does: its logging first, then itself."""
    loader = find_loader(config_uri)
    configures_logging = not _LOGGING_SECTIONS.isdisjoint(loader.get_sections())
    if configures_logging:
        loader.setup_logging(variables)
    app = loader.get_celery_app(defaults=variables)
    check_servers(app, config_uri)
    if configures_logging and not app.conf.value_set_for("worker_hijack_root_logger"):
        # A receiver is what tells Celery that logging is set up.
        signals.setup_logging.connect(_keep_logging)
    app.origin = (load_app, (config_uri, variables))
    return app


def check_servers(app: Celery, config_uri: str) -> None:
    """Find out whether Celery knows what is configured, without connecting to it.

    Raises:
        LoadError: It does not, or a package is missing, or no broker is named.
    """
    conf = app.conf
    with reporting():
        if not names_broker(app):
            raise LoadError(
                f"{config_uri} names no broker. Set celery.broker_url in the section "
                "of the application, or broker_url in [celery:NAME]; Celery's own "
                "default would be amqp://.",
                config_uri,
            )
        what = f"The broker {_sanitize(conf.broker_read_url or conf.broker_transport)}"
        with _known_to_celery(what, config_uri), app.connection_for_read() as made:
            made.transport  # noqa: B018 made here, connected later
    what = f"The result backend {_sanitize(conf.result_backend)}"
    with reporting(), _known_to_celery(what, config_uri):
        app.backend  # noqa: B018


@contextmanager
def _known_to_celery(what: str, config_uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = error.args[0] if isinstance(error, KeyError) else error  # not its repr
        reason = " ".join(str(text).split())
        if reason[-1:] not in {".", "?"}:
            reason += "."
        message = (
            f"{config_uri}: {what} cannot be used: {reason} Is its name right, and the "
            "package installed that Celery needs for it, as in "
            "pip install 'celery[redis]'?"
        )
        raise LoadError(message, config_uri) from error


def _sanitize(url: object) -> str:
    """Return a URL, or several separated by semicolons, without passwords."""
    return ";".join(maybe_sanitize_url(part) for part in str(url).split(";"))


def _load(config_uri: str | None, variables: dict[str, str]) -> Celery:
    # Celery catches every Exception here and calls each a failure to find a module,
    # with a traceback; SystemExit passes.
    if not config_uri:
        _end(_NO_INI, status=2)
    try:
        if _is_to_reload():
            from .reload import start_reloader
            from .watched import watch_config

            start_reloader(config_uri, variables)
            watch_config(config_uri, variables)
        return load_app(config_uri, variables)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 the application's own, of any kind
        _end(explain(error, config_uri))


def _is_to_reload() -> bool:
    """Whether the command has ``--reload``, before or after its name.

    After it, that is read here, as click comes there when the application is loaded.
    """
    ctx = click.get_current_context(silent=True)
    return (
        ctx is not None
        and ctx.meta.get(COMMAND_KEY) in RELOADED
        and "--reload" in sys.argv
    )


def _keep_logging(**_: object) -> None:
    """Leave logging as the file configured it."""


def _end(message: str, status: int = 1) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
