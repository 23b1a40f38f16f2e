"""What the tests of the documents share."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documents import ConfigureSnippets, Document, ImportSnippets, WriteApp
from pyramid.config import Configurator
from support import as_ini

#: The end of an application that is a module.
MAIN = """

def main(global_config, **settings):
    from pyramid.config import Configurator

    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan()
        return config.make_wsgi_app()
"""


@pytest.fixture
def import_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImportSnippets:
    """Return a function that imports blocks of Python as one module.

    Its keyword arguments are what the snippets refer to without having it.
    """

    def import_snippets(*texts: str, **names: object) -> ModuleType:
        (tmp_path / "snippets.py").write_text("\n".join(texts))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "snippets", raising=False)
        module = importlib.import_module("snippets")
        vars(module).update(names)
        return module

    return import_snippets


@pytest.fixture
def configure_snippets(import_snippets: ImportSnippets) -> ConfigureSnippets:
    """Return a function that configures an application of blocks of Python.

    They are its ``package``. Its includes may be theirs: ``.`` and ``.name``.
    """

    def configure(
        *texts: str, includes: str = "", settings: Mapping[str, object] = {}, **names
    ) -> Configurator:
        backends = {
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
        }
        snippets = import_snippets(*texts, **names)
        config = Configurator(settings=backends | settings, package=snippets)
        for include in f"pyramid_tasks {includes}".split():
            config.include(include)
        config.scan(snippets)
        config.commit()
        return config

    return configure


@pytest.fixture
def write_app(tmp_path: Path) -> WriteApp:
    """Return a function that writes ``myapp.py`` and ``config.ini``.

    It adds what is missing to the section of the application, and returns the options
    of what runs there.
    """

    def write(code: str, ini: str, broker: Mapping[str, str] = {}) -> dict[str, Any]:
        (tmp_path / "myapp.py").write_text(code + MAIN)
        app = f"[app:main]\nuse = call:myapp:main\n{as_ini(broker)}\n"
        (tmp_path / "config.ini").write_text(ini.replace("[app:main]\n", app))
        return {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}

    return write


@pytest.fixture
def quickstart(tmp_path: Path) -> dict[str, Any]:
    """Write the README's quickstart; return the options of what runs there."""
    script = Document("README.md").block("Quickstart", "sh")
    for name, saved in {"hello.py": "hello.py", "hello.ini": "config.ini"}.items():
        text = re.search(rf"cat > {name} <<'END'\n(.*?)\nEND", script, re.DOTALL)[1]
        (tmp_path / saved).write_text(text)
    for name in ("messages", "control", "results"):
        (tmp_path / name).mkdir()
    return {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}
