"""Schedules and routes, as they are written in an ini file."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.schedules import crontab

from pyramid_tasks.configuration.schedules import parse_schedule
from pyramid_tasks.exceptions import LoadError
from pyramid_tasks.loaders import get_celery_app

APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
"""


@pytest.fixture
def load(write_ini):
    """Return a function that loads an application with sections of its own."""

    def load(*sections):
        return get_celery_app(str(write_ini("\n".join([APP, *sections]))))

    return load


@pytest.fixture
def refused(load, tmp_path):
    """Return a function that loads sections and gives the sentence about them."""

    def refused(*sections):
        with pytest.raises(LoadError) as caught:
            load(*sections)
        assert caught.value.config_uri == str(tmp_path / "config.ini")
        return str(caught.value).removeprefix(f"{tmp_path}/")

    return refused


# The forms of a schedule.


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("0 3 * * *", crontab(minute="0", hour="3")),
        ("*/15 * * * *", crontab(minute="*/15")),
        ("  0   3 * *   * ", crontab(minute="0", hour="3")),
        ("0\n3\n*\n*\n*", crontab(minute="0", hour="3")),
        (
            "30 7,19 1-7 1 mon-fri",
            crontab(
                minute="30",
                hour="7,19",
                day_of_month="1-7",
                month_of_year="1",
                day_of_week="mon-fri",
            ),
        ),
        ("0 0 * * sun", crontab(minute="0", hour="0", day_of_week="sun")),
    ],
)
def test_cron_expression(text, schedule):
    """Five fields are minute, hour, day of month, month and day of week."""
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("0.5", 0.5), (" 3600 ", 3600), ("1e3", 1000)]
)
def test_seconds(text, seconds):
    """A number is the seconds between two runs."""
    assert parse_schedule(text) == seconds


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
        ("", None, "schedule '' is not a cron expression"),
        ("0", None, "not a positive number"),
        ("-5", None, "not a positive number"),
        ("inf", None, "not a positive number"),
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
        (
            "10",
            "solar",
            "type 'solar' is unknown; write type = crontab, timedelta or integer",
        ),
        ("10", "", "type '' is unknown"),
    ],
)
def test_what_is_no_schedule(text, type_, sentence):
    """What cannot be read is shown, with what was expected."""
    with pytest.raises(ValueError, match="schedule|type") as caught:
        parse_schedule(text, type_)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("fields", ["{}", '{"seconds": 0}', '{"days": -1}'])
def test_no_time_between_two_runs(fields):
    """A timedelta that would have a task run without end is refused."""
    with pytest.raises(ValueError, match="not a positive number"):
        parse_schedule(fields, "timedelta")


# [celerybeat:NAME]


def test_beat_section(load):
    """A section is an entry of the schedule of Celery beat."""
    app = load(
        """
[celerybeat:nightly]
task = exampleapp.add
schedule = 0 3 * * *
args = [1]
kwargs = {"y": 2}
options = {"expires": 3600, "queue": "slow"}
"""
    )
    assert app.conf.beat_schedule == {
        "nightly": {
            "task": "exampleapp.add",
            "schedule": crontab(minute="0", hour="3"),
            "args": [1],
            "kwargs": {"y": 2},
            "options": {"expires": 3600, "queue": "slow"},
        }
    }


def test_beat_section_is_short(load):
    """A task and a schedule are enough, and there can be several sections."""
    app = load(
        "[celerybeat:a]\ntask = exampleapp.threadlocals\nschedule = 5",
        "[celerybeat:b]\ntask = exampleapp.threadlocals\ntype = integer\nschedule = 6",
    )
    assert app.conf.beat_schedule == {
        "a": {"task": "exampleapp.threadlocals", "schedule": 5},
        "b": {"task": "exampleapp.threadlocals", "schedule": 6},
    }


def test_beat_section_adds_to_the_settings(write_ini):
    """The schedule of the settings stays beside that of the sections."""
    text = """
celery.beat_schedule = {"other": {"task": "exampleapp.add", "schedule": 60}}
[celerybeat:mine]
task = exampleapp.add
schedule = 5
args = [1, 2]
"""
    app = get_celery_app(str(write_ini(APP + text)))
    assert sorted(app.conf.beat_schedule) == ["mine", "other"]


def test_beat_section_with_variables(write_ini):
    """Values are interpolated, and [DEFAULT] adds no keys."""
    text = """
[celerybeat:mine]
task = exampleapp.add
schedule = %(every)s
args = [1, 2]
"""
    ini = write_ini(f"[DEFAULT]\nevery = 7\nunrelated = x\n{APP}{text}")
    app = get_celery_app(str(ini), options={"other": "y"})
    assert app.conf.beat_schedule == {
        "mine": {"task": "exampleapp.add", "schedule": 7, "args": [1, 2]}
    }


