"""What the package shows to the world, and what importing it costs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from support import run

import pyramid_tasks
from pyramid_tasks import exceptions, interfaces

HEAVY = ("pyramid", "celery", "kombu", "plaster", "paste.deploy", "venusian")
LIGHT = (
    "pyramid_tasks",
    "pyramid_tasks.loaders",
    "pyramid_tasks.loaders.cli",
    "pyramid_tasks.pytest_plugin",
    "pyramid_tasks.typing",
)


def test_names_are_those_of_their_modules():
    """A public name is the object of its module, not a copy."""
    from pyramid_tasks import events
    from pyramid_tasks.configuration import tasks
    from pyramid_tasks.deferring import request_methods

    assert pyramid_tasks.task is tasks.task
    assert pyramid_tasks.defer_task is request_methods.defer_task
    assert pyramid_tasks.BeforeDeferTask is events.BeforeDeferTask
    assert pyramid_tasks.CeleryWorkerProcessInit is events.CeleryWorkerProcessInit
    assert pyramid_tasks.PyramidTasksError is exceptions.PyramidTasksError


def test_star_import():
    """``from pyramid_tasks import *`` gives the public names."""
    namespace = {}
    exec("from pyramid_tasks import *", namespace)
    assert set(pyramid_tasks.__all__) <= namespace.keys()
    assert all(callable(namespace[name]) for name in pyramid_tasks.__all__)


@pytest.mark.parametrize(
    "name", ["nothing", "get_tasks", "parse_schedule", "register_task", "__wrapped__"]
)
def test_unknown_name(name):
    """A name that is not public is an AttributeError like that of any module."""
    with pytest.raises(AttributeError, match=f"'pyramid_tasks' has no .* '{name}'"):
        getattr(pyramid_tasks, name)


@pytest.mark.parametrize("module", ["pyramid_tasks.loaders", "pyramid_tasks.celery"])
def test_unknown_name_of_a_module_that_celery_finds(module):
    """The modules that stand behind ``celery -A`` know no other names."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module(module).nothing  # noqa: B018


def test_get_celery_app_by_its_short_name():
    """``celery -A pyramid_tasks`` finds what ``pyramid_tasks.loaders`` has."""
    from pyramid_tasks import celery, loaders

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
    assert not [
        found
        for found in modules
        if found.startswith(tuple(f"{name}." for name in HEAVY)) or found in HEAVY
    ]


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
    assert set(interfaces.ITaskDeriverInfo.names()) == {
        "registry",
        "package",
        "name",
        "options",
        "original_func",
    }
    assert list(interfaces.ITaskDeriver.names()) == ["__call__"]
    assert interfaces.ITaskDerivers.__doc__


def test_directives_of_includeme(configure):
    """Including the package gives the directives."""
    config = configure()
    assert callable(config.register_task)
    assert callable(config.add_periodic_task)
    assert callable(config.add_task_deriver)
    assert callable(config.add_fork_safe)
    assert callable(config.make_celery_app)


def test_including_twice(configure):
    """An application and its add-ons can all include the package."""
    config = configure()
    app = config.registry["pyramid_tasks"].app
    config.include("pyramid_tasks")
    config.include(lambda config: config.include("pyramid_tasks"))
    assert config.make_celery_app() is app


def test_include_by_settings():
    """The ini can include it: pyramid.includes = pyramid_tasks."""
    from pyramid.config import Configurator

    config = Configurator(settings={"pyramid.includes": "pyramid_tasks"})
    assert "pyramid_tasks" in config.registry
    assert config.make_celery_app().main == config.registry.package_name
