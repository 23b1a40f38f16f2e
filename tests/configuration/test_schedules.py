"""The forms in which a schedule is written as text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

from pyramid_tasks.configuration.beat_schedule import (
    ScheduleError,
    parse_schedule,
    read_schedule,
)

EACH_FIELD = crontab(
    minute="30", hour="7,19", day_of_month="1-7", month_of_year="1", day_of_week="fri"
)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("0 3 * * *", crontab(minute="0", hour="3")),
        ("*/15 * * * *", crontab(minute="*/15")),
        ("  0   3 * *   * ", crontab(minute="0", hour="3")),
        ("0\n3\n*\n*\n*", crontab(minute="0", hour="3")),
        ("30 7,19 1-7 1 fri", EACH_FIELD),
        ("0 0 * * mon-fri", crontab(minute="0", hour="0", day_of_week="mon-fri")),
        *(("30", 30), ("0.5", 0.5), (" 3600 ", 3600), ("1e3", 1000)),
    ],
)
def test_schedule(text, schedule):
    """A schedule is a cron expression of five fields, or the seconds between runs."""
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize(
    ("text", "type_", "schedule"),
    [
        ("{}", "crontab", crontab()),
        ('{"minute": 0, "hour": "3"}', "crontab", crontab(minute=0, hour="3")),
        ('{"day_of_week": "mon"}', "crontab", crontab(day_of_week="mon")),
        ('{"minutes": 5}', "timedelta", timedelta(minutes=5)),
        ('{"days": 1, "hours": 2.5}', "timedelta", timedelta(days=1, hours=2.5)),
        ("10", "integer", 10),
    ],
)
def test_json_of_older_packages(text, type_, schedule):
    """With a type, a schedule is the JSON that older packages read."""
    assert parse_schedule(text, type_) == schedule


@pytest.mark.parametrize(
    ("text", "type_", "sentence"),
    [
        ("daily", None, "schedule 'daily' is not a cron expression of five fields or"),
        ("* * * *", None, "a number of seconds"),
        ("* * * * * *", None, "a cron expression of five fields"),
        ("99 * * * *", None, "schedule '99 * * * *' is not a cron expression"),
        ("* 25 * * *", None, "25"),
        ("* * * * noday", None, "noday"),
        ("1,,2 * * * *", None, "empty part"),
        ("", None, "schedule '' is not a cron expression"),
        ("0", None, "not a positive number"),
        ("-5", None, "not a positive number"),
        ("inf", None, "not a positive number"),
        ("99999999999999999", None, "a number of seconds (too large)"),
        ('{"days": 9999999999}', "timedelta", "is not JSON for type = timedelta"),
        ("nan", None, "not a positive number"),
        ("@daily", None, "'@daily'"),
        ("1 day", None, "'1 day'"),
        ('{"minute": 0', "crontab", "is not JSON for type = crontab"),
        ("0 3 * * *", "crontab", "is not JSON for type = crontab"),
        ('{"minutes": 0}', "crontab", "minutes"),
        ('{"minute": 99}', "crontab", "99"),
        ('["minute"]', "crontab", "is not JSON for type = crontab"),
        ('{"fortnights": 1}', "timedelta", "fortnights"),
        ('{"days": "one"}', "timedelta", "is not JSON for type = timedelta"),
        ("5", "timedelta", "is not JSON for type = timedelta"),
        ("{}", "integer", "is not JSON for type = integer"),
        ("0", "integer", "not a positive number"),
        ("x", "integer", "is not JSON for type = integer"),
        ("{}", "timedelta", "not a positive number"),
        ('{"seconds": 0}', "timedelta", "not a positive number"),
        ('{"days": -1}', "timedelta", "not a positive number"),
        ("10", "solar", "type 'solar' is unknown; write type ="),
        ("10", "", "type '' is unknown; write type = crontab, timedelta or integer"),
    ],
)
def test_what_is_no_schedule(text, type_, sentence):
    """What cannot be read is shown, with what was expected."""
    with pytest.raises(ValueError, match="schedule|type") as caught:
        parse_schedule(text, type_)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"task": "a", "schedule": timedelta(seconds=-1)},
        {"task": "a", "schedule": schedule(0)},
        ScheduleEntry(name="x", task="a", schedule=schedule(0)),
    ],
)
def test_object_that_is_due_all_the_time(entry):
    """Beat would send without a pause."""
    with pytest.raises(ScheduleError, match="'x' that cannot be read: .* is due all"):
        read_schedule({"x": entry})


def test_number_of_another_type():
    """The type of an entry counts for a number too, in JSON as in a section."""
    entries = {"x": {"task": "a", "schedule": 5, "type": "crontab"}}
    with pytest.raises(ScheduleError, match="'5' is not JSON for type = crontab"):
        read_schedule(entries)
    entries["x"]["type"] = "integer"
    assert read_schedule(entries)["x"]["schedule"] == 5


def test_entry_as_beat_has_it():
    """It stays what it is."""
    entry = ScheduleEntry(name="x", task="a", schedule=schedule(5))
    assert read_schedule({"x": entry})["x"] is entry
