"""config.add_task_deriver wraps tasks, as config.add_view_deriver wraps views."""

from __future__ import annotations

import inspect
import itertools

import pytest
from pyramid.exceptions import (
    ConfigurationConflictError,
    ConfigurationError,
    ConfigurationExecutionError,
)
from pyramid.request import Request
from pyramid.viewderivers import INGRESS
from zope.interface.verify import verifyObject

from pyramid_tasks.configuration.derivers import TASK
from pyramid_tasks.interfaces import ITaskDeriver, ITaskDeriverInfo


def add(request, x, y=0):
    return x + y


@pytest.fixture
def trace():
    """Return a list that derivers note their names in, outermost first."""
    return []


@pytest.fixture
def noting(trace):
    """Return a function that makes a deriver which notes its name when it is called."""

    def noting(name):
        def deriver(task, info):
            def derived(request, *args, **kwargs):
                trace.append(name)
                return task(request, *args, **kwargs)

            return derived

        deriver.__name__ = name
        return deriver

    return noting


@pytest.fixture
def run(eager):
    """Return a function that runs the task ``it`` at once."""

    def run(*args, **kwargs):
        return eager.make_celery_app().tasks["it"].delay(*args, **kwargs).get()

    return run


# The order.


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_under_and_over(eager, run, noting, trace, order):
    """Whatever the order they are added in, derivers stand under and over others."""
    positions = {
        "a": {},
        "b": {"under": "a"},
        "c": {"under": "b"},
    }
    for name in order:
        eager.add_task_deriver(noting(name), **positions[name])
    eager.register_task(add, name="it")
    assert run(1) == 1
    assert trace == ["a", "b", "c"]


@pytest.mark.parametrize(
    "positions",
    [
        {"a": {"over": "b"}, "b": {"over": "c"}, "c": {}},
        {"a": {"over": ("b", "c")}, "b": {"over": ["c"]}, "c": {}},
        {"a": {}, "b": {"under": "a", "over": "c"}, "c": {}},
        {"a": {}, "b": {"under": ["a"]}, "c": {"under": ("a", "b")}},
        {"a": {"under": INGRESS, "over": "b"}, "b": {"over": "c"}, "c": {"over": TASK}},
        {"c": {"under": ["b", "a"]}, "b": {"under": ["a"]}, "a": {}},
    ],
)
def test_positions(eager, run, noting, trace, positions):
    """A position is one name or several, INGRESS and TASK among them."""
    for name, position in positions.items():
        eager.add_task_deriver(noting(name), **position)
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["a", "b", "c"]


def test_without_positions(eager, run, noting, trace):
    """As for views, the deriver that was added first stands closest to the task."""
    for name in "abc":
        eager.add_task_deriver(noting(name))
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["c", "b", "a"]


def test_order_is_that_of_view_derivers(eager, run, noting, trace):
    """The same derivers, added in the same way, have the order they have for views."""
    positions = {"a": {}, "b": {"over": "a"}, "c": {"under": "a"}, "d": {}}
    for name, position in positions.items():
        eager.add_task_deriver(noting(name), **position)
        of_view = {"over": "rendered_view", **position}
        eager.add_view_deriver(_view_deriver(trace, name), name, **of_view)
    eager.register_task(add, name="it")
    eager.add_view(lambda request: {}, renderer="json")
    run(1)
    of_task = trace[:]
    trace.clear()
    Request.blank("/").get_response(eager.make_wsgi_app())
    assert of_task == trace


def _view_deriver(trace, name):
    def deriver(view, info):
        def derived(context, request):
            trace.append(name)
            return view(context, request)

        return derived

    return deriver


def test_derivers_wrap_tasks_registered_before(eager, run, noting, trace):
    """The order of the configuration does not matter, nor where it is included."""
    eager.register_task(add, name="it")
    eager.include(lambda config: config.add_task_deriver(noting("late")))
    assert run(1) == 1
    assert trace == ["late"]


def test_no_derivers(eager, run):
    """A task without derivers is called as it is."""
    eager.register_task(add, name="it")
    assert run(1, y=2) == 3


# Names and errors.


@pytest.mark.parametrize("name", [INGRESS, TASK])
def test_reserved_names(eager, noting, name):
    """The two ends of the chain are no names for a deriver."""
    with pytest.raises(ConfigurationError, match=f"{name} is a reserved"):
        eager.add_task_deriver(noting("a"), name=name)


@pytest.mark.parametrize("position", [INGRESS, ["other", INGRESS]])
def test_over_ingress(eager, noting, position):
    """Nothing stands before the begin of the chain."""
    with pytest.raises(ConfigurationError, match="a cannot be over INGRESS"):
        eager.add_task_deriver(noting("a"), over=position)


