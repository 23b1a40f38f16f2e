"""What beat says before it queues anything."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from celery import signals
from pyramid.config import Configurator

from pyramid_tasks.registry import get_tasks

TASK = "report"


@pytest.mark.parametrize(
    ("schedules", "expected"),
    [
        ({}, "The schedule is empty"),
        (
            {"often": 30.0, "nightly": 86400.0},
            "beat queues often (task report), in 0:00:30.",
        ),
    ],
)
def test_first_line(
    schedules: dict[str, float],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Beat names the task that it queues next."""
    monkeypatch.chdir(tmp_path)  # where it keeps the times of the last runs
    # Or Celery has an entry of its own, which removes old results.
    settings = {"celery.broker_url": "memory://", "celery.result_expires": 0}
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.register_task(lambda request: None, name=TASK)
        for name, seconds in schedules.items():
            config.add_periodic_task(seconds, TASK, name=name)
    app = get_tasks(config.registry).app
    app.loader.connect_beat()
    service = app.Beat().Service(app=app)
    with caplog.at_level(logging.INFO, "celery.beat"):
        signals.beat_init.send(sender=service)
    service.scheduler.close()
    (line,) = [each for each in caplog.messages if "queue" in each]
    assert expected in line
