"""The snippets about retries, time limits and cancelling."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from unittest.mock import Mock

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from documents import Document
from pyramid.config import Configurator
from pyramid.scripting import prepare
from support import wait_until

from pyramid_tasks.testing import capture, start_worker

SNIPPETS = Document("docs/howto/retries.md").blocks("python")


@pytest.fixture
def config(import_snippets: Callable[..., ModuleType]) -> Configurator:
    """Return an application whose requests do the work of the snippets."""
    snippets = import_snippets(*SNIPPETS)
    settings = {
        "celery.broker_url": "memory://",
        "celery.result_backend": "cache+memory://",
    }
    with Configurator(settings=settings, package=snippets) as config:
        config.include("pyramid_tasks")
        config.scan(snippets)
        for name, results in {
            "download": [OSError, OSError, "page"],
            "payment_state": ["pending", "paid"],
            "build_report": [SoftTimeLimitExceeded],
        }.items():
            work = Mock(side_effect=results)
            config.add_request_method(lambda _, *args, work=work: work(*args), name)
    return config


def test_retries_and_limits(config: Configurator) -> None:
    """A task runs until it succeeds, and catches the limit of its time."""
    snippets = config.package
    with prepare(registry=config.registry) as env, capture(config.registry) as deferred:
        request = env["request"]
        request.defer_task(snippets.fetch, "https://example.com")
        request.defer_task(snippets.check_payment, 7)
        request.defer_task(snippets.build_report, 7)
        assert deferred.run() == ["page", "paid", "too long"]


@pytest.mark.acceptance
def test_cancel(config: Configurator) -> None:
    """A task that is cancelled is not run."""
    snippets = config.package
    with (
        prepare(registry=config.registry) as env,
        start_worker(config.registry),
    ):
        request = env["request"]
        task_id = snippets.start_report(request)["task"]
        request.matchdict = {"id": task_id}
        assert snippets.cancel_report(request) == {"cancelled": task_id}
        result = request.defer_task(snippets.fetch, "https://example.com")
        assert result.get(timeout=30) == "page"
        wait_until(lambda: request.get_task_result(task_id).state == "REVOKED")