@pytest.mark.parametrize("position", [TASK, ["other", TASK]])
def test_under_task(eager, noting, position):
    """Nothing stands behind the task itself."""
    with pytest.raises(ConfigurationError, match="a cannot be under TASK"):
        eager.add_task_deriver(noting("a"), under=position)


def test_circle(eager, noting):
    """Derivers that all want to be over each other are an error."""
    eager.add_task_deriver(noting("a"), over="b")
    eager.add_task_deriver(noting("b"), over="a")
    eager.register_task(add, name="it")
    with pytest.raises(ConfigurationError, match="a.*b|b.*a"):
        eager.commit()


@pytest.mark.parametrize("position", ["under", "over"])
def test_missing_position(eager, noting, position):
    """A position that names no deriver at all is an error, as for views."""
    eager.add_task_deriver(noting("a"), **{position: "missing"})
    eager.register_task(add, name="it")
    with pytest.raises(ConfigurationError, match="Unsatisfied .* dependencies: a"):
        eager.commit()


def test_one_of_several_positions_is_enough(eager, run, noting, trace):
    """Of several names, some may be those of add-ons that are not there."""
    eager.add_task_deriver(noting("a"))
    eager.add_task_deriver(noting("b"), under=("missing", "a"))
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["a", "b"]


def test_conflict(eager, noting):
    """Two derivers of one name conflict, and the message names both places."""
    eager.add_task_deriver(noting("same"))
    first = inspect.currentframe().f_lineno - 1
    eager.add_task_deriver(noting("other"), name="same")
    second = inspect.currentframe().f_lineno - 1
    with pytest.raises(ConfigurationConflictError) as caught:
        eager.commit()
    for line in first, second:
        assert f"Line {line} of file {__file__}" in str(caught.value)


def test_application_replaces_a_deriver_it_includes(eager, run, noting, trace):
    """A deriver of the application wins over one of the same name of an add-on."""
    eager.include(lambda config: config.add_task_deriver(noting("addon"), name="same"))
    eager.add_task_deriver(noting("mine"), name="same")
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["mine"]


def test_two_names_for_one_deriver(eager, run, noting, trace):
    """One callable can be two derivers."""
    deriver = noting("x")
    eager.add_task_deriver(deriver, name="one")
    eager.add_task_deriver(deriver, name="two")
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["x", "x"]


@pytest.mark.parametrize("name", ["scanned.tasks.deriver", "scanned.tasks:deriver"])
def test_dotted_name(eager, run, name):
    """A deriver can be given by its dotted name, and has the name of its callable."""
    from scanned.tasks import calls

    eager.add_task_deriver(name)
    eager.register_task(add, name="it")
    before = len(calls)
    run(1)
    assert calls[before:] == ["it"]
    assert eager.registry.introspector.get("task derivers", "deriver") is not None


def test_relative_dotted_name(eager, run):
    """A dotted name may be relative to the package."""
    from scanned.tasks import calls

    eager.include("scanned")
    eager.scan("scanned.tasks")
    eager.register_task(add, name="it")
    before = len(calls)
    run(1)
    assert calls[before:] == ["it"]


def test_error_in_a_deriver(eager):
    """What a deriver raises is an error of the configuration, with its place."""

    def deriver(task, info):
        raise ValueError(f"{info.name} lacks an option")

    eager.add_task_deriver(deriver)
    eager.register_task(add, name="it")
    with pytest.raises(ConfigurationExecutionError, match="it lacks an option"):
        eager.commit()


def test_introspectable(eager, noting):
    """Tools can list the derivers of an application."""
    deriver = noting("a")
    eager.add_task_deriver(deriver, under="b", over=["c", "d"])
    eager.add_task_deriver(noting("b"))
    eager.add_task_deriver(noting("c"))
    eager.commit()
    found = eager.registry.introspector.get("task derivers", "a")
    assert found.type_name == "task deriver"
    assert dict(found) == {
        "name": "a",
        "deriver": deriver,
        "under": ("b",),
        "over": ("c", "d"),
    }


def test_introspectable_of_a_task(eager, noting):
    """The introspectable of a task lists its derivers in order, and refers to them."""
    eager.add_task_deriver(noting("inner"))
    eager.add_task_deriver(noting("outer"), over="inner")
    eager.register_task(add, name="it")
    eager.commit()
    introspector = eager.registry.introspector
    found = introspector.get("tasks", "it")
    assert found["derivers"] == ["outer", "inner"]
    assert introspector.related(found) == [
        introspector.get("task derivers", name) for name in found["derivers"]
    ]


