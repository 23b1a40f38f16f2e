"""The request of a task is the one that pyramid.scripting.prepare makes."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.decorator import reify
from pyramid.interfaces import IRequest, IRequestFactory
from pyramid.request import Request
from pyramid.scripting import prepare
from zope.interface import Interface, implementedBy, implementer, providedBy

from pyramid_tasks.worker.request import get_runner


class IMarked(Interface):
    """What a request class of an application may implement."""


class Plain(Request):
    """A request class with names of its own, which extensions may hide."""

    a = "of the class"

    def b(self):
        return "of the class"


@implementer(IMarked)
class Marked(Plain):
    @reify
    def c(self):
        return "of the class"


class WithContext(Request):
    def __init__(self, environ):
        super().__init__(environ)
        self.context = "its own"


FACTORIES = {
    "none": None,
    "the class": Request,
    "a subclass": Plain,
    "a subclass with an interface": Marked,
    "a subclass with a context": WithContext,
    "a function": lambda environ: Marked(environ),  # noqa: PLW0108 no class
    "a function that sets something": lambda environ: Request(environ, charset="utf-8"),
}

NAMES = ["a", "b", "c", "d", "e"]

KINDS = ["method", "property", "reify"]


def add(config: Configurator, name: str, kind: str) -> None:
    def value(request, *args):
        return [name, args, request.registry is config.registry]

    options = {} if kind == "method" else {kind: True}
    config.add_request_method(value, name, **options)


def look(request) -> dict[str, object]:
    """Return all that can be seen of a request, and of what is done to it."""
    cls, *bases = type(request).__mro__
    seen: dict[str, object] = {
        "class": (cls.__name__, cls.__module__, bases),
        "names": sorted(set(dir(request)) - {"environ", "root"}),
        "provides": list(providedBy(request)),
        "implements": implementedBy(cls) is implementedBy(bases[0]),
        "adapter": request.registry.queryAdapter(request, IMarked, default=None),
        "context": type(request.context),
        "url": request.route_url("somewhere", id=7),
    }
    for name in NAMES:
        value = getattr(request, name, None)
        seen[name] = value() if callable(value) else value
        is_same = value is getattr(request, name, None)
        seen[f"{name} again"] = is_same and not callable(value)
    request.set_property(lambda request: "own", "own", reify=True)
    if not callable(getattr(request, "a", None)):
        # A property set under the name of a method does hide it in a task only, where
        # the method belongs to the class.
        request.set_property(lambda request: "hides", "a")
    seen["own"] = (request.own, type(request).__name__)
    for name in NAMES:
        with suppress(AttributeError):
            setattr(request, name, "set")
            seen[f"set {name}"] = getattr(request, name)
    return seen


extension = st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS))
extensions = st.lists(extension, unique_by=lambda pair: pair[0])


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(extensions, extensions, st.sampled_from(sorted(FACTORIES)))
def test_request_is_that_of_prepare(first, later, factory):
    """Whatever an application adds to requests, and when, both show the same."""
    config = Configurator(request_factory=FACTORIES[factory])
    config.include("pyramid_tasks")
    config.add_route("somewhere", "/somewhere/{id}")
    config.registry.registerAdapter(
        lambda request: "adapted", (IRequest,), IMarked, event=False
    )
    for name, kind in first:
        add(config, name, kind)

    def task(request):
        factory = request.registry.queryUtility(IRequestFactory, default=Request)
        scripted = factory(Request.blank("/").environ)
        with prepare(request=scripted, registry=request.registry):
            return look(request), look(scripted)

    config.register_task(task, name="look")
    celery_task = config.make_celery_app().tasks["look"]
    for more in ([], later):
        for name, kind in more:
            add(config, name, kind)
        config.commit()
        for _ in range(2):  # the second finds what the first has made
            ours, theirs = celery_task.apply().get()
            assert ours == theirs
        assert {name for name, _ in more} <= {*ours["names"]}


def test_class_is_made_once(config, run):
    """All tasks share the class of their requests, but not what is set on one."""
    classes, values = [], []

    def task(request):
        classes.append(type(request))
        values.append(request.cached)
        request.set_property(lambda _: "own", "own", reify=True)
        assert request.own == "own"
        assert not hasattr(classes[0], "own")

    config.add_request_method(lambda _: object(), "cached", reify=True)
    for _ in range(2):
        run(task).get()
    assert classes[0] is classes[1]
    assert values[0] is not values[1]


def test_factory_that_makes_classes(config):
    """Classes that a request factory makes for each request are not kept."""

    def factory(environ):
        return type("Own", (Request,), {})(environ)

    config.set_request_factory(factory)
    config.register_task(lambda request: None, name="it")
    task = config.make_celery_app().tasks["it"]
    for _ in range(100):
        task.apply()
    gc.collect()
    assert sum(cls.__name__ == "Own" for cls in Request.__subclasses__()) < 50
    assert 1 < len(get_runner(config.registry)._classes._classes) <= 16


@pytest.mark.parametrize("factory", sorted(FACTORIES))
def test_nothing_is_left_behind(config, factory):
    """Looking up adapters for the requests of tasks leaves no trace of them."""
    if FACTORIES[factory] is not None:
        config.set_request_factory(FACTORIES[factory])
    config.add_request_method(lambda request: 1, "one", property=True)

    def look_up(request):
        request.registry.queryAdapter(request, IMarked)

    config.register_task(look_up, name="it")
    task = config.make_celery_app().tasks["it"]

    def count(runs: int) -> int:
        for _ in range(runs):
            task.apply()
        gc.collect()
        return len(gc.get_objects())

    before = count(20)
    assert count(200) - before < 100
