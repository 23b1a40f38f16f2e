"""The sections of schedules and routes in an ini."""

from __future__ import annotations

import json

import pytest
from celery.schedules import crontab

from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.scripts.problems import find_problems

APP = """
[app:main]
use = call:exampleapp:main
celery.broker_url = memory://
"""
ADD = "task = exampleapp.add\nschedule = 5\n"
DUE = ADD + 'kwargs = {"x": 1, "y": 2}\n'
UNKNOWN = ", task: No task 'exampleapp.ad' is registered in this application."


# [celerybeat:NAME]


def test_beat_section(load):
    """A section is an entry of the schedule of Celery beat."""
    app = load(
        f"""{APP}
[celerybeat:nightly]
task = exampleapp.add
schedule = 0 3 * * *
args = [1]
kwargs = {{"y": 2}}
options = {{"expires": 3600, "queue": "slow"}}
"""
    )
    entry = {
        "task": "exampleapp.add",
        "schedule": crontab(minute="0", hour="3"),
        "args": [1],
        "kwargs": {"y": 2},
        "options": {"expires": 3600, "queue": "slow"},
    }
    assert app.conf.beat_schedule == {"nightly": entry}


def test_beat_section_is_short(load):
    """A task or its dotted name, and a schedule are enough, in each of two sections."""
    app = load(
        f"{APP}[celerybeat:a]\ntask = exampleapp:threadlocals\nschedule = 5\n"
        "options = {}\n"
        "[celerybeat:b]\ntask = exampleapp.threadlocals\ntype = integer\nschedule = 6",
    )
    assert app.conf.beat_schedule == {
        "a": {"task": "exampleapp.threadlocals", "schedule": 5, "options": {}},
        "b": {"task": "exampleapp.threadlocals", "schedule": 6},
    }


def test_beat_section_adds_to_the_settings(load):
    """Values are interpolated; [DEFAULT] adds no keys, and the settings stay."""
    other = {"task": "exampleapp.add", "schedule": 60}
    text = f"""
celery.beat_schedule = {json.dumps({"other": other})}
[celerybeat:mine]
task = exampleapp.add
schedule = %(every)s
args = [1, 2]
"""
    app = load(f"[DEFAULT]\nevery = 7\nunrelated = x\n{APP}{text}", other="y")
    mine = {"task": "exampleapp.add", "schedule": 7, "args": [1, 2]}
    assert app.conf.beat_schedule == {"mine": mine, "other": other}
    ours = app.registry.introspector
    periodic = ours.get("periodic tasks", "mine")
    assert (periodic["schedule"], periodic["args"]) == (7, (1, 2))
    (task,) = ours.related(periodic)
    assert task is ours.get("tasks", "exampleapp.add")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("schedule = 5", ": task is missing."),
        ("task =\nschedule = 5", ": task is missing."),
        ("task = exampleapp.add", ": schedule is missing."),
        ("task = exampleapp.add\nschedule =", ": schedule is missing."),
        ("task = exampleapp.add\nschedule = daily", ": schedule 'daily' is not a cron"),
        (f"{ADD}shedule = 5", ": shedule is not a key of a schedule; those are args, "),
        (f"{ADD}type = x", ": type 'x' is unknown"),
        (f"{ADD}args = 1", ": args is not a JSON array."),
        (f"{ADD}args = [1", ": args is not a JSON array ("),
        (f'{ADD}args = {{"x": 1}}', ": args is not a JSON array."),
        (f"{ADD}kwargs = [1]", ": kwargs is not a JSON object."),
        (f"{ADD}kwargs = x=1", ": kwargs is not a JSON object."),
        (f"{ADD}options = {{'expires': 1}}", ": options is not a JSON object ("),
        (f"{ADD}options = soon", ": options is not a JSON object."),
        (f"{ADD}args = [1]", ", args and kwargs: "),
        (
            f'{DUE}options = {{"delivery": "x"}}',
            ", options: delivery = x is not one of immediate.",
        ),
        (f'{DUE}options = {{"args": [1]}}', ", options: args is no option: it stands"),
        (ADD.replace("add", "ad"), f"{UNKNOWN} Did you mean 'exampleapp.add'?"),
        (ADD.replace("add", "ad") + "[celery:main]", UNKNOWN),
        (ADD.replace("example", "x"), ", task: No task 'xapp.add' is registered"),
    ],
)
def test_beat_section_errors(refused, lines, sentence):
    """Every mistake names the file, the section and the key."""
    said = refused(f"{APP}[celerybeat:x]\n{lines}")
    assert said.startswith(f", [celerybeat:x]{sentence}")


