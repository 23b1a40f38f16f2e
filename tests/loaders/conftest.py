"""Loading an ini, and the sentence that refuses it."""

from __future__ import annotations

import plaster
import pytest
from pyramid.exceptions import ConfigurationError

from pyramid_tasks import PyramidTasksError
from pyramid_tasks.exceptions import LoadError
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.loaders.opening import open_app
from pyramid_tasks.registry import get_tasks


@pytest.fixture
def load(write_ini):
    """Return a function that writes an ini and loads it."""

    def load(text, uri="{}", name=None, **variables):
        return get_celery_app(uri.format(write_ini(text)), name, variables or None)

    return load


@pytest.fixture
def opened(write_ini):
    """Return a function that writes an ini and opens it as a worker does."""

    def opened(text, **variables):
        return open_app(str(write_ini(text)), variables=variables)

    return opened


@pytest.fixture
def web(write_ini):
    """Return a function that loads an ini as pserve does, and gives its Celery app."""

    def web(text):
        wsgi_app = plaster.get_loader(str(write_ini(text))).get_wsgi_app()
        return get_tasks(wsgi_app.registry).app

    return web


@pytest.fixture
def refused(load, tmp_path):
    """Return a function that loads an ini, and gives the sentence that refuses it."""

    def refused(*args, **kwargs):
        with pytest.raises(LoadError) as caught:
            load(*args, **kwargs)
        assert isinstance(caught.value, PyramidTasksError)
        assert isinstance(caught.value, ConfigurationError)
        said = str(caught.value)
        assert said.startswith(f"{tmp_path}/config.ini")
        assert "\n" not in said
        return said.removeprefix(f"{tmp_path}/config.ini")

    return refused


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution with the entry points of the example application."""
    folder = tmp_path / "site" / "exampleapp-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Name: exampleapp\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        """
[paste.app_factory]
main = exampleapp:main
without_tasks = exampleapp:without_tasks

[paste.celery_factory]
main = exampleapp:custom_factory
named = exampleapp:custom_factory

[plaster.celery_loader_factory]
file+native = nativeloader:Loader

[plaster.loader_factory]
file+generic = nativeloader:Loader
"""
    )
    monkeypatch.syspath_prepend(folder.parent)