def test_beat_section_for_a_function_with_a_name(load):
    """The task can be given by the dotted name of its function."""
    app = load("[celerybeat:a]\ntask = exampleapp:threadlocals\nschedule = 5")
    assert app.conf.beat_schedule["a"]["task"] == "exampleapp.threadlocals"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("schedule = 5", "[celerybeat:x]: task is missing."),
        ("task =\nschedule = 5", "[celerybeat:x]: task is missing."),
        ("task = exampleapp.add", "[celerybeat:x]: schedule is missing."),
        ("task = exampleapp.add\nschedule =", "[celerybeat:x]: schedule is missing."),
        (
            "task = exampleapp.add\nschedule = 5\nshedule = 5",
            "[celerybeat:x]: shedule is not a key of a schedule; those are args, ",
        ),
        (
            "task = exampleapp.add\nschedule = daily",
            "[celerybeat:x]: schedule 'daily' is not a cron expression",
        ),
        (
            "task = exampleapp.add\nschedule = 5\ntype = x",
            "[celerybeat:x]: type 'x' is unknown",
        ),
        (
            "task = exampleapp.add\nschedule = 5\nargs = 1",
            "[celerybeat:x]: args is not a JSON array.",
        ),
        (
            "task = exampleapp.add\nschedule = 5\nargs = [1",
            "[celerybeat:x]: args is not a JSON array (",
        ),
        (
            'task = exampleapp.add\nschedule = 5\nargs = {"x": 1}',
            "[celerybeat:x]: args is not a JSON array.",
        ),
        (
            "task = exampleapp.add\nschedule = 5\nkwargs = [1]",
            "[celerybeat:x]: kwargs is not a JSON object.",
        ),
        (
            "task = exampleapp.add\nschedule = 5\nkwargs = x=1",
            "[celerybeat:x]: kwargs is not a JSON object.",
        ),
        (
            "task = exampleapp.add\nschedule = 5\noptions = {'expires': 1}",
            "[celerybeat:x]: options is not a JSON object (",
        ),
        (
            "task = exampleapp.add\nschedule = 5\noptions = soon",
            "[celerybeat:x]: options is not a JSON object.",
        ),
        (
            "task = exampleapp.ad\nschedule = 5",
            (
                "[celerybeat:x], task: No task 'exampleapp.ad' is registered in this "
                "application. Did you mean 'exampleapp.add'?"
            ),
        ),
        (
            "task = nothing.like.it\nschedule = 5",
            "[celerybeat:x], task: No task 'nothing.like.it' is registered",
        ),
    ],
)
def test_beat_section_errors(refused, lines, sentence):
    """Every mistake names the file, the section and the key."""
    said = refused(f"[celerybeat:x]\n{lines}")
    assert said.startswith("config.ini")
    assert sentence in said


# [celeryroute:TASK]


def test_route_section(load):
    """A section is a route, with JSON for what is not a word."""
    app = load(
        """
[celeryroute:exampleapp.add]
queue = images
routing_key = images.resize
priority = 5
[celeryroute:exampleapp.d*]
queue = other
"""
    )
    assert app.conf.task_routes == {
        "exampleapp.add": {
            "queue": "images",
            "routing_key": "images.resize",
            "priority": 5,
        },
        "exampleapp.d*": {"queue": "other"},
    }


def test_route_is_followed(load):
    """Celery's router sends the task where the section says."""
    app = load("[celeryroute:exampleapp.add]\nqueue = images")
    route = app.amqp.router.route({}, "exampleapp.add")
    assert route["queue"].name == "images"


@pytest.mark.parametrize(
    ("setting", "merged"),
    [
        (
            '{"exampleapp.add": {"queue": "a", "priority": 1}, "b": {"queue": "b"}}',
            {"exampleapp.add": {"queue": "x", "priority": 1}, "b": {"queue": "b"}},
        ),
        (
            '[[["b", {"queue": "b"}]]]',
            [{"exampleapp.add": {"queue": "x"}}, [["b", {"queue": "b"}]]],
        ),
        ("exampleapp.Root", [{"exampleapp.add": {"queue": "x"}}, "exampleapp.Root"]),
    ],
)
def test_route_sections_come_before_the_settings(load, setting, merged):
    """A route of a section wins over the setting, which stays for the others."""
    app = load(
        f"celery.task_routes = {setting}", "[celeryroute:exampleapp.add]\nqueue = x"
    )
    assert app.conf.task_routes == merged


@pytest.mark.parametrize("value", ["[1", "{broken", "{'a': 1}"])
def test_route_section_errors(refused, value):
    """A value that looks like JSON and is not names file, section and key."""
    said = refused(f"[celeryroute:exampleapp.add]\nqueue = {value}")
    assert said.startswith(
        "config.ini, [celeryroute:exampleapp.add]: queue is not JSON ("
    )


def test_sections_belong_to_every_celery_app(write_ini):
    """Schedules and routes of a file are those of each [celery:NAME] in it."""
    ini = write_ini(
        f"""{APP}
[celery:main]
[celery:emails]
[celerybeat:a]
task = exampleapp.threadlocals
schedule = 5
[celeryroute:exampleapp.add]
queue = x
"""
    )
    for name in ("main", "emails"):
        conf = get_celery_app(f"{ini}#{name}").conf
        assert list(conf.beat_schedule) == ["a"]
        assert conf.task_routes == {"exampleapp.add": {"queue": "x"}}
