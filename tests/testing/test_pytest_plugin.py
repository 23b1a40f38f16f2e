"""The fixtures, in test suites as users have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import measured, run

pytestmark = pytest.mark.acceptance

APP = """
import pytest
from pyramid.config import Configurator

def add(request, x, y):
    return x + y

def environ(request):
    return [request.environ.get(key) for key in ("tm.manager", "app.dbsession")]

def view(request):
    return request.defer_task(add, 2, 3).id

@pytest.fixture(scope="session")
def app():
    settings = {"celery.broker_url": "redis://localhost:1/0"}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.register_task(add)
        config.register_task(environ)
        config.add_view(view, renderer="string")
        return config.make_wsgi_app()
"""

TESTS = """
import pytest
from pyramid.scripting import prepare
from webtest import TestApp
from conftest import add, environ

@pytest.mark.parametrize("number", range(2))
def test_captured(app, deferred_tasks, number):
    TestApp(app).get("/")
    deferred_tasks.assert_deferred(add, 2, 3)
    assert deferred_tasks.run() == [5]

def test_worker(app, tasks_worker):
    task_id = TestApp(app).get("/").text
    assert tasks_worker.app.AsyncResult(task_id).get(timeout=20) == 5

@pytest.fixture
def tm():
    return "manager"

@pytest.fixture
def dbsession():
    return "session"

def test_transaction_of_the_test(tm, dbsession, deferred_tasks, app):
    prepare(registry=app.registry)["request"].defer_task(environ)
    assert deferred_tasks.run() == [["manager", "session"]]

def test_transaction_of_the_tasks(tm, deferred_tasks, app):
    prepare(registry=app.registry)["request"].defer_task(environ)
    assert deferred_tasks.run() == [[None, None]]

def test_failure(deferred_tasks):
    deferred_tasks.assert_deferred(add, 1, 1)
"""


def run_pytest(folder: Path, *options: str, conftest: str = "", tests: str = TESTS):
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    command = ("pytest", "-p", "no:cacheprovider", *options)
    return run(*command, cwd=folder, **measured())


def test_fixtures(tmp_path):
    """An application in the fixture app has its tasks captured, run, or worked off.

    A test that has the transaction and the session of Pyramid's cookiecutter gives
    both to its tasks.
    """
    done = run_pytest(tmp_path, conftest=APP)
    for text in "5 passed", "1 failed", "add(1, 1) was not deferred.":
        assert text in done.stdout
    assert "pyramid_tasks/testing" not in done.stdout


def test_no_application(tmp_path):
    """Without an application the fixture says how to have one."""
    messages = {
        "": "There is no fixture app.",
        "return 5": "The fixture app, 5, has no registry.",
        "request.getfixturevalue('no')": "fixture 'no' not found",
    }
    for number, body in enumerate(messages):
        app = f"\n\n@pytest.fixture\ndef app(request):\n    {body}" if body else ""
        test = f"import pytest{app}\n\ndef test_it(deferred_tasks): ..."
        (tmp_path / f"test_{number}.py").write_text(test)
    done = run_pytest(tmp_path, tests="")
    assert "3 errors" in done.stdout
    assert all(message in done.stdout for message in messages.values())
    assert done.stdout.count("a fixture tasks_registry that") >= 2
    assert "pytest.fail(" not in done.stdout  # a line of this package


def test_imports_are_light(tmp_path):
    """A pytest run that uses no fixture of it imports neither Pyramid nor Celery."""
    tests = """
import sys

def test_it():
    assert "pyramid_tasks.pytest_plugin" in sys.modules
    heavy = {"pyramid", "celery", "kombu", "transaction", "sqlalchemy"}
    assert not heavy & sys.modules.keys()
"""
    # Celery's own plugin, where it is installed, imports Celery.
    done = run_pytest(tmp_path, "-p", "no:celery", tests=tests)
    assert "1 passed" in done.stdout, done.stdout


def test_registry_of_a_test_suite(tmp_path):
    """A test suite without a WSGI application gives the registry itself.

    The fixtures of Celery's own plugin work beside these.
    """
    tests = """
import pytest
from pyramid import testing
from pyramid.request import apply_request_extensions

@pytest.fixture
def tasks_registry():
    with testing.testConfig() as config:
        config.include("pyramid_tasks")
        config.register_task(lambda request: 5, name="five")
        yield config.registry

def test_it(deferred_tasks):
    request = testing.DummyRequest()
    apply_request_extensions(request)
    request.defer_task("five")
    assert deferred_tasks.run() == [5]

def test_celery(celery_app, celery_worker):
    @celery_app.task
    def double(x):
        return 2 * x

    celery_worker.reload()
    assert double.delay(4).get(timeout=20) == 8
"""
    done = run_pytest(tmp_path, "-p", "celery.contrib.pytest", tests=tests)
    assert "2 passed" in done.stdout, done.stdout
