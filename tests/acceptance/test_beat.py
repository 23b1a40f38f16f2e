"""Schedules, of the ini and of the application, make a worker run tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import APPS, QUICK, Process, ini_form, start, start_worker

pytestmark = pytest.mark.acceptance

SCHEDULE = """
[celerybeat:from-the-ini]
task = exampleapp.note
schedule = 0.2
args = ["%(here)s/noted"]
kwargs = {"text": "ini"}

[celerybeat:older-form]
task = exampleapp.note
type = timedelta
schedule = {"seconds": 0.2}
args = ["%(here)s/noted"]
kwargs = {"text": "older"}

[celerybeat:cron]
task = exampleapp.note
schedule = 0 3 * * *
args = ["%(here)s/noted"]
kwargs = {"text": "at night"}
"""

#: What config.add_periodic_task() of the application queues.
APP = "example.periodic = %(here)s/noted"


def wait_until_noted(folder: Path, process: Process) -> None:
    """Wait until each schedule has run its task in a worker."""
    noted = folder / "noted"
    names = {"ini", "older", "application"}
    process.wait_until(
        lambda: noted.exists() and set(noted.read_text().split()) >= names
    )
    assert set(noted.read_text().split()) == names


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_beat_beside_a_worker(
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """``celery beat`` queues what the ini and the application schedule."""
    write_example(broker=redis_queue, app=APP, more=SCHEDULE)
    with (
        start_worker("config.ini", "--pool=solo", *QUICK, cwd=tmp_path),
        start(
            *ini_form("config.ini", "beat", "-l", "INFO", after=after), cwd=tmp_path
        ) as beat,
    ):
        wait_until_noted(tmp_path, beat)
        assert "Sending due task from-the-ini (exampleapp.note)" in beat.output
        assert "Sending due task cron" not in beat.output


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_beat_in_a_worker(
    write_example: Callable[..., Path],
    redis_queue: dict[str, str],
    tmp_path: Path,
    *,
    after: bool,
) -> None:
    """``celery worker -B`` queues and runs what is scheduled."""
    write_example(broker=redis_queue, app=APP, more=SCHEDULE)
    options = ("-B", "--pool=threads", "--loglevel=INFO", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=after)
    with start(*command, cwd=tmp_path) as worker:
        wait_until_noted(tmp_path, worker)
        assert worker.popen.poll() is None


def test_beat_keeps_a_schedule_of_the_application(
    write_example: Callable[..., Path], redis_queue: dict[str, str], tmp_path: Path
) -> None:
    """A crontab that names the application stays in beat's file; it is loaded once."""
    (tmp_path / "nightly.py").write_text(
        "from celery.schedules import crontab\n"
        "def includeme(config):\n"
        "    print('LOADING', flush=True)\n"
        "    app = config.registry['pyramid_tasks'].app\n"
        "    for hour in '2', '3':\n"
        "        cron = crontab(hour=hour, minute=0, app=app)\n"
        "        config.add_periodic_task(cron, 'exampleapp.note', '..', name=hour)\n"
    )
    included = "pyramid.includes = pyramid_tasks nightly"
    ini = write_example(broker=redis_queue, app=f"{APP}\n{included}")
    command = ("beat", "--schedule=kept", "--loglevel=DEBUG")
    for _ in "12":
        with start(
            *("celery", "-A", "pyramid_tasks.loaders", "--ini", ini, *command),
            cwd=tmp_path,
            PYTHONPATH=f"{APPS}:{tmp_path}",
        ) as beat:
            beat.wait_for("<crontab: 0 3 * * *")
            assert beat.stop() == 0
            assert beat.output.count("LOADING") == 1
            assert "Removing corrupted schedule" not in beat.output
