"""Opening an application from a config URI, for every command; and its checks.

The file must name a broker. Celery must know the broker and the result backend.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import WatchedFileHandler
from typing import Any

import plaster_pastedeploy
from celery import Celery, signals

from .._celery import new_backend
from ..application import names_broker
from ..configuration.addresses import shown, without_secrets
from ..configuration.load import is_told, reporting
from ..configuration.values import check_environment
from ..exceptions import LoadError
from .protocol import Variables, find_loader

# The section of an ini, which may have [logging] for something else; and the sections
# of other formats.
_LOGGING_OF_INI = {"loggers"}
_LOGGING_SECTIONS = {"loggers", "logging"}
#: The name of the handler for ``--logfile``.
_LOGFILE = "pyramid_tasks.logfile"


def open_app(
    config_uri: str,
    name: str | None = None,
    variables: Variables = None,
    *,
    setup_logging: bool = True,
) -> Celery:
    """Load an application as ``pserve`` does, and check the servers that it names.

    Args:
        config_uri: As for :func:`pyramid_tasks.loaders.get_celery_app`.
        name: The section ``[celery:NAME]``, or else ``[app:NAME]``. Default, the
            fragment of the URI, or ``main``.
        variables: Variables for ``%(variable)s`` in the file.
        setup_logging: Whether to set up the logging that the file configures, and to
            keep Celery from changing it.

    Raises:
        LoadError: The file lacks a section, or Celery does not know a server.
        SettingError: A value in the file cannot be used.
    """
    loader = find_loader(config_uri)
    is_ini = isinstance(loader, plaster_pastedeploy.Loader)
    names = _LOGGING_OF_INI if is_ini else _LOGGING_SECTIONS
    configures_logging = setup_logging and not names.isdisjoint(loader.get_sections())
    if configures_logging:
        loader.setup_logging(variables)
    app = loader.get_celery_app(name, variables)
    _check_servers(app, config_uri)
    if configures_logging and not app.conf.value_set_for("worker_hijack_root_logger"):
        # Celery leaves logging alone if its signal has a receiver.
        signals.setup_logging.connect(_keep_logging)
    app.origin = (_reopen, (config_uri, name, variables, setup_logging))
    return app


def _reopen(*args: Any) -> Celery:
    *where, setup_logging = args
    return open_app(*where, setup_logging=setup_logging)


def _check_servers(app: Celery, config_uri: str) -> None:
    """Raise ``LoadError`` if a server is unknown to Celery; connect to none."""
    conf = app.conf
    with reporting():
        check_environment()
    with reporting():
        is_named = names_broker(app)
        is_read = bool(conf.broker_read_url)
        if not is_named or not (is_read or conf.broker_transport):
            use = " to read from" if is_named else " to send to" if is_read else ""
            raise LoadError(
                f"{config_uri} names no broker{use}. Set celery.broker_url in the "
                "section of the application, or broker_url in [celery:NAME]; Celery's "
                "own default would be amqp://.",
                config_uri,
            )
    for url, connect in (
        (conf.broker_read_url, app.connection_for_read),
        (conf.broker_write_url, app.connection_for_write),
    ):
        broker = url or conf.broker_transport
        with (
            reporting(),
            _usable("The broker", broker, config_uri),
            connect() as connection,
        ):
            connection.transport  # noqa: B018 makes the transport, does not connect
    with (
        reporting(),
        _usable("The result backend", conf.result_backend, config_uri),
        _without_tables(app),
    ):
        new_backend(app)


@contextmanager
def _without_tables(app: Celery) -> Iterator[None]:
    """Keep Celery 5.5 and later from making tables in a database for results."""
    changes = app.conf.changes
    before = dict(changes)
    changes["database_create_tables_at_setup"] = False
    try:
        yield
    finally:
        changes.clear()
        changes.update(before)


@contextmanager
def _usable(server: str, address: object, config_uri: str) -> Iterator[None]:
    """Turn any error of Celery's about a server into a ``LoadError``."""
    try:
        yield
    except Exception as error:
        variable = _variable_of(server, address)
        if variable and is_told(variable):
            return
        text = error.args[0] if isinstance(error, KeyError) else error  # not its repr
        reason = without_secrets(" ".join(str(text).split()), address)
        if reason[-1:] not in {".", "?"}:
            reason += "."
        place = f"the environment, {variable}" if variable else config_uri
        message = (
            f"{place}: {server} {shown(address)} cannot be used: {reason} Is its name "
            "right, and the package installed that Celery needs for it, as in "
            "pip install 'celery[redis]'?"
        )
        raise LoadError(message, config_uri) from error


def _variable_of(server: str, address: object) -> str | None:
    """Return the variable of the environment that has the address of a server."""
    prefix = "CELERY_BROKER" if server == "The broker" else "CELERY_RESULT"
    for name, value in os.environ.items():
        if name.startswith(prefix) and value == address:
            return name
    return None


def _keep_logging(logfile: str | None = None, **options: Any) -> None:
    """Leave logging as the file configured it, and add the file of ``--logfile``."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if each.name == _LOGFILE]:
        # Celery asks again in a child of the pool, if the name has the child's number.
        root.removeHandler(handler)
        handler.close()
    if logfile:
        formatters = (each.formatter for each in root.handlers if each.formatter)
        try:
            added = WatchedFileHandler(logfile, encoding="utf-8")
        except OSError as error:
            problem = f"{logfile} cannot be written to: {error.strerror}."
            raise SystemExit(f"Error: logfile = {problem}") from None
        added.set_name(_LOGFILE)
        of_celery = logging.Formatter(options.get("format"))
        added.setFormatter(next(formatters, of_celery))
        root.addHandler(added)
