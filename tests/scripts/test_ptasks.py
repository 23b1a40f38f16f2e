"""What ``ptasks`` says of an application, in detail."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import listedapp
import pytest
from celery import Celery, Task
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule
from pyramid.exceptions import ConfigurationExecutionError

from pyramid_tasks.configuration import load
from pyramid_tasks.configuration.own_settings import OWN_SETTINGS
from pyramid_tasks.exceptions import (
    LoadError,
    SettingError,
    TaskError,
    TaskNotRegistered,
    UnknownSetting,
)
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.scripts import listing
from pyramid_tasks.scripts.checks import check_app
from pyramid_tasks.scripts.outbox_checks import check_inbox
from pyramid_tasks.scripts.ptasks import main
from pyramid_tasks.settings import extract_celery_settings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def app_of(configure):
    """Return a function that makes a Celery application with a task for each name.

    A task can be given with its options, in the place of its name.
    """

    def app_of(*tasks, func=add, **settings):
        settings = {
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
        } | {f"celery.{key}": value for key, value in settings.items()}
        config = configure(**settings)
        for task in tasks:
            options = {"name": task} if isinstance(task, str) else task
            config.register_task(func, **options)
        return config.make_celery_app()

    return app_of


@pytest.fixture
def write(write_ini):
    """Return a function that writes an ini for ``listedapp``, and gives its path."""

    def write(factory="main", more=""):
        app = f"[app:main]\nuse = call:listedapp:{factory}\n"
        return str(write_ini(f"{app}celery.broker_url = memory://\n{more}"))

    return write


@pytest.fixture
def listed(capsys):
    """Return a function that runs ``ptasks``, and gives what it writes."""

    def listed(*args, status=0):
        assert main(["ptasks", *args]) == status
        return capsys.readouterr()

    return listed


def add(request, x, y): ...


# The list of tasks.


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        ({}, {}, {}),
        ({"bind": False, "acks_late": False, "max_retries": 3}, {}, {}),
        ({"bind": True, "acks_late": True}, {}, {"bind": True, "acks_late": True}),
        ({"tm": False}, {}, {"tm": False}),
        ({}, {"task_acks_late": True}, {"acks_late": True}),
        ({"acks_late": False}, {"task_acks_late": True}, {}),
    ],
)
def test_options(app_of, options, settings, expected):
    """Options are listed where they, or settings, differ from Celery's defaults."""

    def work(request, *args): ...

    app = app_of({"name": "-it", **options}, func=work, **settings)
    found, *_ = listing.list_tasks(app)
    assert found["options"] == expected


def test_queue(app_of):
    """The queue is the one that Celery would choose."""
    own = {"name": "own", "queue": "mine"}
    routes = {"rout*": {"queue": "images"}}
    app = app_of("plain", own, "routed", task_default_queue="any", task_routes=routes)
    found = {task["name"]: task["queue"] for task in listing.list_tasks(app)}
    expected = {"plain": "any", "own": "mine", "routed": "images"}
    assert found | expected == found


def test_queue_of_a_router_that_needs_a_call(write, listed):
    """Where the queue depends on the arguments, it is unknown."""
    ini = write(more="celery.task_routes = listedapp.route\n")
    *_, line = listed(ini, "-g", "mail", "-f", "name, queue").out.splitlines()
    assert line.split() == ["mail", "<unknown>"]


def test_names_of_things():
    """Functions and classes have their dotted names, other things are shown."""
    assert listing.describe(listedapp.add) == "listedapp.add"
    assert listing.describe(OSError) == "OSError"
    assert listing.describe(3) == "3"


def test_without_introspection(write, listed):
    """An application without introspection is listed as far as it is known."""
    found = json.loads(listed(write("without_introspection"), "--json").out)
    (task,) = (task for task in found if task["name"] == "add")
    assert task["function"] == "listedapp.add"
    assert task["registered"] is None


