"""config.register_task, add_periodic_task and make_celery_app; the task decorator."""

from __future__ import annotations

import functools
import inspect
from datetime import timedelta

import celery
import pytest
from celery import Celery, Task
from celery.schedules import crontab, schedule
from pyramid.config import Configurator
from pyramid.exceptions import (
    ConfigurationConflictError,
    ConfigurationError,
    ConfigurationExecutionError,
)

from pyramid_tasks import PyramidTasksError, task
from pyramid_tasks.exceptions import AmbiguousTask, TaskError, TaskNotRegistered
from pyramid_tasks.registry import get_tasks

CELERY = tuple(int(part) for part in celery.__version__.split(".")[:2])


def run(app, name, *args, **kwargs):
    """Run a task in this process, as a worker does."""
    return app.tasks[name].apply(args, kwargs).get()


def add(request, x, y=1):
    """Add two numbers."""
    return x + y


def bound(self, request, x):
    return self.name, request.current_task is self, x


def other(request):
    return "other"


@functools.wraps(add)
def decorated(*args, **kwargs):
    return add(*args, **kwargs)


class Adder:
    """A callable object, without a name."""

    def __call__(self, request, x):
        return x + 1

    def method(self, request, x):
        return x + 2

    @classmethod
    def of_class(cls, request, x):
        return x + 3

    @staticmethod
    def static(request, x):
        return x + 4


class Unhashable(Adder):
    __hash__ = None


class Named(Adder):
    def __init__(self):
        self.__name__ = "own_name"


# config.register_task


@pytest.mark.parametrize(
    "func",
    [
        pytest.param(add, id="function"),
        pytest.param(f"{__name__}.add", id="dotted name"),
        pytest.param(f"{__name__}:add", id="dotted name with a colon"),
    ],
)
def test_register_task(configure, func):
    """A function, or its dotted name, is registered under Celery's name for it."""
    config = configure()
    config.register_task(func)
    app = config.make_celery_app()
    assert app.tasks[f"{__name__}.add"].name == f"{__name__}.add"
    assert run(app, f"{__name__}.add", 2, y=3) == 5


def test_register_task_with_a_name(configure):
    """A name replaces Celery's, and the function is found all the same."""
    config = configure()
    config.register_task(add, name="plus")
    app = config.make_celery_app()
    assert run(app, "plus", 2) == 3
    assert f"{__name__}.add" not in app.tasks
    assert get_tasks(config.registry).find(add) is app.tasks["plus"]


@pytest.mark.parametrize("name", ["relative", "relative with a colon"])
def test_register_task_with_a_relative_name(configure, name):
    """A dotted name that begins with a dot is relative to the package."""
    config = configure()
    config.include("scanned")
    config.scan("scanned.tasks")
    assert run(config.make_celery_app(), name, 1) == ("undecorated", 1)


def test_register_task_with_a_missing_dotted_name(configure):
    """A dotted name that leads nowhere is an error at once."""
    with pytest.raises(ImportError):
        configure().register_task("exampleapp.nothing")


@pytest.mark.parametrize(
    ("func", "result"),
    [
        pytest.param(lambda request, x: x * 2, 2, id="lambda"),
        pytest.param(functools.partial(add, y=10), 11, id="partial"),
        pytest.param(Adder(), 2, id="object"),
        pytest.param(Unhashable(), 2, id="unhashable object"),
        pytest.param(Named(), 2, id="object with a name"),
        pytest.param(Adder().method, 3, id="method"),
        pytest.param(Adder.of_class, 4, id="class method"),
        pytest.param(Adder.static, 5, id="static method"),
        pytest.param(decorated, 2, id="wraps"),
    ],
)
def test_any_callable_with_a_name(configure, func, result):
    """Whatever can be called can be a task when it is given a name."""
    config = configure()
    config.register_task(func, name="it")
    app = config.make_celery_app()
    assert run(app, "it", 1) == result
    assert get_tasks(config.registry).find(func) is app.tasks["it"]
    with pytest.raises(TypeError):
        app.tasks["it"].delay()