@pytest.mark.parametrize(
    "wrong", ["args = [1", "kwargs = [1]", 'options = {"serializer": "yml"}', "arg = 1"]
)
def test_beat_section_errors_once(write_ini, wrong):
    """The check tells no mistake that only follows from another one."""
    results = "celery.result_backend = cache+memory://\n"
    text = f"{APP}{results}[celerybeat:x]\n{ADD}{wrong}\n"
    (problem,) = find_problems(str(write_ini(text)), {})
    assert wrong.partition(" ")[0] in problem["message"]


# [celeryroute:TASK]


def test_route_section(load):
    """A section is a route, which Celery follows; what is not a word is JSON."""
    app = load(
        f"""{APP}
[celeryroute:exampleapp.add]
queue = images
routing_key = images.resize
priority = 5
[celeryroute:exampleapp.d*]
queue = other
"""
    )
    route = {"queue": "images", "routing_key": "images.resize", "priority": 5}
    routes = {"exampleapp.add": route, "exampleapp.d*": {"queue": "other"}}
    assert app.conf.task_routes == routes
    assert app.amqp.router.route({}, "exampleapp.add")["queue"].name == "images"


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
        f"{APP}celery.task_routes = {setting}\n[celeryroute:exampleapp.add]\nqueue = x"
    )
    assert app.conf.task_routes == merged


@pytest.mark.parametrize("section", ["[celerybeat:x]", "[celery:main]"])
def test_worker_and_web_process_merge_alike(load, web, section):
    """The sections win, then the worker's settings; an entry replaces an entry."""
    above = {"task": "exampleapp.now", "schedule": 9}
    below = {"task": "exampleapp.add", "schedule": 5, "args": [1], "options": {"a": 1}}
    lines = "task = exampleapp.now\nschedule = 9"
    if section == "[celery:main]":
        lines = f"beat_schedule = {json.dumps({'x': above})}"
    text = f"""{APP}pyramid_tasks.config_uri = %(__file__)s
celery.beat_schedule = {json.dumps({"x": below})}
celery.task_routes = {{"exampleapp.*": {{"queue": "below"}}}}
{section}
{lines}
[celeryroute:e*]
queue = above
"""
    for app in load(text), web(text):
        assert app.conf.beat_schedule == {"x": above}
        route = app.amqp.router.route({}, "exampleapp.add")
        assert route["queue"].name == "above"


@pytest.mark.parametrize("value", ["[1", "{broken", "{'a': 1}"])
def test_route_section_errors(refused, value):
    """A value that looks like JSON and is not names file, section and key."""
    said = refused(f"{APP}[celeryroute:exampleapp.add]\nqueue = {value}")
    assert said.startswith(", [celeryroute:exampleapp.add]: queue is not JSON (")


def test_sections_belong_to_every_celery_app(write_ini):
    """Schedules and routes of a file are those of each [celery:NAME] in it."""
    ini = write_ini(
        f"{APP}[celery:main]\n[celery:emails]\n[celerybeat:a]\n"
        "task = exampleapp.threadlocals\nschedule = 5\n"
        "[celeryroute:exampleapp.add]\nqueue = x\n"
    )
    for name in ("main", "emails"):
        conf = get_celery_app(f"{ini}#{name}").conf
        assert list(conf.beat_schedule) == ["a"]
        assert conf.task_routes == {"exampleapp.add": {"queue": "x"}}
