"""What Celery reads off a task: what it reads off the function, without a request."""

from __future__ import annotations

import functools
import inspect

import celery
import pytest
from celery import Celery
from celery.exceptions import Ignore

from pyramid_tasks import AfterTask
from pyramid_tasks.worker.contexts import HEADER

CELERY = tuple(map(int, celery.__version__.split(".")[:2]))


def without_request(func, *, bind):
    """Return a function as its author would write it for Celery."""
    signature = inspect.signature(func)
    parameters = list(signature.parameters.values())
    del parameters[bind]
    source = f"def {func.__name__}{signature.replace(parameters=parameters)}: ..."
    found = {"__name__": func.__module__}
    exec(compile(source, __file__, "exec", dont_inherit=True), found)
    plain = found[func.__name__]
    plain.__doc__, plain.__qualname__ = func.__doc__, func.__qualname__
    return plain


def add(request, x: int, y: str = "1", *args, z, **kwargs) -> list:
    """Add."""


def none(request): ...


def positional(request, x, /, y=None): ...


def bound(self, request, x, *, y=2):
    """Be bound."""


def read(task):
    """Return what Celery, and who else asks, reads off a task."""
    is_bound = isinstance(task.__header__, functools.partial)
    return {
        "signatures": [
            inspect.signature(each) for each in (task, task.run, task.__wrapped__)
        ],
        "check": None if is_bound else inspect.signature(task.__header__),
        "names": [
            (each.__name__, each.__qualname__, each.__module__, each.__doc__)
            for each in (task, task.run, task.__wrapped__)
        ],
        "annotations": task.__annotations__,
        "code": [bool(task.run.__code__), bool(task.__wrapped__.__code__)],
        "repr": repr(task).partition(" of ")[0],
        "class": (type(task).__name__, type(task).__mro__[1].__name__),
        "compat": task.__v2_compat__,
        "typing": task.typing,
        "retries": [task.max_retries, hasattr(task, "_orig_run")],
        "signature": dict(task.s(1)),
        "chunks": dict(task.chunks([(1,)], 1)),
        "starmap": dict(task.starmap([(1,)])),
    }


@pytest.mark.parametrize("options", [{}, {"autoretry_for": (OSError,)}])
@pytest.mark.parametrize("func", [add, none, positional, bound])
def test_read(make_task, func, options):
    """A task has the names, the signatures and the options that it has in Celery."""
    options = {"name": "it", "bind": func is bound, **options}
    plain = Celery(set_as_current=False).task(
        without_request(func, bind=func is bound), lazy=False, shared=False, **options
    )
    assert read(make_task(func, **options)) == read(plain)


def test_direct_calls(make_task):
    """A call of the task, and of what it wraps, has a request."""
    task = make_task(lambda request, x: (request.url, x))
    assert task(1) == task.run(1) == task.__wrapped__(1) == ("http://localhost/", 1)


def test_annotation_around_run(configure, make_task):
    """Celery's task_annotations can wrap the function of a task."""

    def around(run):
        return lambda self, *args: ("around", run(self, *args))

    config = configure(**{"celery.task_annotations": {"*": {"@run": around}}})
    task = make_task(lambda self, request, x: x, config=config, bind=True)
    assert task.apply((1,)).get() == ("around", 1)


def test_annotation_that_answers(configure, make_task):
    """It can also answer for the task, which then does not run and has no event."""
    told = []
    annotations = {"*": {"@run": lambda run: lambda self: "cached"}}
    config = configure(**{"celery.task_annotations": annotations})
    config.add_subscriber(told.append, AfterTask)
    task = make_task(lambda request: told.append("ran"), config=config)
    assert task.apply().get() == "cached"
    assert told == []


RETRIES = [
    ((1, 2), {}, {"kwargs": {"foo": 7}}),
    ((1, 2), {}, {"kwargs": {"bar": 7}}),
    ((1,), {"bar": 2}, {"args": (7, 8)}),
    ((1,), {"bar": 2}, {"args": (7,)}),
    ((), {"foo": 1, "bar": 2}, {"args": (7,), "kwargs": {}}),
    ((1, 2, 3), {}, {"kwargs": {"foo": 7}}),
    ((1, 2), {"more": 3}, {"args": (7, 8)}),
    ((1, 2), {}, {}),
]