@pytest.mark.parametrize(
    "func",
    [
        pytest.param(lambda request: None, id="lambda"),
        pytest.param(functools.partial(add, y=10), id="partial"),
        pytest.param(Adder(), id="object"),
    ],
)
def test_callable_without_a_name(configure, func):
    """What has no name of its own is refused, with what to do."""
    with pytest.raises(TaskError, match=r"no name of its own.*name='\.\.\.'") as caught:
        configure().register_task(func)
    assert repr(func) in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, PyramidTasksError)


class Generators:
    def __call__(self, request):
        yield 1

    async def asynchronous(self, request):
        yield 1


def generator(request):
    yield 1


@pytest.mark.parametrize(
    ("func", "named", "kind"),
    [
        (Adder, "Adder cannot be", "a class: register a function"),
        (generator, "generator cannot be", "a generator function"),
        (functools.partial(generator), "partial", "a generator function"),
        (Generators(), "Generators object", "a generator function"),
        (Generators().asynchronous, "asynchronous", "an async generator function"),
    ],
)
def test_callable_that_would_not_run(configure, func, named, kind):
    """A call of these gives no result: they are refused, with what to do."""
    with pytest.raises(TaskError, match=f"{named}.* It is {kind}"):
        configure().register_task(func, name="it")


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (Named(), "own_name"),
        (Adder().method, "method"),
        (Adder.of_class, "of_class"),
        (Adder.static, "static"),
    ],
)
def test_callable_with_a_name_of_its_own(configure, func, name):
    """A callable that has a name needs no other."""
    config = configure()
    config.register_task(func)
    assert f"{__name__}.{name}" in config.make_celery_app().tasks


@pytest.mark.parametrize("name", ["a name", "a.b:c", "lambda", "grün", "1"])
def test_names_need_not_be_identifiers(configure, name):
    """A task can have any name, which Celery alone would stumble over."""
    config = configure()
    config.register_task(lambda request, x: x, name=name)
    assert run(config.make_celery_app(), name, 1) == 1


def test_bind(configure):
    """With bind, the Celery task comes before the request."""
    config = configure()
    config.register_task(bound, name="bound", bind=True)
    assert run(config.make_celery_app(), "bound", 1) == ("bound", True, 1)


def test_several_names_for_a_function(configure):
    """A function can be several tasks, of which one must then be named."""
    config = configure()
    config.register_task(add, name="one")
    config.register_task(add, name="two", rate_limit="1/m")
    app = config.make_celery_app()
    assert run(app, "one", 1) == run(app, "two", 1) == 2
    for given in add, f"{__name__}.add", f"{__name__}:add":
        with pytest.raises(AmbiguousTask, match="'one', 'two'") as caught:
            get_tasks(config.registry).find(given)
        assert caught.value.names == ["one", "two"]
        assert caught.value.task == given


def test_function_stays_callable(configure):
    """Registering a function does not change it."""
    config = configure()
    config.register_task(add)
    config.commit()
    assert add(None, 1, 2) == 3
    assert str(inspect.signature(add)) == "(request, x, y=1)"


def test_task_looks_like_its_function(configure):
    """Tools that list tasks see the name, the module and the docstring."""
    config = configure()
    config.register_task(add)
    found = config.make_celery_app().tasks[f"{__name__}.add"]
    assert found.__doc__ == "Add two numbers."
    assert found.__module__ == __name__
    assert found.__qualname__ == "add"


