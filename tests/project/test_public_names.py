"""What the package shows to the world, and what importing it costs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pyramid.config import Configurator
from support import run

import pyramid_tasks
from pyramid_tasks import celery, events, exceptions, interfaces, loaders
from pyramid_tasks.configuration import tasks
from pyramid_tasks.deferring import request_methods

HEAVY = ("pyramid.", "celery.", "kombu.", "plaster.", "paste.deploy.", "venusian.")
LIGHT = (
    "pyramid_tasks",
    "pyramid_tasks.loaders",
    "pyramid_tasks.loaders.cli",
    "pyramid_tasks.pytest_plugin",
    "pyramid_tasks.typing",
)


def test_names_are_those_of_their_modules():
    """A public name is the object of its module, not a copy."""
    for name, module in {
        "task": tasks,
        "defer_task": request_methods,
        "BeforeDeferTask": events,
        "CeleryWorkerProcessInit": events,
        "PyramidTasksError": exceptions,
    }.items():
        assert getattr(pyramid_tasks, name) is getattr(module, name)


def test_star_import():
    """``from pyramid_tasks import *`` gives the public names."""
    namespace = {}
    exec("from pyramid_tasks import *", namespace)
    assert set(pyramid_tasks.__all__) <= namespace.keys()
    assert all(callable(namespace[name]) for name in pyramid_tasks.__all__)


UNKNOWN = ["nothing", "get_tasks", "parse_schedule", "register_task", "__wrapped__"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *[("pyramid_tasks", name) for name in UNKNOWN],
        # These stand behind ``celery -A``.
        ("pyramid_tasks.loaders", "nothing"),
        ("pyramid_tasks.celery", "nothing"),
    ],
)
def test_unknown_name(module, name):
    """A name that is not public is an AttributeError like that of any module."""
    said = rf"'pyramid_tasks(\.loaders)?' has no attribute '{name}'"
    with pytest.raises(AttributeError, match=said):
        getattr(importlib.import_module(module), name)


def test_get_celery_app_by_its_short_name():
    """``celery -A pyramid_tasks`` finds what ``pyramid_tasks.loaders`` has."""
    assert celery.get_celery_app is loaders.get_celery_app


def modules_after(code: str, folder: Path) -> set[str]:
    """Return the modules that are imported after some lines of Python."""
    done = run("python", "-c", f"{code}\nimport sys; print(*sys.modules)", cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.acceptance
def test_imports_are_light(tmp_path):
    """Every ``celery`` command imports these: they must not import what is heavy."""
    modules = modules_after(f"import {', '.join(LIGHT)}", tmp_path)
    assert modules.issuperset(LIGHT)
    assert not [name for name in modules if f"{name}.".startswith(HEAVY)]


@pytest.mark.acceptance
def test_web_process_is_light(tmp_path):
    """An application does not import the modules that only tests need."""
    code = (
        "from pyramid.config import Configurator\n"
        "config = Configurator(); config.include('pyramid_tasks'); config.commit()"
    )
    modules = modules_after(code, tmp_path)
    assert "pyramid_tasks.application" in modules
    assert "unittest.mock" not in modules


def test_interfaces():
    """The interfaces for derivers have the attributes that are documented."""
    names = {"registry", "package", "name", "options", "original_func"}
    assert set(interfaces.ITaskDeriverInfo.names()) == names
    assert list(interfaces.ITaskDeriver.names()) == ["__call__"]
    assert interfaces.ITaskDerivers.__doc__


def test_directives_of_includeme(configure):
    """Including the package gives the directives."""
    add = ("add_periodic_task", "add_task_deriver", "add_fork_safe")
    for name in ("register_task", *add, "make_celery_app"):
        assert callable(getattr(configure(), name))


def test_including_twice(configure):
    """An application and its add-ons can all include the package."""
    config = configure()
    app = config.registry["pyramid_tasks"].app
    config.include("pyramid_tasks")
    config.include(lambda config: config.include("pyramid_tasks"))
    assert config.make_celery_app() is app


def test_include_by_settings():
    """The ini can include it: pyramid.includes = pyramid_tasks."""
    config = Configurator(settings={"pyramid.includes": "pyramid_tasks"})
    assert "pyramid_tasks" in config.registry
    assert config.make_celery_app().main == config.registry.package_name
