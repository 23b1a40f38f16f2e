"""Fixtures for the tests of applications.

Every pytest of the environment imports this module, also for the tests of other
projects. So the module must only import modules that pytest has imported already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.worker import WorkController
    from pyramid.registry import Registry

    from .testing import Deferred

_REMEDY = (
    "Have one that returns what config.make_wsgi_app() does, or have a fixture "
    "tasks_registry that returns the registry of the application."
)


@pytest.fixture
def tasks_registry(request: pytest.FixtureRequest) -> Registry:
    """The registry of the application: by default, of what the fixture app returns.

    Override it where there is no such fixture, or it returns something else.
    """
    try:
        app: Any = request.getfixturevalue("app")
    except pytest.FixtureLookupError as error:
        if error.argname != "app":
            raise
        pytest.fail(f"There is no fixture app. {_REMEDY}", pytrace=False)
    registry = getattr(app, "registry", None)
    if registry is None:
        pytest.fail(
            f"The fixture app, {app!r}, has no registry. {_REMEDY}", pytrace=False
        )
    return registry


@pytest.fixture
def deferred_tasks(
    request: pytest.FixtureRequest, tasks_registry: Registry
) -> Iterator[Deferred]:
    """The tasks that the application defers, not sent. See pyramid_tasks.testing.

    A test that uses the fixtures ``tm`` and ``dbsession`` of Pyramid's cookiecutter has
    one transaction, which never commits. The tasks run in this transaction too.
    """
    from .testing import capture

    environ: dict[str, Any] = {}
    if {"tm", "dbsession"} <= set(request.fixturenames):
        environ["tm.active"] = True
        environ["tm.manager"] = request.getfixturevalue("tm")
        environ["app.dbsession"] = request.getfixturevalue("dbsession")
    with capture(tasks_registry, environ) as deferred:
        yield deferred


@pytest.fixture
def tasks_worker(tasks_registry: Registry) -> Iterator[WorkController]:
    """A worker of the application, in a thread. See pyramid_tasks.testing."""
    from .testing import start_worker

    with start_worker(tasks_registry) as worker:
        yield worker