@pytest.mark.parametrize(
    ("func", "bind", "missing"),
    [
        (lambda: None, False, "request"),
        (lambda *, request: None, False, "request"),
        (lambda **kwargs: None, False, "request"),
        (lambda: None, True, "self"),
        (lambda self: None, True, "request"),
        (lambda self, *, request: None, True, "request"),
    ],
)
def test_task_without_a_request(configure, func, bind, missing):
    """A function that cannot take the request is refused when it is registered."""
    expected = r"\(self, request, \.\.\.\)" if bind else r"\(request, \.\.\.\)"
    with pytest.raises(TaskError, match=expected) as caught:
        configure().register_task(func, name="it", bind=bind)
    assert str(caught.value).startswith("The task 'it' must take")
    assert str(caught.value).endswith(f"no positional parameter for {missing}")


@pytest.mark.parametrize(
    ("func", "bind"),
    [
        (lambda *args: args[1:], False),
        (lambda request, /, *args: args, False),
        (lambda anything, *args: args, False),
        (lambda *args: args[2:], True),
        (lambda self, *args: args[1:], True),
        (lambda self, request, /, *args: args, True),
    ],
)
def test_ways_to_take_a_request(configure, func, bind):
    """The request is the first positional argument, whatever its name."""
    config = configure()
    config.register_task(func, name="it", bind=bind)
    assert run(config.make_celery_app(), "it", 1, 2) == (1, 2)


@pytest.mark.parametrize("name", ["request", "self", "func_or_name", "task", "args"])
@pytest.mark.parametrize("bind", [False, True])
def test_parameters_of_any_name(eager, name, bind):
    """No name of a parameter is taken by this package."""
    source = f"lambda {'s, ' if bind else ''}r, {name}: {name}"
    eager.register_task(eval(source), name="it", bind=bind)
    found = eager.make_celery_app().tasks["it"]
    assert found.apply_async(kwargs={name: 1}).get() == 1
    with pytest.raises(TypeError):
        found.apply_async((1,), {name: 1})


@pytest.mark.parametrize("name", ["self", "func_or_name", "task", "args", "kwargs"])
def test_any_keyword_argument(eager, name):
    """A task that takes any keyword takes those names too."""
    eager.register_task(lambda request, **kwargs: kwargs, name="it")
    found = eager.make_celery_app().tasks["it"]
    assert found.apply_async(kwargs={name: 1}).get() == {name: 1}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
        ((), {"y": 1}),
        ((1,), {"request": None}),
    ],
)
@pytest.mark.parametrize("bind", [False, True])
def test_arguments_are_checked(configure, args, kwargs, bind):
    """Celery checks arguments by the task's signature, less the request."""

    def task(request, x, y=1): ...

    def bound_task(self, request, x, y=1): ...

    config = configure()
    config.register_task(bound_task if bind else task, name="it", bind=bind)
    found = config.make_celery_app().tasks["it"]
    with pytest.raises(TypeError):
        found.apply_async(args, kwargs)


def test_keyword_only_arguments_are_checked(eager):
    """Keyword-only parameters are part of the signature."""

    def task(request, *, x, y=2):
        return x, y

    eager.register_task(task, name="it")
    found = eager.make_celery_app().tasks["it"]
    assert found.delay(x=1).get() == (1, 2)
    with pytest.raises(TypeError):
        found.delay(1)
    with pytest.raises(TypeError):
        found.delay()


def test_typing_false(eager):
    """With typing=False, Celery does not check arguments: the task fails instead."""
    eager.register_task(add, name="it", typing=False)
    found = eager.make_celery_app().tasks["it"]
    assert found.apply_async((1, 2, 3), throw=False).state == "FAILURE"


# Conflicts.


def test_conflict(configure):
    """Two tasks of one name conflict, and the message names both places."""
    config = configure()
    config.register_task(add, name="same")
    first = inspect.currentframe().f_lineno - 1
    config.register_task(other, name="same")
    second = inspect.currentframe().f_lineno - 1
    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    for line in first, second:
        assert f"Line {line} of file {__file__}" in str(caught.value)
    assert "('task', 'same')" in str(caught.value)


def test_conflict_of_decorators(configure):
    """Two decorated functions of one name conflict, each shown with its file."""
    config = configure()
    config.scan("scanned.conflicting")
    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    said = str(caught.value)
    assert said.count("conflicting.py") == 2
    assert "def one" in said or '@task(name="twice")' in said
    assert len({line for line in said.splitlines() if "Line " in line}) == 2