def test_celery_application_of_another_package():
    """One that is not of Pyramid is listed and checked all the same."""
    app = Celery("other", broker="memory://", set_as_current=False)
    app.task(add, name="it", shared=False)
    entry = {"task": "it", "schedule": 3, "args": (1, 2), "kwargs": {"y": 3}}
    app.conf.beat_schedule = {"often": entry}
    assert "it" in {task["name"] for task in listing.list_tasks(app)}
    (found,) = listing.list_schedule(app)
    assert found["registered"] is None
    assert (found["args"], found["kwargs"]) == ([1, 2], {"y": 3})
    app.conf.result_backend = "cache+memory://"
    assert problems_of(app) == []
    app.conf.beat_schedule = {"text": {**entry, "schedule": "* * * * *"}}
    (text,) = problems_of(app)
    assert "a string is not a schedule; write [celerybeat:NAME]" in text


def test_no_tasks(write, listed):
    """Where no task is to be listed, there is no table, and an empty list."""
    assert listed(write(), "-g", "nothing*").out == ""
    assert listed(write(), "-g", "nothing*", "--json").out == "[]\n"


def test_error_with_a_place(write, listed):
    """An error that has the place of a directive is told with it, any other without."""
    text = listed(write("unnamed"), status=1).err
    assert re.match(r"Error: .* has no name .*\n  in:\n  Line \d+ of", text)
    text = listed(write(more="[celery]\nworker_concurrency = x\n"), status=1).err
    assert re.fullmatch(r"Error: .*\[celery\]: worker_concurrency = 'x' .*\n", text)


def test_quiet(write, capsys):
    """Quiet is quiet, and has the exit status all the same."""
    assert main(["ptasks", write()], quiet=True) == 0
    assert main(["ptasks", "--check", write()], quiet=True) == 1
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
        (listedapp.Never(3), repr(schedule(3))),
    ],
)
def test_schedule_as_written(app_of, value, expected):
    """A schedule is shown as an ini has it: crontab() takes the weekday third.

    One that no ini can have is shown as Python does.
    """
    app = app_of("it", beat_schedule={"x": {"task": "it", "schedule": value}})
    assert [entry["schedule"] for entry in listing.list_schedule(app)] == [expected]


def test_next_run(app_of):
    """An interval is over that long from now, a cron expression on the minute."""
    app = app_of("it")
    entry = listing.entry_of(app, "x", {"task": "it", "schedule": 3600})
    left = listing.next_run(entry) - entry.schedule.now()
    assert timedelta(minutes=50) < left <= timedelta(minutes=60, seconds=1)
    entry = listing.entry_of(app, "x", {"task": "it", "schedule": crontab(minute="30")})
    assert f"{listing.next_run(entry):%M:%S.%f}" == "30:00.000000"


def test_schedule_that_cannot_say_when(app_of):
    """It is listed, and has no next run."""
    app = app_of("it")
    app.conf.beat_schedule = {"x": {"task": "it", "schedule": listedapp.Never(3)}}
    assert [found["next_run"] for found in listing.list_schedule(app)] == [None]


def test_entry_that_is_one(app_of):
    """Beat's own class of entries is taken as well."""
    app = app_of("it")
    entry = ScheduleEntry(name="x", task="it", schedule=schedule(3), app=app)
    app.conf.beat_schedule = {"x": entry}
    assert [found["schedule"] for found in listing.list_schedule(app)] == ["3 s"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schedule": timedelta(0)}, "due all the time"),
        ({"schedule": 0}, "due all the time"),
        ({"schedule": 5, "args": [object()]}, "its arguments cannot be sent: "),
        ({"schedule": 5, "options": {"delivery": "x"}}, "delivery = x is not one of "),
    ],
)
def test_entry_of_the_code(app_of, entry, said):
    """The check finds what the code of an application gave to Celery."""
    accept = ["json", "pickle"]
    app = app_of("it", func=lambda request, *args: None, accept_content=accept)
    fine = {"schedule": 5, "args": [object()], "options": {"serializer": "pickle"}}
    app.conf.beat_schedule = {
        "fine": {"task": "it", **fine},
        "x": {"task": "it", **entry},
    }
    (found,) = problems_of(app)
    assert "celery.beat_schedule has an entry 'x' that cannot be used: " in found
    assert said in found


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("text", ""),
        ({}, ""),
        ({"task": "it", "schedule": "3"}, "a string is not a schedule; write [cele"),
        ({"task": "it", "x": 1}, ""),
    ],
)
def test_entry_that_cannot_be_read(app_of, entry, why):
    """What beat could not read is an error that names the entry, in the check too."""
    app = app_of()
    said = "celery.beat_schedule has an entry 'x' that cannot be read: "
    with pytest.raises(SettingError, match=said):
        listing.entry_of(app, "x", entry)
    app.conf.beat_schedule = {"x": entry}
    (found,) = problems_of(app)
    assert said + why in found


