"""Loading a Celery application from a configuration file, as ``pserve`` loads WSGI.

``celery -A pyramid_tasks.loaders`` finds its application here, as ``app``. Nothing
heavy is imported before that: see :mod:`pyramid_tasks.loaders.cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

__all__ = ["get_celery_app"]


def get_celery_app(
    config_uri: str, name: str | None = None, options: dict[str, str] | None = None
) -> Celery:
    """Load the Celery application of a configuration file.

    The twin of :func:`pyramid.paster.get_app`: loads the whole Pyramid application and
    returns the Celery application that it made. Logging is left alone, as by
    ``get_app``.

    Args:
        config_uri: The file, or a URI that plaster can load. ``config.ini#emails``
            names the section; ``config.ini?http_port=8080`` sets variables.
        name: The section ``[celery:NAME]``, or else ``[app:NAME]``. Default, the
            fragment of the URI, or ``main``.
        options: Variables for ``%(variable)s`` in the file. Default, none.

    Raises:
        LoadError: The file, or something that it names, is missing. It names no broker,
            or Celery does not know the broker or the result backend.
        SettingError: A value in the file cannot be used.
    """
    from .opening import open_app

    return open_app(config_uri, name, options, setup_logging=False)


def __getattr__(name: str) -> Any:
    if name == "app":
        from .commandline import app_for_command

        return app_for_command()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
