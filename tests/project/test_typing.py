"""The types that users annotate with are those of what a request really has."""

from __future__ import annotations

import inspect
import runpy
import typing

import pytest
from pyramid.config import Configurator
from pyramid.interfaces import IRequestExtensions
from pyramid.request import Request, apply_request_extensions

import pyramid_tasks.typing
from pyramid_tasks.typing import RequestWithTasks


@pytest.fixture
def added(configure):
    """Return what including the package adds to requests: methods and descriptors."""
    assert Configurator().registry.queryUtility(IRequestExtensions) is None
    config = configure()
    config.commit()
    return config.registry.getUtility(IRequestExtensions)


@pytest.fixture
def declared(monkeypatch):
    """Return the members of the protocol, as type checkers see it."""
    monkeypatch.setattr(typing, "TYPE_CHECKING", True)
    seen = runpy.run_path(pyramid_tasks.typing.__file__)["RequestWithTasks"]
    members = dict.fromkeys(inspect.get_annotations(seen)) | vars(seen)
    # What a request has to begin with.
    del members["registry"]
    return {name: members[name] for name in members if not name.startswith("_")}


def parameters(method):
    _, *rest = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in rest]


def test_members_of_the_protocol(added, declared):
    """The protocol has what is added to a request, and nothing else."""
    assert declared.keys() == added.methods.keys() | added.descriptors.keys()
    properties = {name for name, value in declared.items() if type(value) is property}
    assert properties == set(added.descriptors)


def test_parameters_of_the_protocol(added, declared):
    """A method takes what the protocol says: names, kinds and defaults."""
    methods = {
        name: parameters(method)
        for name, method in added.methods.items()
        # The others are overloaded; typing_tests are about them.
        if inspect.isfunction(declared[name])
    }
    assert {"defer_task_with_options", "get_task_result"} <= methods.keys()
    assert methods == {name: parameters(declared[name]) for name in methods}


def test_function_is_the_method(added):
    """pyramid_tasks.defer_task is the very function behind request.defer_task."""
    assert added.methods["defer_task"] is pyramid_tasks.defer_task
    assert added.methods["delay_task"] is pyramid_tasks.defer_task


class AppRequest(RequestWithTasks, Request):
    """A request class as users write one."""


def test_request_class_of_a_user(eager):
    """The protocol does not stand in the way of what Pyramid puts on a request."""
    eager.set_request_factory(AppRequest)
    eager.register_task(lambda request: type(request).__mro__, name="mro")
    eager.register_task(lambda request: request.current_task.name, name="name")
    eager.commit()
    request = AppRequest.blank("/")
    request.registry = eager.registry
    apply_request_extensions(request)
    assert AppRequest in request.defer_task("mro").get()
    assert request.delay_task("name").get() == "name"
    assert request.current_task is None


def test_request_class_without_the_package():
    """Where nothing adds the methods they are missing, not functions without effect."""
    with pytest.raises(AttributeError, match="defer_task_with_options"):
        AppRequest.blank("/").defer_task_with_options  # noqa: B018
