"""``pyramid_tasks.config_uri``: a web process reads ``[celery:NAME]`` too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..configuration.load import current_load
from ..registry import get_tasks
from .protocol import find_loader

if TYPE_CHECKING:
    from pyramid.config import Configurator


def includeme(config: Configurator) -> None:
    """Take the settings of the section; in a worker, the loader has given them."""
    if current_load() is None:
        config_uri = config.get_settings()["pyramid_tasks.config_uri"]
        settings = find_loader(config_uri).get_celery_app_settings()
        get_tasks(config.registry).section_settings = settings