def test_deriver_without_introspection(eager, noting, run, trace):
    """A deriver from a part without introspection is no obstacle."""
    eager.introspection = False
    eager.add_task_deriver(noting("hidden"))
    eager.introspection = True
    eager.register_task(add, name="it")
    run(1)
    assert trace == ["hidden"]
    assert eager.registry.introspector.get("tasks", "it")["derivers"] == ["hidden"]


# What a deriver sees.


@pytest.fixture
def infos(eager):
    """Return the infos that a deriver was given, by name of the task."""
    infos = {}

    def deriver(task, info):
        infos[info.name] = info
        return task

    eager.add_task_deriver(deriver)
    return infos


def test_info(eager, infos):
    """The info has the attributes of its interface."""
    eager.register_task(add, name="it", rate_limit="1/m", transaction=False)
    eager.commit()
    info = infos["it"]
    assert verifyObject(ITaskDeriverInfo, info)
    assert info.registry is eager.registry
    assert info.package is eager.package
    assert info.name == "it"
    assert info.original_func is add
    assert info.options["rate_limit"] == "1/m"
    assert info.options["transaction"] is False


def test_interface_of_a_deriver():
    """A deriver is any callable that takes the task and the info."""

    def deriver(task, info):
        return task

    assert verifyObject(ITaskDeriver, deriver, tentative=True)


@pytest.mark.parametrize("bind", [False, True])
def test_info_says_whether_the_task_is_bound(eager, infos, bind):
    """Whether the task is bound is among its options."""
    eager.register_task(lambda *args: None, name="it", bind=bind)
    eager.commit()
    assert infos["it"].options["bind"] is bind


def test_info_package_of_a_decorated_task(eager, infos):
    """The package is that of the module where the task is."""
    eager.scan("scanned.tasks")
    eager.commit()
    assert infos["first"].package.__name__ == "scanned"
    assert infos["first"].original_func.__name__ == "stacked"


def test_info_package_of_an_included_task(eager, infos):
    """The package is that which the configuration stands in."""
    eager.include("scanned")
    eager.scan("scanned.tasks")
    eager.commit()
    assert infos["relative"].package.__name__ == "scanned"


def test_options_of_a_deriver(eager, run):
    """A deriver can have options of its own, which Celery leaves alone."""

    def deriver(task, info):
        factor = info.options.get("factor", 1)
        return lambda request, *args, **kwargs: factor * task(request, *args, **kwargs)

    eager.add_task_deriver(deriver)
    eager.register_task(add, name="it", factor=10)
    assert run(1, y=2) == 30


@pytest.mark.parametrize("bind", [False, True])
def test_bound_tasks_look_like_others(eager, run, bind):
    """A deriver is called with the request first, whether the task is bound or not."""
    seen = []

    def deriver(task, info):
        def derived(request, *args, **kwargs):
            seen.append((isinstance(request, Request), args, kwargs))
            return task(request, *args, **kwargs)

        return derived

    def bound(self, request, x, y):
        return self.name, x, y

    def plain(request, x, y):
        return request.current_task.name, x, y

    eager.add_task_deriver(deriver)
    eager.register_task(bound if bind else plain, name="it", bind=bind)
    assert run(1, y=2) == ("it", 1, 2)
    assert seen == [(True, (1,), {"y": 2})]


def test_deriver_changes_arguments_and_result(eager, run):
    """A deriver decides what the task is called with, and what it returns."""

    def deriver(task, info):
        return lambda request, x: -task(request, x * 100, y=1)

    eager.add_task_deriver(deriver)
    eager.register_task(add, name="it")
    assert run(2) == -201


def test_arguments_are_still_checked(eager, noting):
    """Derivers do not hide the signature of the task from Celery."""
    eager.add_task_deriver(noting("a"))
    eager.register_task(add, name="it")
    with pytest.raises(TypeError):
        eager.make_celery_app().tasks["it"].delay()


def test_deriver_sees_the_exception_of_the_task(eager, run):
    """A deriver can handle what the task raises."""

    def deriver(task, info):
        def derived(request, *args):
            try:
                return task(request, *args)
            except ZeroDivisionError:
                return "handled"

        return derived

    eager.add_task_deriver(deriver)
    eager.register_task(lambda request, x: 1 // x, name="it")
    assert run(0) == "handled"


def test_deriver_runs_inside_the_request(eager, run):
    """A deriver has the whole request: properties, root and threadlocals."""
    from pyramid.threadlocal import get_current_request

    seen = []

    def deriver(task, info):
        def derived(request, *args):
            seen.append((request.answer, request.root is not None))
            assert get_current_request() is request
            request.add_finished_callback(lambda request: seen.append("finished"))
            return task(request, *args)

        return derived

    eager.add_request_method(lambda request: 42, "answer", property=True)
    eager.add_task_deriver(deriver)
    eager.register_task(add, name="it")
    run(1)
    assert seen == [(42, True), "finished"]
