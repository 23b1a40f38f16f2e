"""Schedules, of the ini and of the application, make a worker run tasks."""

import pytest
from support import APPS, QUICK, ini_form, start, start_worker

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


@pytest.fixture
def wait_until_noted(write_example, redis_queue, tmp_path):
    """Write the ini; return what waits until each schedule has run in a worker."""
    write_example(broker=redis_queue, app=APP, more=SCHEDULE)

    def wait_until_noted(process):
        noted = tmp_path / "noted"
        names = {"ini", "older", "application"}
        process.wait_until(
            lambda: noted.exists() and set(noted.read_text().split()) >= names
        )
        assert set(noted.read_text().split()) == names

    return wait_until_noted


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_beat_beside_a_worker(wait_until_noted, tmp_path, after):
    """``celery beat`` queues what the ini and the application schedule."""
    command = ini_form("config.ini", "beat", "-l", "INFO", after=after)
    with (
        start_worker("config.ini", "--pool=solo", *QUICK, cwd=tmp_path),
        start(*command, cwd=tmp_path) as beat,
    ):
        wait_until_noted(beat)
        assert "Sending due task from-the-ini (exampleapp.note)" in beat.output
        assert "Sending due task cron" not in beat.output


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_beat_in_a_worker(wait_until_noted, tmp_path, after):
    """``celery worker -B`` queues and runs what is scheduled."""
    options = ("-B", "--pool=threads", "--loglevel=INFO", *QUICK)
    command = ini_form("config.ini", "worker", *options, after=after)
    with start(*command, cwd=tmp_path) as worker:
        wait_until_noted(worker)
        assert worker.popen.poll() is None


def test_beat_keeps_a_schedule_of_the_application(write_example, redis_queue, tmp_path):
    """A crontab that names the application stays in beat's file; it is loaded once."""
    (tmp_path / "nightly.py").write_text(
        "from celery.schedules import crontab\n"
        "def includeme(config):\n"
        "    print('LOADING', flush=True)\n"
        "    app = config.registry['pyramid_tasks'].app\n"
        "    for hour in '2', '3':\n"
        "        cron = crontab(hour=hour, minute=0, app=app)\n"
        "        args = '.', '.'\n"
        "        config.add_periodic_task(cron, 'exampleapp.note', args, name=hour)\n"
    )
    # Only these, so that beat sleeps when it is stopped.
    included = "pyramid.includes = pyramid_tasks nightly"
    write_example(broker=redis_queue, app=included)
    command = ini_form("config.ini", "beat", "--schedule=kept", "--loglevel=DEBUG")
    for _ in "12":
        path = f"{APPS}:{tmp_path}"
        with start(*command, cwd=tmp_path, PYTHONPATH=path) as beat:
            beat.wait_for("Waking up in")
            assert "<crontab: 0 3 * * *" in beat.output
            assert beat.stop() == 0
            assert beat.output.count("LOADING") == 1
            assert "Removing corrupted schedule" not in beat.output
