"""The settings of the page about them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from documents import Document
from plaster import get_settings

from pyramid_tasks.configuration.own_settings import OWN_SETTINGS
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.settings import extract_celery_settings

PAGE = Document("docs/reference/settings.md")
OF_CELERY = PAGE.block("Settings of Celery", "ini")
OF_THE_WORKER = PAGE.block("Settings of the worker alone", "ini")


def test_settings_are_read_as_they_say(write_ini: Callable[..., Path]) -> None:
    """The settings of Celery are all known, and coerced."""
    settings = get_settings(str(write_ini(OF_CELERY)), "app:main")
    assert extract_celery_settings(settings) == {
        "broker_url": "redis://localhost/1",
        "task_always_eager": False,
        "result_expires": 3600.0,
        "imports": ["myapp.tasks", "myapp.reports"],
        "task_routes": {"myapp.tasks.resize": {"queue": "images"}},
        "broker_transport_options": {
            "visibility_timeout": 7200,
            "queue_name_prefix": "123",
        },
    }


def test_settings_of_the_worker_alone(write_ini: Callable[..., Path]) -> None:
    """The web process has the broker of the worker's section."""
    use = "[app:main]\nuse = call:exampleapp:main\nexample.setting = one\n"
    ini = write_ini(OF_THE_WORKER.replace("[app:main]\n", use))
    for section in "main", "celery":
        url = f"{ini}#{section}" if section == "main" else str(ini)
        assert get_celery_app(url).conf.broker_url == "redis://"


def test_own_settings() -> None:
    """The table has the settings of this package, all of them and no other."""
    rows = re.findall(r"^\| `pyramid_tasks\.(\w+)` \|", PAGE.text, re.MULTILINE)
    assert sorted(rows) == sorted(OWN_SETTINGS)
