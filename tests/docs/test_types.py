"""The snippet about types; ``test_packaging.py`` runs mypy over it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare

SNIPPET = Document("docs/howto/types.md").block("Check types", "python")


def test_types(import_snippets: Callable[..., ModuleType]) -> None:
    """What type checkers are to find is an error when it runs, too."""
    snippets = import_snippets(SNIPPET)
    with Configurator(settings={"celery.broker_url": "memory://"}) as config:
        config.set_request_factory(snippets.AppRequest)
        config.include("pyramid_tasks")
        config.scan(snippets)
    missing = pytest.raises(TypeError, match="missing .* argument: 'word'")
    with prepare(registry=config.registry) as env, missing:
        snippets.typed_view(env["request"], env["request"])
