"""The snippet about events, and the tables of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType

import pytest
from documents import Document
from pyramid.config import Configurator

import pyramid_tasks
from pyramid_tasks import events
from pyramid_tasks.registry import get_tasks

PAGE = Document("docs/howto/events.md")
SNIPPET = PAGE.block("React to events of tasks and processes", "python")


def test_subscriber(
    import_snippets: Callable[..., ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """The subscriber of the snippet tells of a task that fails."""

    def fail(request: object) -> None:
        raise ValueError("no")

    settings = {
        "celery.broker_url": "memory://",
        "support.mail": "support@example.com",
    }
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.scan(import_snippets(SNIPPET))
        config.register_task(fail, name="fail")
    get_tasks(config.registry).app.tasks["fail"].apply()
    assert capsys.readouterr().out == (
        "To support@example.com: fail: ValueError('no')\n"
    )


@pytest.mark.parametrize("name", ["docs/howto/events.md", "docs/reference/events.md"])
def test_all_events(name: str) -> None:
    """A page about events has them all, and no other."""
    named = re.findall(
        r"^(?:\| `|\.\. autoclass:: )(\w+)", Document(name).text, re.MULTILINE
    )
    assert set(named) == {
        each for each in pyramid_tasks.__all__ if hasattr(events, each)
    }
