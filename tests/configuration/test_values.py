"""A wrong value for every setting of Celery."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from pyramid.exceptions import ConfigurationError

from pyramid_tasks._celery import SETTING_TYPES
from pyramid_tasks.exceptions import SettingError
from pyramid_tasks.loaders import get_celery_app
from pyramid_tasks.scripts.problems import find_problems
from pyramid_tasks.testing import start_worker

#: What users type by mistake, by the type of the setting.
NUMBERS = ("many", "-1", "None")
NAMES = ("nonsense", "7", "")
MAPS = ("nonsense", '{"nonsense": 1}', "[1]", "{broken")
LISTS = ("nonsense", "[1]", "[broken", "")
WRONG = {
    "any": (*NAMES, *MAPS),
    "bool": ("maybe", "7"),
    "bool or dict": ("maybe", "{broken"),
    "bytes": NAMES,
    "dict": MAPS,
    "float": NUMBERS,
    "int": NUMBERS,
    "int or auto": NUMBERS,
    "list": LISTS,
    "string": NAMES,
    "tuple": LISTS,
}
#: Plain Celery ends with a traceback for these, or never runs a task: each was given to
#: a worker with the prefork pool.
DEADLY = {
    "nonsense": {
        *("accept_content", "broker_transport", "imports", "include"),
        *("result_accept_content", "result_backend", "result_serializer"),
        *("task_annotations", "task_compression", "task_default_delivery_mode"),
        *("task_default_exchange_type", "task_default_rate_limit", "task_routes"),
        *("task_serializer", "timezone", "worker_agent", "worker_consumer"),
        *("worker_log_format", "worker_pool", "worker_pool_start_method"),
        *("worker_redirect_stdouts_level", "worker_task_log_format", "worker_timer"),
    },
    "-1": {
        *("broker_pool_acquire_timeout", "broker_pool_limit", "task_protocol"),
        *("worker_max_tasks_per_child", "worker_prefetch_multiplier"),
        "task_time_limit",
    },
    '{"nonsense": 1}': {"task_publish_retry_policy", "task_queues"},
    "": {
        *("accept_content", "result_serializer", "task_annotations"),
        *("task_default_queue", "task_routes", "worker_consumer", "worker_pool"),
        "worker_pool_start_method",
    },
}
#: One wrong value of each setting, then another, and so on.
VALUES = {name: WRONG[type_] for name, type_ in SETTING_TYPES.items()}
ROUNDS = [
    {name: values[number] for name, values in VALUES.items() if number < len(values)}
    for number in range(max(map(len, VALUES.values())))
]


def test_module_that_a_program_made(configure, monkeypatch):
    """A module that has no file, and so no spec, can be imported."""
    monkeypatch.setitem(sys.modules, "made", ModuleType("made"))
    app = configure(**{"celery.imports": "made"}).make_celery_app()
    assert app.conf.imports == ["made"]


def test_worker_without_an_ini(configure):
    """Settings of workers are checked for a module that ``celery -A`` names, too."""
    config = configure(**{"celery.worker_pool": "nonsense"})
    with pytest.raises(ConfigurationError, match="worker_pool = nonsense is not one"):
        config.make_celery_app()


@pytest.mark.filterwarnings("ignore:You're running the worker with superuser")
@pytest.mark.parametrize("settings", ROUNDS, ids=lambda settings: str(len(settings)))
@pytest.mark.parametrize("section", ["app:main", "celery:main"])
def test_wrong_value_of_every_setting(
    section, settings, write_ini, tmp_path, monkeypatch
):
    """A sentence tells each with its place, or a worker runs tasks with it."""
    monkeypatch.chdir(tmp_path)  # some are the names of files
    prefix = "celery." if section == "app:main" else ""

    def write(settings):
        lines = [f"{prefix}{name} = {value}" for name, value in settings.items()]
        head = "[app:main]\nuse = call:exampleapp:main\ncelery.broker_url = memory://\n"
        head += "" if section == "app:main" else f"[{section}]\n"
        return str(write_ini(head + "\n".join(lines)))

    # Any word is the name of a host, and of a file that a worker writes at its end.
    known = {"broker_url", "worker_state_db"}
    settings = {k: v for k, v in settings.items() if k not in known}
    ini = write(settings)
    told = {}
    for problem in find_problems(ini, {}):
        if problem["where"] == f"{ini}, [{section}]":
            key, _, said = problem["message"].partition(" ")
            told[key.removeprefix(prefix)] = said
    with pytest.raises(SettingError) as caught:
        get_celery_app(ini)
    assert caught.value.problem == told[caught.value.key.removeprefix(prefix)]
    app = get_celery_app(write({k: v for k, v in settings.items() if k not in told}))
    with start_worker(app.registry):
        result = app.tasks["exampleapp.add"].delay(1, 2)
        assert result.get(timeout=20) == 3
    deadly = {k for k, value in settings.items() if k in DEADLY.get(value, ())}
    assert told.keys() >= deadly
