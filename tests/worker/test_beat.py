"""What beat says before it queues anything."""

from __future__ import annotations

import logging

import pytest
from celery import signals

from pyramid_tasks.worker.beat import check_beat

NEXT = "beat queues often (task report), in 0:00:30."


@pytest.mark.parametrize(
    ("schedules", "expected"),
    [({}, "The schedule is empty"), ({"often": 30.0, "nightly": 86400.0}, NEXT)],
)
def test_first_line(schedules, expected, config, tmp_path, monkeypatch, caplog):
    """Beat names the task that it queues next."""
    monkeypatch.chdir(tmp_path)  # where it keeps the times of the last runs
    # Or Celery has an entry of its own, which removes old results.
    config.add_settings({"celery.result_expires": 0})
    config.register_task(lambda request: None, name="report")
    for name, seconds in schedules.items():
        config.add_periodic_task(seconds, "report", name=name)
    app = config.make_celery_app()
    app.loader.connect_beat()
    service = app.Beat().Service(app=app)
    with caplog.at_level(logging.INFO, "celery.beat"):
        signals.beat_init.send(sender=service)
    service.scheduler.close()
    (line,) = [each for each in caplog.messages if "queue" in each]
    assert expected in line


def test_scheduler_without_a_file():
    """Where another scheduler than Celery's runs, no folder has to be there."""
    check_beat("celery.beat:Scheduler", "/nowhere/schedule")
