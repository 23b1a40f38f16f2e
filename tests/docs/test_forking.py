"""The snippet about connections and forked processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from documents import Document
from pyramid.config import Configurator
from sqlalchemy import Engine, create_engine

from pyramid_tasks.worker.forking import leave_to_parent

(SNIPPET,) = Document("docs/howto/forking.md").blocks("python")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """Return the engine that the application has in a module."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    monkeypatch.setitem(sys.modules, "myapp.db", SimpleNamespace(engine=engine))
    return engine


def test_forking(import_snippets: Callable[..., ModuleType], engine: Engine) -> None:
    """What the snippet hands over is what a forked process leaves to its parent."""
    pool = engine.pool
    snippet = import_snippets(SNIPPET, make_http_session=lambda: "new")
    with Configurator() as config:
        config.include("pyramid_tasks")
        config.include(snippet.be_fork_safe)
    assert leave_to_parent(config.registry) == [pool]
    assert config.registry["http"] == "new"