def test_schedule_that_cannot_be_read(write, listed):
    """It ends the list of the schedule with a sentence."""
    ini = write(more='celery.beat_schedule = {"x": {"task": "a", "schedule": "b"}}\n')
    found = listed("--schedule", ini, status=1)
    assert found.out == ""
    assert f"{ini}, [app:main]: celery.beat_schedule has an entry 'x'" in found.err


# The check.


def problems_of(app):
    with load.checking() as problems:
        check_app(app, (), "config.ini")
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "prefork"])
@pytest.mark.parametrize("is_async", [True, False])
def test_pool_of_greenlets(app_of, pool, is_async):
    """The check tells of an async function under a pool that cannot run one."""

    async def coroutine(request): ...

    app = app_of("it", func=coroutine if is_async else add)
    app.conf.worker_pool = pool
    said = f"config.ini: celery.worker_pool = {pool} cannot run async functions, and "
    said += "the task it is one. Write prefork, threads or solo."
    assert problems_of(app) == ([said] if is_async and pool != "prefork" else [])


def test_place_of_a_setting_of_the_worker(app_of):
    """A problem that is found after the load names the section of the worker."""
    entry = {"task": "it", "schedule": 3, "args": (1, 2, 3)}
    app = app_of("it", task_routes={"that": "slow"}, beat_schedule={"x": entry})
    tasks = get_tasks(app.registry)
    tasks.section_settings, tasks.section = {"task_routes": {}}, "x.ini, [celery:main]"
    of_file, said = problems_of(app)
    assert said.startswith("x.ini, [celery:main]: task_routes is a route for no task")
    words = "config.ini: celery.beat_schedule has an entry 'x' that cannot be used: "
    assert of_file.startswith(words)


def test_routes_that_are_taken(app_of):
    """Routes in every form that Celery knows are no problem where tasks take them.

    Nor is a router that needs a call of the task.
    """
    app = app_of("it", "mail")
    routes = {"it": "a", "i*": {"queue": "b"}, re.compile("i."): {"queue": "c"}}
    pairs = [("it", {"queue": "a"}), ("i*", {"queue": "b"})]
    router = "listedapp.route"
    for value in routes, [routes], (pairs,), router, [router], None:
        app.conf.task_routes = value
        del app.amqp
        assert problems_of(app) == []


def test_routes_that_are_not(app_of):
    """Those that no task takes are found in every form."""
    dotted = f"{add.__module__}.add"
    app = app_of("it")
    app.conf.task_routes = [{re.compile("no"): "x"}, [("no*", "x")], {dotted: 1}]
    pattern, glob, name = problems_of(app)
    assert "'no'" in pattern
    assert "'no*'" in glob
    assert "Did you mean 'it'?" in name


def test_annotations_that_are_not(app_of):
    """Those of no task, and options that nobody knows, are told with the nearest."""

    class Base(Task):
        rate_limt = 5

    annotations = {
        "it": {"rate_lmit": "5/m", "@run": lambda func: func, "rate_limt": 3},
        "celery.chunk": {"time_limit": 3},
        "*": {"time_lmit": 3},
    }
    app = app_of({"name": "it", "base": Base}, task_annotations=annotations)
    option, task, of_all = problems_of(app)
    assert "rate_lmit for 'it', which nobody knows. Did you mean rate_limit?" in option
    assert "'celery.chunk': no task has that name. Did you mean celery.chunks?" in task
    assert "time_lmit for '*', which nobody knows. Did you mean time_limit?" in of_all


