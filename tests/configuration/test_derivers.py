"""config.add_task_deriver wraps tasks, as config.add_view_deriver wraps views."""

from __future__ import annotations

import inspect
from itertools import permutations

import pytest
from pyramid.exceptions import (
    ConfigurationConflictError,
    ConfigurationError,
    ConfigurationExecutionError,
)
from pyramid.request import Request
from pyramid.threadlocal import get_current_request
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
def add_derivers(eager, noting):
    """Return a function that adds derivers in an order, each at a position."""

    def add_derivers(positions):
        for name, position in positions.items():
            eager.add_task_deriver(noting(name), **position)

    return add_derivers


@pytest.fixture
def run(eager):
    """Return a function that runs a function as the task ``it`` at once."""

    def run(*args, func=add, options=None, **kwargs):
        eager.register_task(func, name="it", **options or {})
        return eager.make_celery_app().tasks["it"].delay(*args, **kwargs).get()

    return run


# The order.

CHAIN = {"a": {}, "b": {"under": "a"}, "c": {"under": "b"}}


@pytest.mark.parametrize(
    "positions",
    [
        *({name: CHAIN[name] for name in order} for order in permutations("abc")),
        {"a": {"over": "b"}, "b": {"over": "c"}, "c": {}},
        {"a": {"over": ("b", "c")}, "b": {"over": ["c"]}, "c": {}},
        {"a": {}, "b": {"under": "a", "over": "c"}, "c": {}},
        {"a": {}, "b": {"under": ["a"]}, "c": {"under": ("a", "b")}},
        {"a": {"under": INGRESS, "over": "b"}, "b": {"over": "c"}, "c": {"over": TASK}},
        {"c": {"under": ["b", "a"]}, "b": {"under": ["a"]}, "a": {}},
        # Of several names, some may be those of add-ons that are not there.
        {"a": {}, "b": {"under": ("missing", "a")}, "c": {"under": "b"}},
        # As for views, the deriver that was added first stands closest to the task.
        {"c": {}, "b": {}, "a": {}},
    ],
)
def test_positions(run, add_derivers, trace, positions):
    """A position is under or over others: a name or several, also INGRESS and TASK."""
    add_derivers(positions)
    assert run(1) == 1
    assert trace == ["a", "b", "c"]


def test_order_is_that_of_view_derivers(eager, run, noting, add_derivers, trace):
    """The same derivers, added in the same way, have the order they have for views."""
    positions = {"a": {}, "b": {"over": "a"}, "c": {"under": "a"}, "d": {}}
    add_derivers(positions)
    for name, position in positions.items():
        of_view = {"over": "rendered_view", **position}
        eager.add_view_deriver(noting(name), name, **of_view)
    eager.add_view(lambda request: {}, renderer="json")
    run(1)
    of_task = trace[:]
    trace.clear()
    Request.blank("/").get_response(eager.make_wsgi_app())
    assert of_task == trace


def test_derivers_wrap_tasks_registered_before(eager, noting, trace):
    """The order of the configuration does not matter, nor where it is included."""
    eager.register_task(add, name="it")
    eager.include(lambda config: config.add_task_deriver(noting("late")))
    assert eager.make_celery_app().tasks["it"].delay(1).get() == 1
    assert trace == ["late"]


# Names and errors.


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": INGRESS}, f"{INGRESS} is a reserved"),
        ({"name": TASK}, "TASK is a reserved"),
        ({"over": INGRESS}, "a cannot be over INGRESS"),
        ({"over": ["other", INGRESS]}, "a cannot be over INGRESS"),
        ({"under": TASK}, "a cannot be under TASK"),
        ({"under": ["other", TASK]}, "a cannot be under TASK"),
    ],
)
def test_ends_of_the_chain(eager, noting, options, problem):
    """The two ends are no names for a deriver, and nothing stands beyond them."""
    with pytest.raises(ConfigurationError, match=problem):
        eager.add_task_deriver(noting("a"), **options)


async def derive_later(task, info):
    """Nobody awaits it."""


@pytest.mark.parametrize(
    ("deriver", "problem"),
    [
        (derive_later, r"derive_later\(task, info\), and nobody awaits it"),
        (lambda task: task, "too many positional arguments"),
        (lambda _task, _info: None, "deriver a returned None for the task it"),
    ],
)
def test_wrong_deriver(eager, deriver, problem):
    """A deriver that would fail in each task is refused."""
    with pytest.raises(ConfigurationError, match=problem):  # noqa: PT012 either
        eager.add_task_deriver(deriver, "a")
        eager.register_task(add, name="it")
        eager.commit()


@pytest.mark.parametrize(
    ("positions", "problem"),
    [
        pytest.param(
            {"a": {"over": "b"}, "b": {"over": "a"}}, "a.*b|b.*a", id="circle"
        ),
        ({"a": {"under": "missing"}}, "Unsatisfied .* dependencies: a"),
        ({"a": {"over": "missing"}}, "Unsatisfied .* dependencies: a"),
    ],
)
def test_impossible_position(eager, add_derivers, positions, problem):
    """A circle is an error, as is a position that names no deriver at all."""
    add_derivers(positions)
    eager.register_task(add, name="it")
    with pytest.raises(ConfigurationError, match=problem):
        eager.commit()


