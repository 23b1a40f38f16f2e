"""``pyramid_tasks.config_uri``: a web process reads ``[celery:NAME]`` too."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from plaster import parse_uri

from ..configuration.load import (
    checking,
    current_load,
    find_source,
    reporting,
    warn,
)
from ..exceptions import LoadError, SettingError
from ..registry import get_tasks
from .protocol import find_loader

if TYPE_CHECKING:
    from pyramid.config import Configurator

    from ..settings import Settings

logger = logging.getLogger(__name__)

_KEY = "pyramid_tasks.config_uri"


def includeme(config: Configurator) -> None:
    """Take the settings of the section; in a worker, the loader has given them."""
    config_uri = str(config.get_settings()[_KEY])  # YAML may have a number
    if current_load() is None:
        tasks = get_tasks(config.registry)
        with reporting():
            tasks.section_settings = _read(config_uri)
        url = parse_uri(config_uri)
        tasks.section = f"{url.path}, [celery:{url.fragment or 'main'}]"
        return
    try:
        with checking():  # the loader tells of the mistakes in the section
            _read(config_uri)
    except SettingError as error:
        error.source = find_source()
        warn(logger, error)


def _read(config_uri: str) -> Settings:
    """Return the settings of the section.

    Raises:
        SettingError: There is no such section.
    """
    try:
        return find_loader(config_uri).get_celery_app_settings()
    except LoadError as error:
        problem = f"= {config_uri} cannot be read by a web process: {error}"
        if not Path(config_uri.partition("#")[0]).is_file():
            problem += " Write %(__file__)s, or %(__file__)s#NAME for [celery:NAME]."
        # Not "from error", which shows the value.
        raise SettingError(_KEY, problem) from None
