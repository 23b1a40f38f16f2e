"""The reference has every public name; ``make docs`` finds those that are not there."""

from __future__ import annotations

import re

import pytest
from documents import ROOT
from pyramid.config import Configurator
from pyramid.interfaces import IRequestExtensions

import pyramid_tasks
from pyramid_tasks import pytest_plugin, testing
from pyramid_tasks.interfaces import ITaskDeriverInfo

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
        config.include("pyramid_tasks.contrib.pyramid_tm")
    directives = set(config.registry._directives)
    extensions = config.registry.getUtility(IRequestExtensions)
    methods = {*extensions.methods, *extensions.descriptors}
    assert (directives | methods) - DESCRIBED == {"delay_task"}
    assert "`request.delay_task`" in "\n".join(PAGES)
