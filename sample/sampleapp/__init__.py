"""A Pyramid application that imports expenses from CSV files in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyramid.config import Configurator
from pyramid.settings import aslist


def main(global_config: dict[str, str], **settings: Any) -> Any:
    """Make the WSGI application: for pserve, and for the worker all the same."""
    del global_config
    for folder in aslist(settings.get("sampleapp.folders", "")):
        Path(folder).mkdir(parents=True, exist_ok=True)
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.include(".db")
        config.include(".tasks")
        config.include(".uploads")
        config.include(".views")
        config.scan()
        return config.make_wsgi_app()