@pytest.mark.parametrize("autoretry", [False, True])
@pytest.mark.parametrize(("args", "kwargs", "again"), RETRIES)
def test_retry(make_task, args, kwargs, again, autoretry):
    """A retry with other arguments runs with those that it has in Celery."""

    def plain(self, foo=0, bar=0, *args, **kwargs):
        if self.request.retries:
            return foo, bar, args, kwargs
        if autoretry:
            raise OSError
        raise self.retry(countdown=0, **again)

    def task(self, request, foo=0, bar=0, *args, **kwargs):
        return plain(self, foo, bar, *args, **kwargs)

    options = {"name": "it", "bind": True}
    if autoretry:
        retry_kwargs = {"countdown": 0, **again}
        options |= {"autoretry_for": (OSError,), "retry_kwargs": retry_kwargs}
    expected = Celery(set_as_current=False).task(plain, shared=False, **options)
    results = [
        each.apply(args, kwargs) for each in (make_task(task, **options), expected)
    ]
    first, second = (
        (each.state, each.successful() and each.result) for each in results
    )
    assert first == second


@pytest.fixture
def fail_with(configure, make_task):
    """Return a function that has a task fail with a link_error, and what this got."""

    def fail_with(errback, *args, **options):
        told = []

        def tell(task, info):
            def derived(request, *args, **kwargs):
                told.append((request.host, args, task(request, *args, **kwargs)))

            return derived if info.name == "errback" else task

        settings = {"celery.result_backend": "cache+memory://"}
        config = configure(**settings, **{"pyramid_tasks.context": "host"})
        config.add_task_deriver(tell)
        fail = make_task(lambda request: 1 / 0, "fail", config=config)
        link_error = make_task(errback, "errback", config=config, **options).s(*args)
        headers = {HEADER: '{"host": {"HTTP_HOST": "example.com"}}'}
        fail.apply(task_id="id", headers=headers, link_error=link_error)
        return told

    return fail_with


def test_errback_of_the_new_style(fail_with):
    """A link_error with several arguments is called with what failed."""

    def errback(request, failed, error, traceback, more=None):
        return failed.id, type(error), "1 / 0" in str(traceback)

    ((host, args, result),) = fail_with(errback)
    assert (host, len(args)) == ("example.com", 3)
    assert result == ("id", ZeroDivisionError, True)
    ((_, args, _),) = fail_with(errback, "more")
    assert args[3:] == ("more",)


@pytest.mark.parametrize(
    ("errback", "options"),
    [
        (lambda request, task_id: task_id, {}),
        (lambda self, request, task_id: task_id, {"bind": True}),
        (lambda self, request, task_id, *more: task_id, {"bind": True}),
    ],
)
def test_errback_of_the_old_style(fail_with, errback, options):
    """A link_error with one argument, or bound, is sent with the id."""
    assert [told[1:] for told in fail_with(errback, **options)] == [(("id",), "id")]


def test_annotations_that_only_type_checkers_know(make_task):
    """Annotations that cannot be evaluated are no error."""

    def task(request: Unknown, x: Unknown) -> Unknown: ...  # noqa: F821

    found = make_task(task)
    with pytest.raises(TypeError):
        found.delay()


def test_handlers(make_task):
    """The handlers of a task's own class get the arguments without the request."""
    told = []

    class Base(celery.Task):
        def before_start(self, *args):
            told.append(args)

        on_success = before_start

    make_task(lambda request, x: x, base=Base).apply((1,), task_id="id")
    assert told == [("id", (1,), {}), (1, "id", (1,), {})]


def test_replace(configure, make_task):
    """A task can replace itself."""
    config = configure(**{"celery.result_backend": "cache+memory://"})
    double = make_task(lambda request, x: 2 * x, "double", config=config)
    task = make_task(
        lambda self, request, x: self.replace(double.s(x)), config=config, bind=True
    )
    assert task.apply((2,)).get() == 4
    with pytest.raises(Ignore):
        task.on_replace(double.s(1))