@pytest.mark.parametrize(
    ("names", "expected"),
    [("a", "a."), ("abc", "a, b, c."), ("abcd", "a, b, c and 1 more.")],
)
def test_results_that_go_nowhere(app_of, names, expected):
    """Tasks whose results are not ignored, and have no backend, are named."""
    ignored = {"name": "z", "ignore_result": True}
    app = app_of(*names, ignored, result_backend=None)
    for name in [*app.tasks]:  # shared tasks of other tests
        if len(name) > 1:
            app.tasks[name].ignore_result = True
    (found,) = problems_of(app)
    assert f"no result of {expected}" in found
    app.conf.task_always_eager = True
    assert problems_of(app) == []
    app.conf.result_backend = "rpc://"
    (found,) = problems_of(app)
    assert "= rpc:// sends a result to the process that deferred" in found


def test_results_of_a_backend_of_the_code(app_of):
    """A backend that the code of an application sets needs no setting."""
    app = app_of("it", result_backend=None)
    app.backend_cls = "cache+memory://"
    assert problems_of(app) == []


def test_limit_that_is_never_reached(app_of):
    """The check tells what a worker would."""
    (found,) = problems_of(app_of("it", task_soft_time_limit=60, task_time_limit=30))
    said = "config.ini: celery.task_soft_time_limit = 60 is never reached, as "
    assert found.startswith(said)


@pytest.mark.parametrize("zone", [UTC, None])
def test_time_that_outlives_a_row_of_the_inbox(configure, zone):
    """A message that can arrive later than its row is kept is found."""
    pytest.importorskip("pyramid_tm")
    pytest.importorskip("sqlalchemy")
    options = {"eta": datetime.now(zone) + timedelta(days=30)}
    entry = {"task": "it", "schedule": 5, "options": options}
    includes = {"pyramid.includes": "pyramid_tm pyramid_tasks.contrib.pyramid_tm"}
    config = configure(**includes, **{"celery.beat_schedule": {"x": entry}})
    config.register_task(lambda request: None, name="it", inbox=True)
    *_, found = map(str, check_inbox(config.make_celery_app()))
    said = "inbox_keep = 604800 is less than the eta of the schedule x (2"
    assert said in found


@pytest.mark.parametrize(
    ("option", "meant"), [("max_retry", "max_retries"), ("ratelimit", "rate_limit")]
)
def test_options_of_tasks(app_of, option, meant):
    """An option that Celery would not heed is found, with its place."""
    (found,) = problems_of(app_of({"name": "it", option: 3}))
    pattern = rf"\d+: {option} is an option .* Did you mean {meant}\?"
    assert re.fullmatch(re.escape(f"{__file__}:") + pattern, found)


def test_options_of_derivers(app_of):
    """Celery's options, and those that are like none of them, are no problem."""
    options = {"retry_backoff": True, "queue": "x", "autoretry_for": (OSError,)}
    app = app_of({"name": "it", "tm": False, "cached": True, **options})
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
    with pytest.raises(TaskError), load.begin_load({}):
        load.report(TaskError("x"))
    assert load.current_load() is None


def test_check_collects(caplog):
    """A check has all problems of the loads in it, in order, and nothing is logged."""
    with load.checking() as problems:
        with load.begin_load({}):
            load.report(TaskError("first"))
        with load.reporting("in a file"):
            raise TaskError("second")
        load.warn(logging.getLogger("test"), LoadError("third", "config.ini"))
    found = [type(problem) for problem in problems]
    assert found == [TaskError, ConfigurationExecutionError, LoadError]
    assert caplog.text == ""
    assert load.current_load() is None


def test_check_leaves_errors_of_the_application():
    """What is no mistake in the configuration is raised in a check too."""
    with pytest.raises(TypeError), load.checking() as problems, load.reporting():
        raise TypeError("of the application")
    assert problems == []


def test_settings_that_can_be_read():
    """In a check, a setting that cannot be read is left out, the others are not."""
    settings = {"celery.result_expires": "1 d", "celery.x": "y", "celery.timezone": "Z"}
    with load.checking() as problems:
        found = extract_celery_settings(settings, load.report_setting)
    assert found == {"timezone": "Z", "x": "y"}
    assert [type(problem) for problem in problems] == [SettingError, UnknownSetting]


def test_unknown_setting():
    """The error has the nearest known name as an attribute."""
    settings = {"celery.brokr_url": "x", "celery.qqqqqqq": 1}
    with load.checking() as problems:
        extract_celery_settings(settings, load.report_setting)
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
