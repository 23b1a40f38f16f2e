"""The snippets about mail, with a mailer that keeps what it sends."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest
from documents import Document
from pyramid.request import Request
from pyramid.scripting import prepare

from pyramid_tasks.testing import capture

pytest.importorskip("pyramid_mailer")
pytest.importorskip("pyramid_tm")

PAGE = Document("docs/howto/mail.md")
HEADING = "Send mail from a task, with templates"
INI, CODE, TEMPLATE = (PAGE.block(HEADING, each) for each in ("ini", "python", "jinja"))

#: pyramid_jinja2 looks for the package that makes the Configurator.
MAIN = """

def configure(settings):
    from pyramid.config import Configurator

    with Configurator(settings=settings) as config:
        config.add_route("order", "/orders/{id}")
        config.scan("myapp")
    return config
"""


def test_mail(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mail of the task has a link to the site that the view was asked on."""
    (tmp_path / "myapp" / "templates").mkdir(parents=True)
    (tmp_path / "myapp" / "__init__.py").write_text(CODE + MAIN)
    (tmp_path / "myapp" / "templates" / "invoice.jinja2").write_text(TEMPLATE)
    ini = ConfigParser(interpolation=None)
    ini.read_string(INI)
    settings = {**ini["app:main"], "celery.broker_url": "memory://"}
    settings["pyramid.includes"] = settings["pyramid.includes"].replace(
        "pyramid_mailer", "pyramid_mailer.debug"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "myapp", raising=False)
    myapp = import_module("myapp")
    config = myapp.configure(settings)
    request = Request.blank("/?address=anna@example.com", base_url="https://a.example")
    with prepare(request, config.registry), capture(config.registry) as deferred:
        with request.tm:
            assert myapp.create_order(request) == {"order": 7}
        deferred.run()
    (mail,) = (tmp_path / "mail").iterdir()
    assert "To: anna@example.com" in mail.read_text()
    assert "https://a.example/orders/7" in mail.read_text()
