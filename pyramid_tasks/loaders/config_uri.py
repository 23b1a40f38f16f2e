"""``pyramid_tasks.config_uri``: a web process reads ``[celery:NAME]`` too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plaster import parse_uri

from ..configuration.load import current_load
from ..registry import get_tasks
from .protocol import find_loader

if TYPE_CHECKING:
    from pyramid.config import Configurator


def includeme(config: Configurator) -> None:
    """Take the settings of the section; in a worker, the loader has given them."""
    if current_load() is None:
        config_uri = config.get_settings()["pyramid_tasks.config_uri"]
        tasks = get_tasks(config.registry)
        tasks.section_settings = find_loader(config_uri).get_celery_app_settings()
        url = parse_uri(config_uri)
        tasks.section = f"{url.path}, [celery:{url.fragment or 'main'}]"