def test_same_task_twice(configure):
    """A function registered twice under one name conflicts too."""
    config = configure()
    config.register_task(add)
    config.register_task(add)
    with pytest.raises(ConfigurationConflictError, match=f"{__name__}.add"):
        config.commit()


def test_application_overrides_what_it_includes(configure):
    """As for views, a task of the application wins over that of an add-on."""
    config = configure()
    config.include(lambda config: config.register_task(add, name="same"))
    config.register_task(other, name="same")
    assert run(config.make_celery_app(), "same") == "other"


@pytest.mark.parametrize("autocommit", [False, True])
def test_later_registration_wins(autocommit):
    """After a commit, a name can be registered anew, as in all of Pyramid."""
    config = Configurator(autocommit=autocommit)
    config.include("pyramid_tasks")
    config.register_task(add, name="same")
    config.commit()
    config.register_task(other, name="same")
    assert run(config.make_celery_app(), "same") == "other"
    assert get_tasks(config.registry).find(other).name == "same"
    with pytest.raises(TaskNotRegistered):
        get_tasks(config.registry).find(add)


def test_autocommit():
    """With autocommit, as in tests, a task is there at once."""
    config = Configurator(autocommit=True)
    config.include("pyramid_tasks")
    config.register_task(add, name="it")
    assert run(get_tasks(config.registry).app, "it", 1) == 2


# @task and config.scan()


@pytest.fixture
def scanned(configure):
    """Return the Celery application with the tasks of a scanned package."""
    config = configure()
    config.scan("scanned.tasks")
    return config.make_celery_app()


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("scanned.tasks.plain", (1,), ("plain", 1)),
        ("scanned.tasks.with_parentheses", (1,), ("with_parentheses", 1)),
        ("its own name", (1,), ("named", 1)),
        ("scanned.tasks.bound", (1,), ("scanned.tasks.bound", True, 1)),
        ("first", (), "stacked"),
        ("second", (), "stacked"),
    ],
)
def test_decorated_tasks(scanned, name, args, result):
    """config.scan() registers each decorated function."""
    assert run(scanned, name, *args) == result


def test_decorated_tasks_only(scanned):
    """What is not decorated is no task."""
    assert {name for name in scanned.tasks if name.startswith("scanned.")} == {
        "scanned.tasks.plain",
        "scanned.tasks.with_parentheses",
        "scanned.tasks.periodic",
        "scanned.tasks.bound",
    }


def test_decorator_options(scanned):
    """Each decorator keeps the options of its own."""
    assert scanned.tasks["its own name"].rate_limit == "10/m"
    assert scanned.tasks["second"].max_retries == 7
    assert scanned.tasks["first"].max_retries == Task.max_retries


def test_decorator_registers_nothing_without_a_scan(configure):
    """Importing a module of tasks registers none of them."""
    config = configure()
    config.register_task("scanned.tasks.undecorated")
    assert "scanned.tasks.plain" not in config.make_celery_app().tasks


def test_decorated_function_stays_as_it_was():
    """The decorator returns the function itself."""

    def func(request, x):
        return x

    assert task(func) is func
    assert task(name="x")(func) is func
    assert func(None, 1) == 1


@pytest.mark.parametrize("decorator", [task, task(), task(name="x", bind=True)])
def test_method_is_refused(decorator):
    """A method cannot be a task: it has no object to be called on."""
    with pytest.raises(TaskError, match="Sender.send is a method; only functions"):

        class Sender:
            @decorator
            def send(self, request): ...


def test_decorator_takes_one_function():
    """A name given without its keyword is a mistake, not a function."""
    with pytest.raises((TypeError, AttributeError)):
        task("a name")


