"""The plugin of pytest that runs Celery's own tests, and records their outcomes.

The variables of the environment ``CELERY_TESTS_WITH`` (``celery`` or ``pyramid_tasks``)
and ``CELERY_TESTS_FOLDER`` say what to test, and where to record it.
"""

import json
import os
import threading
from pathlib import Path

import pytest
from celery.contrib.testing import worker

from celery_tests.workers import start_worker

outcomes: dict[str, str] = {}


def pytest_configure():
    worker.start_worker = start_worker
    if os.environ["CELERY_TESTS_WITH"] == "pyramid_tasks":
        from celery_tests.substitution import substitute

        substitute()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # Celery's tests fail when a thread is left, also of a test that ran long before.
    if hasattr(item.session, "_threads_at_startup"):
        item.session._threads_at_startup = [
            thread
            for thread in threading.enumerate()
            if not thread.name.startswith("pytest_timeout ")
        ]


def pytest_collectreport(report):
    if report.failed:
        outcomes[report.nodeid] = "failed"


def pytest_collection_finish(session):
    if session.config.option.collectonly:
        outcomes.update((item.nodeid, "collected") for item in session.items)


def pytest_runtest_logreport(report):
    # A test can report several times: its setup, its parts, its teardown.
    known = outcomes.get(report.nodeid)
    if known != "failed":
        is_news = known is None or report.outcome != "passed"
        outcomes[report.nodeid] = report.outcome if is_news else known


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # a process of pytest-xdist
        record = Path(os.environ["CELERY_TESTS_FOLDER"], "outcomes.json")
        record.write_text(json.dumps(outcomes))