def test_conflict(eager, noting):
    """Two derivers of one name conflict, and the message names both places."""
    eager.add_task_deriver(noting("same"))
    eager.add_task_deriver(noting("other"), name="same")
    line = inspect.currentframe().f_lineno
    with pytest.raises(ConfigurationConflictError) as caught:
        eager.commit()
    for each in line - 2, line - 1:
        assert f"Line {each} of file {__file__}" in str(caught.value)


def test_application_replaces_a_deriver_it_includes(eager, run, noting, trace):
    """A deriver of the application wins over one of the same name of an add-on."""
    eager.include(lambda config: config.add_task_deriver(noting("addon"), name="same"))
    eager.add_task_deriver(noting("mine"), name="same")
    run(1)
    assert trace == ["mine"]


def test_two_names_for_one_deriver(eager, run, noting, trace):
    """One callable can be two derivers."""
    deriver = noting("x")
    eager.add_task_deriver(deriver, name="one")
    eager.add_task_deriver(deriver, name="two")
    run(1)
    assert trace == ["x", "x"]


@pytest.mark.parametrize(
    "name", ["scanned.tasks.deriver", "scanned.tasks:deriver", ".tasks.deriver"]
)
def test_dotted_name(eager, run, name):
    """A dotted name may be relative to the package; the deriver has the last part."""
    from scanned.tasks import calls

    eager.with_package("scanned").add_task_deriver(name)
    before = len(calls)
    run(1)
    assert calls[before:] == ["it"]
    assert eager.registry.introspector.get("task derivers", "deriver") is not None


def test_error_in_a_deriver(eager, run):
    """What a deriver raises is an error of the configuration, with its place."""

    def deriver(task, info):
        raise ValueError(f"{info.name} lacks an option")

    eager.add_task_deriver(deriver)
    with pytest.raises(ConfigurationExecutionError, match="it lacks an option"):
        run(1)


def test_introspectable(eager, noting, add_derivers):
    """Tools can list the derivers of an application."""
    deriver = noting("a")
    eager.add_task_deriver(deriver, under="b", over=["c", "d"])
    add_derivers({"b": {}, "c": {}})
    eager.commit()
    found = eager.registry.introspector.get("task derivers", "a")
    assert found.type_name == "task deriver"
    positions = {"under": ("b",), "over": ("c", "d")}
    assert dict(found) == {"name": "a", "deriver": deriver, **positions}


def test_introspectable_of_a_task(eager, run, add_derivers):
    """The introspectable of a task lists its derivers in order, and refers to them."""
    add_derivers({"inner": {}, "outer": {"over": "inner"}})
    run(1)
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


@pytest.mark.parametrize("bind", [False, True])
def test_info(eager, infos, bind):
    """The info has the attributes of its interface, and all options, also ``bind``."""
    options = {"rate_limit": "1/m", "transaction": False, "bind": bind}

    def func(*args): ...

    eager.register_task(func, name="it", **options)
    eager.commit()
    info = infos["it"]
    assert verifyObject(ITaskDeriverInfo, info)
    assert info.registry is eager.registry
    assert info.package is eager.package
    assert info.name == "it"
    assert info.original_func is func
    assert info.options == options


def test_interface_of_a_deriver(noting):
    """A deriver is any callable that takes the task and the info."""
    assert verifyObject(ITaskDeriver, noting("a"), tentative=True)


def test_info_package(eager, infos):
    """The package is that of a decorated task, or that which includes a task."""
    eager.include("scanned")
    eager.scan("scanned.tasks")
    eager.commit()
    for name in "first", "relative":
        assert infos[name].package.__name__ == "scanned"
    assert infos["first"].original_func.__name__ == "stacked"


@pytest.mark.parametrize("bind", [False, True])
def test_bound_tasks_look_like_others(eager, run, bind):
    """A deriver is called with the request first, whether the task is bound or not."""

    def deriver(task, info):
        return lambda request, *args, **kwargs: (
            *(isinstance(request, Request), args, kwargs),
            task(request, *args, **kwargs),
        )

    def bound(self, request, x, y):
        return self.name, x, y

    def plain(request, x, y):
        return request.current_task.name, x, y

    eager.add_task_deriver(deriver)
    result = run(1, func=bound if bind else plain, options={"bind": bind}, y=2)
    assert result == (True, (1,), {"y": 2}, ("it", 1, 2))


def test_deriver_changes_arguments_and_result(eager, run):
    """A deriver decides about both, also by options of its own, which Celery keeps."""

    def deriver(task, info):
        factor = info.options.get("factor", 1)
        return lambda request, x: -task(request, x * factor, y=1)

    eager.add_task_deriver(deriver)
    assert run(2, options={"factor": 100}) == -201


def test_arguments_are_still_checked(add_derivers, run):
    """Derivers do not hide the signature of the task from Celery."""
    add_derivers({"a": {}})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        run()


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
    assert run(0, func=lambda request, x: 1 // x) == "handled"


def test_deriver_runs_inside_the_request(eager, run):
    """A deriver has the whole request: properties, root and threadlocals."""
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
    run(1)
    assert seen == [(42, True), "finished"]