def test_two_applications_can_scan_one_module(configure):
    """Decorated functions belong to every application that scans them."""
    for _ in range(2):
        config = configure()
        config.scan("scanned.tasks")
        assert run(config.make_celery_app(), "first") == "stacked"


# Introspection.


def test_task_is_introspectable(configure):
    """Tools such as pdebugtoolbar can list the tasks of an application."""
    config = configure()
    config.register_task("exampleapp.add", name="plus", rate_limit="1/m")
    config.commit()
    found = config.registry.introspector.get("tasks", "plus")
    assert found.type_name == "task"
    assert found.title == "plus"
    assert found["name"] == "plus"
    assert found["func"].__name__ == "add"
    assert found["dotted"] == "exampleapp.add"
    assert found["options"] == {"rate_limit": "1/m"}
    assert found["bind"] is False
    assert found["derivers"] == []
    assert found.action_info.file == __file__


def test_periodic_task_is_introspectable(configure):
    """The schedule of an application can be listed too."""
    config = configure()
    config.register_task(add, name="plus")
    config.add_periodic_task(60, "plus", (1,), {"y": 2}, name="often", queue="slow")
    config.commit()
    found = config.registry.introspector.get("periodic tasks", "often")
    assert found.type_name == "periodic task"
    assert dict(found) == {
        "schedule": 60,
        "task": "plus",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {"queue": "slow"},
    }
    (task,) = config.registry.introspector.related(found)
    assert task is config.registry.introspector.get("tasks", "plus")


@pytest.mark.parametrize("autocommit", [False, True])
def test_introspection_switched_off(*, autocommit):
    """An application without introspection has its tasks all the same."""
    config = Configurator(
        settings={"celery.broker_url": "memory://"},
        introspection=False,
        autocommit=autocommit,
    )
    config.include("pyramid_tasks")
    config.add_task_deriver(lambda task, info: task, name="plain")
    config.register_task(add, name="plus")
    config.add_periodic_task(60, "plus", (1, 2), name="often")
    app = config.make_celery_app()
    assert "plus" in app.tasks
    assert list(app.conf.beat_schedule) == ["often"]
    assert not config.registry.introspector.get_category("tasks")


# config.add_periodic_task


@pytest.fixture
def periodic(configure):
    """Return a function that adds a periodic task and gives beat's entry for it."""

    def periodic(*args, **kwargs):
        config = configure()
        config.include("scanned")
        config.scan("scanned.tasks")
        config.add_periodic_task(*args, **kwargs)
        entries = dict(config.make_celery_app().conf.beat_schedule)
        del entries["relative"]
        return entries

    return periodic


def test_periodic_task_is_named_in_each_way(periodic, configure):
    """The function, its dotted name or the registered name stand for the task."""
    from scanned.tasks import periodic as func

    for given in (
        func,
        "scanned.tasks.periodic",
        "scanned.tasks:periodic",
    ):
        (entry,) = periodic(30, given).values()
        assert entry["task"] == "scanned.tasks.periodic"
        assert entry["schedule"] == 30


def test_periodic_task_by_relative_name(configure):
    """A dotted name may be relative to the package that adds it."""
    config = configure()
    config.include("scanned")
    config.scan("scanned.tasks")
    entries = config.make_celery_app().conf.beat_schedule
    assert entries["relative"]["task"] == "scanned.tasks.periodic"


def test_periodic_task_by_celery_task(configure):
    """The Celery task itself stands for the task."""
    config = configure()
    config.register_task(add, name="plus")
    app = config.make_celery_app()
    config.add_periodic_task(30, app.tasks["plus"], (1,), name="x")
    config.commit()
    assert app.conf.beat_schedule["x"]["task"] == "plus"


