"""The reference has every public name; ``make docs`` finds those that are not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from documents import ROOT, Document, app_settings
from plaster import get_settings
from pyramid.config import Configurator
from pyramid.interfaces import IRequestExtensions

import pyramid_tasks
from pyramid_tasks import pytest_plugin, testing
from pyramid_tasks.configuration.own_settings import OWN_SETTINGS
from pyramid_tasks.interfaces import ITaskDeriverInfo
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.settings import extract_celery_settings

PAGES = [path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md")]
#: The last part of the names that autodoc is asked for.
DESCRIBED = set(re.findall(r"auto\w+:: (?:\w+\.)*(\w+)", "\n".join(PAGES)))


def test_public_names() -> None:
    """All public names are described: functions, events, and what is for tests."""
    public = {*pyramid_tasks.__all__, *testing.__all__}
    fixtures = {name for name in vars(pytest_plugin) if "task" in name}
    assert (public | fixtures) - DESCRIBED == {"includeme", "PyramidTasksError"}
    assert ".. automodule:: pyramid_tasks.exceptions\n   :members:" in "\n".join(PAGES)


def test_interfaces() -> None:
    """What autodoc cannot read says the same as the interface."""
    page = (ROOT / "docs" / "reference" / "derivers.md").read_text()
    attributes = re.findall(r"\.\. attribute:: (\w+)\n\n +(.+)", page)
    assert dict(attributes) == {
        name: attribute.getDoc()
        for name, attribute in ITaskDeriverInfo.namesAndDescriptions()
    }


def test_directives_and_request_methods() -> None:
    """So are the directives, and the methods and properties of requests."""
    pytest.importorskip("pyramid_tm")
    with Configurator() as config:
        config.include("pyramid_tm")
        config.include("pyramid_tasks.contrib.pyramid_tm")
    directives = set(config.registry._directives)
    extensions = config.registry.getUtility(IRequestExtensions)
    methods = {*extensions.methods, *extensions.descriptors}
    assert (directives | methods) - DESCRIBED == {"delay_task", "tm"}
    assert "`request.delay_task`" in "\n".join(PAGES)


# Settings

OF_README = Document("README.md").block("Settings", "ini")
SETTINGS = Document("docs/reference/settings.md")
OF_CELERY = SETTINGS.block("Settings of Celery", "ini")
OF_THE_WORKER = SETTINGS.block("Settings of the worker alone", "ini")
OPTIONS = {"visibility_timeout": 7200, "queue_name_prefix": "123"}


def test_settings_are_read_as_they_say(write_ini: Callable[..., Path]) -> None:
    """The settings of Celery are known, and coerced; those of the README are here."""
    settings = get_settings(str(write_ini(OF_CELERY)), "app:main")
    assert app_settings(OF_README).items() <= settings.items()
    assert extract_celery_settings(settings) == {
        "broker_url": "redis://localhost/1",
        "result_backend": "redis://localhost/1",
        "task_always_eager": False,
        "result_expires": 3600.0,
        "imports": ["myapp.tasks", "myapp.reports"],
        "task_routes": {"myapp.tasks.resize": {"queue": "images"}},
        "broker_transport_options": OPTIONS,
    }


def test_settings_of_the_worker_alone(write_ini: Callable[..., Path]) -> None:
    """The web process has the broker of the worker's section."""
    use = "[app:main]\nuse = call:exampleapp:main\nexample.setting = one\n"
    ini = write_ini(OF_THE_WORKER.replace("[app:main]\n", use))
    for uri in f"{ini}#main", str(ini):
        assert get_celery_app(uri).conf.broker_url == "redis://"


def test_own_settings() -> None:
    """The table has the settings of this package, all of them and no other."""
    rows = re.findall(r"^\| `pyramid_tasks\.(\w+)` \|", SETTINGS.text, re.MULTILINE)
    assert sorted(rows) == sorted(OWN_SETTINGS)
