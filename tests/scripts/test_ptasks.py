"""What ``ptasks`` says of an application, in detail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import listedapp
import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

from pyramid_tasks.configuration.load import (
    begin_load,
    checking,
    current_load,
    report,
    report_setting,
    reporting,
    warn,
)
from pyramid_tasks.configuration.own_settings import OWN_SETTINGS
from pyramid_tasks.exceptions import (
    LoadError,
    SettingError,
    TaskError,
    TaskNotRegistered,
    UnknownSetting,
)
from pyramid_tasks.scripts.checks import check_app
from pyramid_tasks.scripts.listing import (
    describe,
    entry_of,
    list_schedule,
    list_tasks,
    next_run,
)
from pyramid_tasks.scripts.ptasks import main
from pyramid_tasks.settings import extract_celery_settings

if TYPE_CHECKING:
    from pyramid.config import Configurator

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def app_of(configure: Callable[..., Configurator]) -> Callable[..., Celery]:
    """Return a function that makes a Celery application with some tasks."""

    def app_of(*tasks: tuple[object, dict[str, object]], **settings: object) -> Celery:
        settings = {
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        config = configure(**settings)
        for func, options in tasks:
            config.register_task(func, **options)
        return config.make_celery_app()

    return app_of


@pytest.fixture
def write(write_ini: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes an ini for ``listedapp``."""

    def write(factory: str = "main", more: str = "") -> Path:
        return write_ini(
            f"[app:main]\nuse = call:listedapp:{factory}\n"
            f"celery.broker_url = memory://\n{more}"
        )

    return write


def add(request, x, y): ...


# The list of tasks.


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        ({}, {}, {}),
        ({"bind": False, "acks_late": False, "max_retries": 3}, {}, {}),
        ({"bind": True, "acks_late": True}, {}, {"bind": True, "acks_late": True}),
        ({"tm": False}, {}, {"tm": False}),
        ({}, {"celery.task_acks_late": True}, {"acks_late": True}),
        ({"acks_late": False}, {"celery.task_acks_late": True}, {}),
    ],
)
def test_options(app_of, options, settings, expected):
    """Options are listed where they, or settings, differ from Celery's defaults."""

    def work(request, *args): ...

    found, *_ = list_tasks(app_of((work, {"name": "-it", **options}), **settings))
    assert found["options"] == expected


def test_queue(app_of):
    """The queue is the one that Celery would choose."""
    app = app_of(
        (add, {"name": "plain"}),
        (add, {"name": "own", "queue": "mine"}),
        (add, {"name": "routed"}),
        celery__task_default_queue="default",
        celery__task_routes={"rout*": {"queue": "images"}},
    )
    found = {task["name"]: task["queue"] for task in list_tasks(app)}
    expected = {"plain": "default", "own": "mine", "routed": "images"}
    assert found | expected == found