def test_periodic_task_before_its_task(configure):
    """The order of the two does not matter, nor where they are."""
    config = configure()
    config.add_periodic_task(30, "plus", (1,), name="x")
    config.include(lambda config: config.register_task(add, name="plus"))
    assert config.make_celery_app().conf.beat_schedule["x"]["args"] == (1,)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (30, 30),
        (0.5, 0.5),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (crontab(hour="3"), crontab(hour="3")),
        (schedule(10), schedule(10)),
        ("0 3 * * *", crontab(minute="0", hour="3")),
        ("45", 45),
    ],
)
def test_schedules(periodic, given, found):
    """A schedule is any that Celery knows, or one as in an ini."""
    (entry,) = periodic(given, "scanned.tasks.periodic").values()
    assert entry["schedule"] == found


@pytest.mark.parametrize("text", ["daily", "* * * *", "99 * * * *", "-1"])
def test_wrong_schedule(configure, text):
    """A schedule that cannot be read is an error at once."""
    config = configure()
    with pytest.raises(ConfigurationError, match="schedule") as caught:
        config.add_periodic_task(text, "whatever")
    assert repr(text) in str(caught.value)


def test_periodic_task_arguments_and_options(periodic):
    """Arguments and the options of apply_async reach the entry."""
    entries = periodic(
        30, "its own name", args=[1], name="mine", expires=60, queue="slow"
    )
    assert entries == {
        "mine": {
            "schedule": 30,
            "task": "its own name",
            "args": (1,),
            "kwargs": {},
            "options": {"expires": 60, "queue": "slow"},
        }
    }
    (entry,) = periodic(30, "its own name", kwargs={"x": 1}).values()
    assert entry["kwargs"] == {"x": 1}


def test_periodic_task_conflict(configure):
    """One task on two schedules with the same arguments needs names."""
    config = configure()
    config.register_task(add)
    config.add_periodic_task(30, add, (1,))
    first = inspect.currentframe().f_lineno - 1
    config.add_periodic_task(60, add, (1,))
    second = inspect.currentframe().f_lineno - 1
    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    assert f"Line {first} of file {__file__}" in str(caught.value)
    assert f"Line {second} of file {__file__}" in str(caught.value)
    assert "add(1)" in str(caught.value)


def test_periodic_task_several_times(configure):
    """Other arguments or other names make other entries."""
    config = configure()
    config.register_task(add)
    config.add_periodic_task(30, add, (1,))
    config.add_periodic_task(30, add, (2,))
    config.add_periodic_task(30, add, (2,), {"y": 1})
    config.add_periodic_task(60, add, (1,), name="slow")
    entries = config.make_celery_app().conf.beat_schedule
    assert sorted(entries) == ["add(1)", "add(2)", "add(2, y=1)", "slow"]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1})]
)
def test_periodic_task_with_wrong_arguments(configure, args, kwargs):
    """Arguments the task does not take are an error of the configuration."""
    config = configure()
    config.register_task(add, name="plus")
    config.add_periodic_task(30, "plus", args, kwargs)
    line = inspect.currentframe().f_lineno - 1
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, TypeError)
    assert f"Line {line} of file {__file__}" in str(caught.value)


def test_periodic_task_without_typing(configure):
    """With typing=False, Celery checks no arguments, here neither."""
    config = configure()
    config.register_task(add, name="plus", typing=False)
    config.add_periodic_task(30, "plus", (1, 2, 3), name="x")
    assert config.make_celery_app().conf.beat_schedule["x"]["args"] == (1, 2, 3)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("plu", "plus"), ("Plus", "plus"), ("completely different", None), (other, None)],
)
def test_periodic_task_that_is_not_registered(configure, given, nearest):
    """A task that is not there is an error with the nearest name."""
    config = configure()
    config.register_task(add, name="plus")
    config.add_periodic_task(30, given)
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.commit()
    error = caught.value.evalue
    assert isinstance(error, TaskNotRegistered)
    assert error.nearest == nearest
    assert (f"Did you mean {nearest!r}?" in str(error)) == bool(nearest)


def test_periodic_task_that_is_ambiguous(configure):
    """A function with several names needs one here too."""
    config = configure()
    config.register_task(add, name="one")
    config.register_task(add, name="two")
    config.add_periodic_task(30, add, (1,))
    with pytest.raises(ConfigurationExecutionError, match="Give one") as caught:
        config.commit()
    assert isinstance(caught.value.evalue, AmbiguousTask)


# config.make_celery_app


def test_make_celery_app(configure):
    """The Celery application is that of the registry, with its settings and tasks."""
    config = configure(**{"celery.broker_url": "memory://x"})
    config.register_task(add, name="plus")
    app = config.make_celery_app()
    assert isinstance(app, Celery)
    assert app is get_tasks(config.registry).app
    assert app.conf.broker_url == "memory://x"
    assert "plus" in app.tasks


def test_make_celery_app_commits(configure):
    """Mistakes show when the application is made."""
    config = configure()
    config.register_task(add, name="same")
    config.register_task(other, name="same")
    with pytest.raises(ConfigurationConflictError):
        config.make_celery_app()


def test_make_celery_app_twice(configure):
    """It can be called again, beside make_wsgi_app."""
    config = configure()
    app = config.make_celery_app()
    config.make_wsgi_app()
    assert config.make_celery_app() is app


# The options of Celery.


@pytest.mark.parametrize(
    "options",
    [
        {"rate_limit": "10/m"},
        {"soft_time_limit": 5, "time_limit": 10},
        {"ignore_result": True},
        {"acks_late": True, "reject_on_worker_lost": True},
        {"serializer": "yaml"},
        {"typing": False},
        {"max_retries": None, "default_retry_delay": 1},
        {"throws": (ValueError,)},
        {"track_started": True},
        {"store_errors_even_if_ignored": True, "expires": 60},
        {"an_option_of_a_deriver": "x"},
    ],
)
def test_options_are_kept(configure, options):
    """Options are attributes of the Celery task, as Celery has it."""
    config = configure()
    config.register_task(add, name="it", **options)
    found = config.make_celery_app().tasks["it"]
    assert {key: getattr(found, key) for key in options} == options


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("rate_limit", "often", "= often is not a rate"),
        ("serializer", "jsn", "= jsn is not one of .* Did you mean json"),
        ("compression", "gzp", "= gzp is not one of .* Did you mean gzip"),
        ("delivery_mode", "kept", "= kept is not one of 1, 2"),
    ],
)
def test_options_that_celery_cannot_use(configure, option, value, said):
    """The application does not start with a value that ends a worker or a request."""
    config = configure()
    config.register_task(add, name="it", **{option: value})
    with pytest.raises(ConfigurationError, match=f"The task it: {option} {said}"):
        config.make_celery_app()


def test_settings_are_the_defaults_of_tasks(configure):
    """What an option does not say, the settings of Celery do."""
    config = configure(
        **{"celery.task_acks_late": "true", "celery.task_default_rate_limit": "5/m"}
    )
    config.register_task(add, name="it")
    config.register_task(other, name="other", acks_late=False)
    app = config.make_celery_app()
    assert app.tasks["it"].acks_late is True
    assert app.tasks["it"].rate_limit == "5/m"
    assert app.tasks["other"].acks_late is False


def test_base(configure):
    """A task can have a class of its own, whose hooks run."""
    seen = []

    class Base(Task):
        def on_success(self, retval, task_id, args, kwargs):
            seen.append((retval, args))

    config = configure()
    config.register_task(add, name="it", base=Base)
    app = config.make_celery_app()
    assert isinstance(app.tasks["it"], Base)
    assert run(app, "it", 1) == 2
    assert seen == [(2, (1,))]


def test_base_with_its_own_call(configure):
    """A class that overrides __call__ calls the task through it."""

    class Base(Task):
        def __call__(self, *args, **kwargs):
            return "called", super().__call__(*args, **kwargs)

    config = configure()
    config.register_task(add, name="it", base=Base)
    assert run(config.make_celery_app(), "it", 1) == ("called", 2)