def test_queue_of_a_router_that_needs_a_call(write, capsys):
    """Where the queue depends on the arguments, it is unknown."""
    ini = write(more="celery.task_routes = listedapp.route\n")
    assert main(["ptasks", str(ini), "-g", "mail", "-f", "name, queue"]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split() == ["mail", "<unknown>"]


def test_names_of_things():
    """Functions and classes have their dotted names, other things are shown."""
    assert describe(listedapp.add) == "listedapp.add"
    assert describe(OSError) == "OSError"
    assert describe(3) == "3"


def test_without_introspection(write, capsys):
    """An application without introspection is listed as far as it is known."""
    ini = write("without_introspection")
    assert main(["ptasks", str(ini), "--json"]) == 0
    found = {task["name"]: task for task in json.loads(capsys.readouterr().out)}
    assert found["add"]["function"] == "listedapp.add"
    assert found["add"]["registered"] is None


def test_celery_application_of_another_package():
    """One that is not of Pyramid is listed all the same."""
    app = Celery("other", broker="memory://", set_as_current=False)
    app.task(add, name="it", shared=False)
    app.conf.beat_schedule = {"often": {"task": "it", "schedule": 3}}
    assert "it" in {task["name"] for task in list_tasks(app)}
    assert [entry["registered"] for entry in list_schedule(app)] == [None]


def test_no_tasks(write, capsys):
    """Where no task is to be listed, there is no table, and an empty list."""
    ini = write()
    assert main(["ptasks", str(ini), "-g", "nothing*"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["ptasks", str(ini), "-g", "nothing*", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_quiet(write, capsys):
    """Quiet is quiet, and has the exit status all the same."""
    assert main(["ptasks", str(write())], quiet=True) == 0
    assert main(["ptasks", "--check", str(write())], quiet=True) == 1
    assert main(["ptasks"], quiet=True) == 2
    assert capsys.readouterr().out == ""


# The schedule.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (30, "30 s"),
        (timedelta(days=1), "86400 s"),
        (schedule(0.5), "0.5 s"),
        (crontab(hour="*/2", day_of_week="mon"), "* */2 * * mon"),
        (crontab("1", "2", "3", "4", "5"), "1 2 4 5 3"),
    ],
)
def test_schedule_as_written(app_of, value, expected):
    """A schedule is shown as an ini has it: crontab() takes the weekday third."""
    app = app_of((add, {"name": "it"}))
    app.conf.beat_schedule = {"x": {"task": "it", "schedule": value}}
    assert [entry["schedule"] for entry in list_schedule(app)] == [expected]


def test_next_run(app_of):
    """An interval is over that long from now, a cron expression on the minute."""
    app = app_of((add, {"name": "it"}))
    entry = entry_of(app, "x", {"task": "it", "schedule": 3600})
    left = next_run(entry) - entry.schedule.now()
    assert timedelta(minutes=50) < left <= timedelta(minutes=60, seconds=1)
    entry = entry_of(app, "x", {"task": "it", "schedule": crontab(minute="30")})
    assert (next_run(entry).minute, next_run(entry).second) == (30, 0)


def test_entry_that_is_one(app_of):
    """Beat's own class of entries is taken as well."""
    app = app_of((add, {"name": "it"}))
    entry = ScheduleEntry(name="x", task="it", schedule=schedule(3), app=app)
    app.conf.beat_schedule = {"x": entry}
    assert [found["schedule"] for found in list_schedule(app)] == ["3 s"]


@pytest.mark.parametrize(
    "entry", ["text", {}, {"task": "it", "schedule": "3"}, {"task": "it", "x": 1}]
)
def test_entry_that_cannot_be_read(app_of, entry):
    """What beat could not read is an error that names the entry."""
    with pytest.raises(SettingError, match="beat_schedule has an entry 'x'"):
        entry_of(app_of(), "x", entry)


def test_schedule_that_cannot_be_read(write, capsys):
    """It ends the list of the schedule with a sentence."""
    ini = write(more='celery.beat_schedule = {"x": {"task": "a", "schedule": "b"}}\n')
    assert main(["ptasks", "--schedule", str(ini)]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert f"{ini}, [app:main]: celery.beat_schedule has an entry 'x'" in found.err


# The check.


def problems_of(app: Celery, *sections: str) -> list[str]:
    with checking() as problems:
        check_app(app, sections)
    return [str(problem) for problem in problems]


def test_routes_that_are_taken(app_of):
    """Routes in every form that Celery knows are no problem where tasks take them."""
    app = app_of((add, {"name": "it"}))
    routes = {"it": "a", "i*": {"queue": "b"}, re.compile("i."): {"queue": "c"}}
    for value in (
        routes,
        [routes],
        ([("it", {"queue": "a"}), ("i*", {"queue": "b"})],),
        "listedapp.route",
        ["listedapp.route"],
        None,
    ):
        app.conf.task_routes = value
        del app.amqp
        assert problems_of(app) == []


def test_routes_that_are_not(app_of):
    """Those that no task takes are found in every form."""
    dotted = f"{add.__module__}.add"
    app = app_of((add, {"name": "it"}))
    app.conf.task_routes = [
        {re.compile("no"): "x"},
        [("no*", "x")],
        {dotted: 1},
    ]
    pattern, glob, name = problems_of(app)
    assert "'no'" in pattern
    assert "'no*'" in glob
    assert "Did you mean 'it'?" in name


@pytest.mark.parametrize(
    ("names", "expected"),
    [("a", "a."), ("abc", "a, b, c."), ("abcde", "a, b, c and 2 more.")],
)
def test_results_that_go_nowhere(app_of, names, expected):
    """Tasks whose results are not ignored, and have no backend, are named."""
    app = app_of(
        *((add, {"name": name}) for name in names),
        (add, {"name": "z", "ignore_result": True}),
        celery__result_backend=None,
    )
    for name in [*app.tasks]:  # shared tasks of other tests
        if len(name) > 1:
            app.tasks[name].ignore_result = True
    (found,) = problems_of(app)
    assert f"no result of {expected}" in found
    app.conf.task_always_eager = True
    assert problems_of(app) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_retry": 3}, "max_retry is an option .* Did you mean max_retries?"),
        ({"ratelimit": "1/s"}, "ratelimit is an option .* Did you mean rate_limit?"),
    ],
)
def test_options_of_tasks(app_of, options, expected):
    """An option that Celery would not heed is found, with its place."""
    (found,) = problems_of(app_of((add, {"name": "it", **options})))
    pattern = re.escape(f"{__file__}:") + r"\d+: " + expected
    assert re.fullmatch(pattern.replace("?", r"\?"), found)


def test_options_of_derivers(app_of):
    """Celery's options, and those that are like none of them, are no problem."""
    options = {"retry_backoff": True, "queue": "x", "autoretry_for": (OSError,)}
    app = app_of((add, {"name": "it", "tm": False, "cached": True, **options}))
    assert problems_of(app) == []


def test_own_settings_are_known():
    """Every setting that a document or a docstring gives is one that is known."""
    paths = [*(ROOT / "pyramid_tasks").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    texts = [path.read_text() for path in [*paths, ROOT / "README.md"]]
    found = re.findall(
        r"(?:``|^|get\(\"|settings\[\")(pyramid_tasks\.\w+)(?:``$| = |\"[,\])])",
        "\n".join(texts),
        re.MULTILINE,
    )
    assert len(found) > len(OWN_SETTINGS)
    assert set(found) <= {f"pyramid_tasks.{name}" for name in OWN_SETTINGS}


# Collecting problems, for which the loaders and directives are made.


def test_without_a_check_the_first_problem_is_raised():
    """What a check collects ends a load, and what it can live with is logged."""
    with pytest.raises(TaskError), begin_load({}):
        report(TaskError("x"))
    assert current_load() is None


def test_check_collects(caplog):
    """A check has all problems of the loads in it, in order, and nothing is logged."""
    import logging

    with checking() as problems:
        with begin_load({}) as load:
            report(TaskError("first"))
        with reporting("in a file", TypeError):
            raise TypeError("second")
        warn(logging.getLogger("test"), LoadError("third", "config.ini"))
    assert load.problems is problems
    assert [type(problem).__name__ for problem in problems] == [
        "TaskError",
        "ConfigurationExecutionError",
        "LoadError",
    ]
    assert caplog.text == ""
    assert current_load() is None


def test_check_leaves_errors_of_the_application():
    """What is no mistake in the configuration is raised in a check too."""
    with pytest.raises(TypeError), checking() as problems, reporting():
        raise TypeError("of the application")
    assert problems == []


def test_settings_that_can_be_read():
    """In a check, a setting that cannot be read is left out, the others are not."""
    settings = {"celery.result_expires": "1 d", "celery.x": "y", "celery.timezone": "Z"}
    with checking() as problems:
        found = extract_celery_settings(settings, report_setting)
    assert found == {"timezone": "Z", "x": "y"}
    assert [type(problem) for problem in problems] == [SettingError, UnknownSetting]


def test_unknown_setting():
    """The error has the nearest known name as an attribute."""
    with checking() as problems:
        settings = {"celery.brokr_url": "x", "celery.qqqqqqq": 1}
        extract_celery_settings(settings, report_setting)
    assert [problem.nearest for problem in problems] == ["celery.broker_url", None]


def test_directives_without_a_check(configure):
    """Without a check, directives raise, with the place if it is at the commit."""
    config = configure()
    with pytest.raises(TaskError, match="no name of its own"):
        config.register_task(lambda request: None)
    config.add_periodic_task(3, "nothing")
    with pytest.raises(Exception, match="nothing.*\n.*\n.*test_ptasks.py") as raised:
        config.commit()
    assert isinstance(raised.value.evalue, TaskNotRegistered)