def test_autoretry_with_backoff(configure):
    """Celery's own retries run the task again, each time with a new request."""
    requests = []

    def fail(request):
        requests.append(request)
        raise OSError("again")

    config = configure()
    config.register_task(
        fail,
        name="it",
        autoretry_for=(OSError,),
        retry_backoff=2,
        retry_jitter=False,
        max_retries=3,
    )
    result = config.make_celery_app().tasks["it"].apply()
    assert isinstance(result.result, OSError)
    assert len(requests) == len(set(map(id, requests))) == 4


def test_autoretry_ends(configure):
    """A task that succeeds when retried has its result."""
    left = [OSError, OSError]

    def flaky(request):
        if left:
            raise left.pop()
        return request.current_task.request.retries

    config = configure()
    config.register_task(flaky, name="it", autoretry_for=(OSError,), max_retries=5)
    assert run(config.make_celery_app(), "it") == 2


# Pydantic.

needs_pydantic = pytest.mark.skipif(
    CELERY < (5, 5), reason="Celery has pydantic=True since 5.5"
)


@pytest.fixture(params=["pydantic_deferred", "pydantic_plain"])
def pydantic(request, eager):
    """Return the tasks of a module with models as arguments."""
    eager.scan(request.param)
    app = eager.make_celery_app()
    return {
        name.removeprefix(f"{request.param}."): found
        for name, found in app.tasks.items()
    }


@needs_pydantic
def test_pydantic(pydantic):
    """Models are validated from their JSON, and dumped when they are returned."""
    charge = pydantic["charge"]
    assert charge.delay({"number": 3}, times=2).get() == {"total": 6}
    assert charge.delay(order={"number": "3"}).get() == {"total": 3}


@needs_pydantic
def test_pydantic_refuses(pydantic):
    """What is not valid fails the task."""
    with pytest.raises(ValueError, match="number"):
        pydantic["charge"].delay({"number": "x"})


@needs_pydantic
def test_pydantic_strict(pydantic):
    """The further options of pydantic are kept."""
    assert pydantic["strict"].delay({"number": 3}).get() == "Order"
    with pytest.raises(ValueError, match="number"):
        pydantic["strict"].delay({"number": "3"})


@needs_pydantic
def test_pydantic_with_bind(pydantic):
    """Models and bind go together."""
    found = pydantic["bound"]
    assert found.delay({"number": 1, "items": ["a"]}).get() == [
        found.name,
        "Request",
        "a",
    ]


@needs_pydantic
def test_pydantic_with_arguments_that_do_not_fit(pydantic):
    """The signature is checked when such a task is queued."""
    for args in (), ({}, 1, 2):
        with pytest.raises(TypeError):
            pydantic["charge"].delay(*args)


@needs_pydantic
def test_pydantic_and_the_annotation_of_the_request(pydantic):
    """The request may be annotated with a name that only type checkers import."""
    found = pydantic["annotated_request"]
    assert found.delay({"number": 3}).get() == {"total": 3}


@needs_pydantic
def test_pydantic_and_another_annotation(eager):
    """So may other arguments, where the annotations are no strings."""
    eager.scan("pydantic_plain")
    found = eager.make_celery_app().tasks["pydantic_plain.annotated_otherwise"]
    assert found.delay({"number": 3}, None).get() == {"total": 3}


def test_celerys_own_options_for_registering(configure):
    """shared and lazy are accepted; a task is made at once, for its application."""
    config = configure()
    config.register_task(lambda request: None, name="x", shared=True, lazy=True)
    assert "x" in config.make_celery_app().tasks
    assert "x" not in configure().make_celery_app().tasks


@pytest.mark.parametrize("schedule", [0, -1, 0.0, float("inf")])
def test_schedule_that_would_never_end(configure, schedule):
    """A schedule of no seconds, or fewer, is an error."""
    config = configure()
    config.register_task(lambda request: None, name="x")
    with pytest.raises(ConfigurationError, match="not a positive number"):
        config.add_periodic_task(schedule, "x")
