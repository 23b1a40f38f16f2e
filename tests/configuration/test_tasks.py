"""config.register_task, add_periodic_task and make_celery_app; the task decorator."""

from __future__ import annotations

import functools
import inspect
from datetime import timedelta

import celery
import exampleapp
import pytest
from celery import Celery, Task
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule
from pyramid.config import Configurator
from pyramid.exceptions import (
    ConfigurationConflictError,
    ConfigurationError,
    ConfigurationExecutionError,
)

from pyramid_tasks import PyramidTasksError, task
from pyramid_tasks.configuration import celery_app
from pyramid_tasks.exceptions import AmbiguousTask, TaskError, TaskNotRegistered
from pyramid_tasks.registry import get_tasks

CELERY = tuple(int(part) for part in celery.__version__.split(".")[:2])


def run(app, name, *args, **kwargs):
    """Run a task in this process, as a worker does."""
    return app.tasks[name].apply(args, kwargs).get()


def add(request, x, y=1):
    """Add two numbers."""
    return x + y


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
    ("func", "name", "result"),
    [
        pytest.param(add, "add", 2, id="function"),
        pytest.param(f"{__name__}.add", "add", 2, id="dotted name"),
        pytest.param(f"{__name__}:add", "add", 2, id="dotted name with a colon"),
        pytest.param(Named(), "own_name", 2, id="object with a name"),
        pytest.param(Adder().method, "method", 3, id="method"),
        pytest.param(Adder.of_class, "of_class", 4, id="class method"),
        pytest.param(Adder.static, "static", 5, id="static method"),
    ],
)
def test_register_task(config, func, name, result):
    """A callable, or its dotted name, is registered under Celery's name for it."""
    config.register_task(func)
    app = config.make_celery_app()
    assert app.tasks[f"{__name__}.{name}"].name == f"{__name__}.{name}"
    assert run(app, f"{__name__}.{name}", x=1) == result


@pytest.mark.parametrize(
    ("directive", "more"),
    [
        ("register_task", ()),
        ("add_task_deriver", ()),
        ("add_fork_safe", ()),
        ("add_task_context", ("exampleapp.add",)),
    ],
)
@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ("exampleapp.ad", "'exampleapp.ad' cannot be imported: .* Did you mean add?"),
        ("exampleapp:ad", "'exampleapp:ad' cannot be imported: .* Did you mean add?"),
        ("exmpleapp.add", "cannot be imported: No module named 'exmpleapp'. Write th"),
        (".nothing", "'.nothing' cannot be imported: "),
        ("", "'' cannot be imported: "),
    ],
)
def test_missing_dotted_name(config, directive, more, dotted, said):
    """A dotted name that leads nowhere is an error at once, in one sentence."""
    given = ("it", dotted) if directive == "add_task_context" else (dotted,)
    with pytest.raises(TaskError, match=said) as caught:
        getattr(config, directive)(*given, *more)
    assert caught.value.info.file == __file__
    assert caught.value.__suppress_context__


def test_address_in_place_of_a_dotted_name(config):
    """The error does not show the password of the address."""
    said = r"'mysql://anna:\*\*@db\.example\.com/shop' is no dotted name\. Write"
    with pytest.raises(TaskError, match=said) as caught:
        config.add_fork_safe("mysql://anna:s3cret@db.example.com/shop")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("dotted", ["failing_import.Handler", "failing_import:Handler"])
def test_import_error_inside_a_module(config, dotted):
    """It is an error of the code, and keeps its traceback."""
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        config.register_task(dotted)


@pytest.mark.parametrize("given", ["exampleapp", exampleapp, 17, property(len)])
def test_what_cannot_be_called(config, given):
    """A module, for one, is neither a task nor a deriver."""
    with pytest.raises(TaskError, match="cannot be a task, as it cannot be called: re"):
        config.register_task(given)
    with pytest.raises(TaskError, match="A task deriver is a function, and not <?"):
        config.add_task_deriver(given)


def test_deriver_without_a_name(config):
    """An object needs one."""
    with pytest.raises(TaskError, match="has no name of its own: give one, name='...'"):
        config.add_task_deriver(Adder())


@pytest.mark.parametrize(
    ("func", "result"),
    [
        pytest.param(add, 2, id="function"),
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
def test_any_callable_with_a_name(config, make_task, func, result):
    """Whatever can be called can be a task, whose name replaces Celery's."""
    found = make_task(func)
    assert found.apply((1,)).get() == result
    assert get_tasks(config.registry).find(func) is found
    assert not any(__name__ in name for name in found.app.tasks)
    with pytest.raises(TypeError):
        found.delay()


@pytest.mark.parametrize(
    "func", [lambda request: None, functools.partial(add, y=10), Adder()]
)
def test_callable_without_a_name(config, func):
    """What has no name of its own is refused, with what to do."""
    with pytest.raises(TaskError, match=r"no name of its own.*name='\.\.\.'") as caught:
        config.register_task(func)
    assert repr(func) in str(caught.value)


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
def test_callable_that_would_not_run(config, func, named, kind):
    """A call of these gives no result: they are refused, with what to do."""
    with pytest.raises(TaskError, match=f"{named}.* It is {kind}"):
        config.register_task(func, name="it")


@pytest.mark.parametrize("name", ["a name", "a.b:c", "lambda", "grün", "1"])
def test_names_need_not_be_identifiers(make_task, name):
    """A task can have any name, which Celery alone would stumble over."""
    assert make_task(lambda request, x: x, name).apply((1,)).get() == 1


def test_several_names_for_a_function(config):
    """A function can be several tasks, of which one must then be named."""
    config.register_task(add, name="one")
    config.register_task(add, name="two", rate_limit="1/m")
    app = config.make_celery_app()
    assert run(app, "one", 1) == run(app, "two", 1) == 2
    for given in add, f"{__name__}.add", f"{__name__}:add":
        with pytest.raises(AmbiguousTask, match="'one', 'two'") as caught:
            get_tasks(config.registry).find(given)
        assert caught.value.names == ["one", "two"]
        assert caught.value.task == given


def test_function_stays_as_it_was(config):
    """Neither registering a function nor the decorator changes it."""

    def func(request, x): ...

    before = vars(func).copy()
    config.register_task(func)
    config.commit()
    assert vars(func) == before
    assert task(func) is task(name="x")(func) is func
    assert str(inspect.signature(func)) == "(request, x)"


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
def test_task_without_a_request(config, func, bind, missing):
    """A function that cannot take the request is refused when it is registered."""
    expected = r"\(self, request, \.\.\.\)" if bind else r"\(request, \.\.\.\)"
    with pytest.raises(TaskError, match=expected) as caught:
        config.register_task(func, name="it", bind=bind)
    assert str(caught.value).startswith("The task 'it' must take")
    assert str(caught.value).endswith(f"no positional parameter for {missing}")


@pytest.mark.parametrize(
    ("func", "bind"),
    [
        (lambda request, _days=30: request, True),
        (lambda self, request: self, False),
        (lambda self, request, x: self, False),
    ],
)
def test_self_of_the_other_kind(config, func, bind):
    """The names of the parameters tell that ``bind`` is not as the function needs."""
    with pytest.raises(TaskError, match=r"takes \(self, request, \.\.\.\)"):
        config.register_task(func, name="it", bind=bind)


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
def test_ways_to_take_a_request(make_task, func, bind):
    """The request is the first positional argument, whatever its name."""
    assert make_task(func, bind=bind).apply((1, 2)).get() == (1, 2)


@pytest.mark.parametrize("name", ["request", "self", "func_or_name", "task", "args"])
@pytest.mark.parametrize("bind", [False, True])
def test_parameters_of_any_name(eager, make_task, name, bind):
    """No name of a parameter is taken by this package."""
    source = f"lambda {'s, ' if bind else ''}r, {name}: {name}"
    found = make_task(eval(source), config=eager, bind=bind)
    assert found.apply_async(kwargs={name: 1}).get() == 1
    with pytest.raises(TypeError):
        found.apply_async((1,), {name: 1})


#: Arguments that ``add`` does not take.
WRONG_ARGUMENTS = [
    *(((), {}), ((1, 2, 3), {}), ((), {"y": 1})),
    *(((1,), {"x": 1}), ((1,), {"z": 1}), ((1,), {"request": None})),
]


@pytest.mark.parametrize(("args", "kwargs"), WRONG_ARGUMENTS)
@pytest.mark.parametrize("bind", [False, True])
def test_arguments_are_checked(make_task, args, kwargs, bind):
    """Celery checks arguments by the task's signature, less the request."""
    found = make_task((lambda self, request, x, y=1: None) if bind else add, bind=bind)
    with pytest.raises(TypeError):
        found.apply_async(args, kwargs)


def test_keyword_only_arguments_are_checked(eager, make_task):
    """Keyword-only parameters are part of the signature."""
    found = make_task(lambda request, *, x, y=2: (x, y), config=eager)
    assert found.delay(x=1).get() == (1, 2)
    for args in (1,), ():
        with pytest.raises(TypeError):
            found.delay(*args)


def test_typing_false(eager, make_task):
    """With typing=False, Celery does not check arguments: the task fails instead."""
    found = make_task(add, config=eager, typing=False)
    assert found.apply_async((1, 2, 3), throw=False).state == "FAILURE"


# Conflicts.


def test_conflict(config):
    """Tasks of one name conflict, and the message names each place."""
    config.register_task(add)
    config.register_task(add)
    config.register_task(other, name=f"{__name__}.add")
    line = inspect.currentframe().f_lineno
    with pytest.raises(ConfigurationConflictError) as caught:
        config.make_celery_app()
    for each in line - 3, line - 2, line - 1:
        assert f"Line {each} of file {__file__}" in str(caught.value)
    assert f"('task', '{__name__}.add')" in str(caught.value)


def test_conflict_of_decorators(config):
    """Two decorated functions of one name conflict, each shown with its file."""
    config.scan("scanned.conflicting")
    with pytest.raises(ConfigurationConflictError) as caught:
        config.commit()
    said = str(caught.value)
    assert said.count("conflicting.py") == 2
    assert "def one" in said or '@task(name="twice")' in said
    assert len({line for line in said.splitlines() if "Line " in line}) == 2


def test_application_overrides_what_it_includes(config):
    """As for views, a task of the application wins over that of an add-on."""
    config.include(lambda config: config.register_task(add, name="same"))
    config.register_task(other, name="same")
    assert run(config.make_celery_app(), "same") == "other"


@pytest.mark.parametrize("autocommit", [False, True])
def test_later_registration_wins(autocommit):
    """After a commit, a name can be registered anew, as in all of Pyramid."""
    config = Configurator(autocommit=autocommit)
    config.include("pyramid_tasks")
    tasks = get_tasks(config.registry)
    config.register_task(add, name="same")
    if not autocommit:
        config.commit()
    assert run(tasks.app, "same", 1) == 2
    config.register_task(other, name="same")
    assert run(config.make_celery_app(), "same") == "other"
    assert tasks.find(other).name == "same"
    with pytest.raises(TaskNotRegistered):
        tasks.find(add)


# @task and config.scan()


@pytest.fixture
def scanned(config):
    """Return the Celery application with the tasks of a scanned package."""
    config.include("scanned")
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
        pytest.param("relative", (1,), ("undecorated", 1), id="by .name"),
        pytest.param("relative with a colon", (1,), ("undecorated", 1), id="by :name"),
    ],
)
def test_tasks_of_a_package(scanned, name, args, result):
    """config.scan() registers decorated functions; others have a relative name."""
    assert run(scanned, name, *args) == result


def test_decorated_tasks_only(scanned):
    """What is not decorated is no task, and each decorator has options of its own."""
    names = {name for name in scanned.tasks if name.startswith("scanned.tasks.")}
    expected = {"plain", "with_parentheses", "periodic", "bound"}
    assert names == {f"scanned.tasks.{name}" for name in expected}
    assert scanned.tasks["its own name"].rate_limit == "10/m"
    assert scanned.tasks["second"].max_retries == 7
    assert scanned.tasks["first"].max_retries == Task.max_retries


def test_decorator_registers_nothing_without_a_scan(config):
    """Importing a module of tasks registers none of them."""
    config.register_task("scanned.tasks.undecorated")
    assert "scanned.tasks.plain" not in config.make_celery_app().tasks


def test_scan_without_the_package():
    """A scan that finds a task says what to include."""
    with pytest.raises(TaskError, match=r"scanned\.tasks\..* before config.scan\(\)"):
        Configurator().scan("scanned.tasks")


@pytest.mark.parametrize("decorator", [task, task(), task(name="x", bind=True)])
def test_method_is_refused(decorator):
    """A method cannot be a task: it has no object to be called on."""
    with pytest.raises(TaskError, match="Sender.send is a method; only functions"):

        class Sender:
            @decorator
            def send(self, request): ...


@pytest.mark.parametrize(
    ("decorate", "said"),
    [
        (lambda: task("a name"), r"'a name', which .* @task\(name='a name'\)"),
        (lambda: task(property(len)), "is given <property .* which is no function"),
        (lambda: task(name="x")(property(len)), "is given <property .* no function"),
        (lambda: task(classmethod(len)), "is given <classmethod.* is no function"),
    ],
)
def test_decorator_takes_one_function(decorate, said):
    """A name given without its keyword is a mistake, not a function."""
    line = decorate.__code__.co_firstlineno
    with pytest.raises(TaskError, match=f"^{__file__}:{line}: @task .*{said}"):
        decorate()


def test_two_applications_can_scan_one_module(configure):
    """Decorated functions belong to every application that scans them."""
    for _ in range(2):
        config = configure()
        config.scan("scanned.tasks")
        assert run(config.make_celery_app(), "first") == "stacked"


# Introspection.


def test_task_is_introspectable(config):
    """Tools such as pdebugtoolbar can list the tasks of an application."""
    config.register_task("exampleapp.add", name="plus", rate_limit="1/m")
    config.commit()
    found = config.registry.introspector.get("tasks", "plus")
    assert (found.type_name, found.title) == ("task", "plus")
    assert dict(found) == {
        "name": "plus",
        "func": exampleapp.add,
        "dotted": "exampleapp.add",
        "options": {"rate_limit": "1/m"},
        "bind": False,
        "derivers": [],
    }
    assert found.action_info.file == __file__


def test_periodic_task_is_introspectable(config):
    """The schedule of an application can be listed too."""
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
    settings = {"celery.broker_url": "memory://"}
    config = Configurator(settings=settings, introspection=False, autocommit=autocommit)
    config.include("pyramid_tasks")
    config.add_task_deriver(lambda task, info: task, name="plain")
    config.register_task(add, name="plus")
    config.add_periodic_task(60, "plus", (1, 2), name="often")
    app = config.make_celery_app()
    assert "plus" in app.tasks
    assert list(app.conf.beat_schedule) == ["often"]
    assert not config.registry.introspector.get_category("tasks")
    settings["celery.task_serializer"] = "jsn"
    config = Configurator(settings=settings, introspection=False)
    celery_app.includeme(config)  # config.include() switches it on
    with pytest.raises(ConfigurationError, match="task_serializer = jsn is not one"):
        config.commit()


# config.add_periodic_task


@pytest.fixture
def periodic(configure):
    """Return a function that adds a periodic task and gives beat's entry for it."""

    def periodic(*args, **kwargs):
        config = configure()
        config.scan("scanned.tasks")
        config.add_periodic_task(*args, **kwargs)
        return config.make_celery_app().conf.beat_schedule

    return periodic


def test_periodic_task_is_named_in_each_way(periodic, scanned):
    """The function, its dotted name, also a relative one, and the task stand for it."""
    from scanned.tasks import periodic as func

    for given in func, "scanned.tasks.periodic", "scanned.tasks:periodic":
        (entry,) = periodic(30, given).values()
        assert (entry["task"], entry["schedule"]) == ("scanned.tasks.periodic", 30)
    assert scanned.conf.beat_schedule["relative"]["task"] == "scanned.tasks.periodic"


def test_periodic_task_by_celery_task(config, make_task):
    """The Celery task itself stands for the task."""
    found = make_task(add)
    config.add_periodic_task(30, found, (1,), name="x")
    config.commit()
    assert found.app.conf.beat_schedule["x"]["task"] == "it"


def test_periodic_task_before_its_task(config):
    """The order of the two does not matter, nor where they are."""
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


@pytest.mark.parametrize("schedule", ["daily", "-1", 0, -1, 0.0, float("inf")])
def test_wrong_schedule(config, schedule):
    """A schedule that cannot be read, or would never end, is an error at once."""
    problem = "could not" if schedule == "daily" else "not a positive number"
    with pytest.raises(TaskError, match=f"'{schedule}' .*{problem}"):
        config.add_periodic_task(schedule, "whatever")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((timedelta(0), "a"), "due all the time: write a positive time"),
        ((timedelta(seconds=-1), "a"), "due all the time"),
        ((schedule(0), "a"), "due all the time"),
        ((1e-9, "a"), "not a positive number"),
        ((crontab, "a"), r"is not a number of .* such as crontab\(hour=3\)"),
        ((None, "a"), "schedule None is not a number of seconds, a timedelta"),
        ((60, "a", 17), r"args = 17 is not a list of arguments, such as \[1, 2\]"),
        ((60, "a", "report"), "args = 'report' is not a list of arguments"),
        ((60, "a", {"x": 1}), "args = {'x': 1} is not a list of arguments"),
        ((60, "a", [1], 17), "kwargs = 17 is not a dictionary"),
    ],
)
def test_wrong_periodic_task(config, given, said):
    """What beat would stumble over, or never stop to send, is an error at once."""
    with pytest.raises(TaskError, match=f"The periodic task a.*: .*{said}") as caught:
        config.add_periodic_task(*given)
    assert caught.value.info.file == __file__


def test_arguments_that_beat_makes(periodic):
    """Beat calls such an argument when it sends the task."""
    lazy = BeatLazyFunc(len)
    (entry,) = periodic(30, "its own name", [lazy]).values()
    assert entry["args"] == (lazy,)


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


def test_periodic_task_conflict(config):
    """One task on two schedules with the same arguments needs names."""
    config.register_task(add)
    config.add_periodic_task(30, add, (1,))
    config.add_periodic_task(60, add, (1,))
    line = inspect.currentframe().f_lineno
    with pytest.raises(ConfigurationConflictError, match=r"add\(1\)") as caught:
        config.commit()
    for each in line - 2, line - 1:
        assert f"Line {each} of file {__file__}" in str(caught.value)


def test_periodic_task_several_times(config):
    """Other arguments or other names make other entries."""
    config.register_task(add)
    config.add_periodic_task(30, add, (1,))
    config.add_periodic_task(30, add, (2,))
    config.add_periodic_task(30, add, (2,), {"y": 1})
    config.add_periodic_task(60, add, (1j,), name="slow", serializer="pickle")
    entries = config.make_celery_app().conf.beat_schedule
    assert sorted(entries) == ["add(1)", "add(2)", "add(2, y=1)", "slow"]


@pytest.mark.parametrize(("args", "kwargs"), WRONG_ARGUMENTS)
def test_periodic_task_with_wrong_arguments(config, args, kwargs):
    """Arguments the task does not take are an error of the configuration."""
    config.register_task(add, name="plus")
    config.add_periodic_task(30, "plus", args, kwargs)
    line = inspect.currentframe().f_lineno - 1
    with pytest.raises(ConfigurationExecutionError) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, TypeError)
    assert isinstance(caught.value.evalue, PyramidTasksError)
    assert f"Line {line} of file {__file__}" in str(caught.value)


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        (
            [object()],
            {},
            "its arguments cannot be sent: Object of type object is",
        ),
        ([1], {"delivery": "imediate"}, "delivery = imediate is not .* mean immediate"),
    ],
)
def test_periodic_task_that_cannot_be_sent(config, args, options, said):
    """What beat could not send is an error of the configuration."""
    config.register_task(add, name="plus")
    config.add_periodic_task(30, "plus", args, **options)
    with pytest.raises(ConfigurationExecutionError, match=said) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, PyramidTasksError)


def test_periodic_task_without_typing(config):
    """With typing=False, Celery checks no arguments, here neither."""
    config.register_task(add, name="plus", typing=False)
    config.add_periodic_task(30, "plus", (1, 2, 3), name="x")
    assert config.make_celery_app().conf.beat_schedule["x"]["args"] == (1, 2, 3)


FOREIGN = celery.Celery(set_as_current=False, fixups=[]).task(
    add, name="plsu", lazy=False, shared=False
)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("plu", TaskNotRegistered, "Did you mean 'plus'?"),
        ("Plus", TaskNotRegistered, "Did you mean 'plus'?"),
        ("completely different", TaskNotRegistered, r"config.register_task\(\)"),
        (other, TaskNotRegistered, r"config.register_task\(\)"),
        (FOREIGN, TaskNotRegistered, "No task 'plsu' .* Did you mean 'plus'?"),
        (add, AmbiguousTask, "Give one"),
    ],
)
def test_periodic_task_that_is_not_there(config, given, error, words):
    """A name of no task, or a function with several names, is an error with a hint."""
    config.register_task(add, name="plus")
    config.register_task(add, name="and")
    config.add_periodic_task(30, given, (1,))
    with pytest.raises(ConfigurationExecutionError, match=words) as caught:
        config.commit()
    assert isinstance(caught.value.evalue, error)


# config.make_celery_app


def test_make_celery_app(configure):
    """It is the application of the registry, with its settings, each time."""
    config = configure(**{"celery.broker_url": "memory://x"})
    app = config.make_celery_app()
    config.make_wsgi_app()
    assert isinstance(app, Celery)
    assert app is config.make_celery_app() is get_tasks(config.registry).app
    assert app.conf.broker_url == "memory://x"


# The options of Celery.


@pytest.mark.parametrize(
    "options",
    [
        *({"rate_limit": "10/m"}, {"ignore_result": True}, {"serializer": "yaml"}),
        *({"typing": False}, {"track_started": True}, {"throws": (ValueError,)}),
        {"soft_time_limit": 5, "time_limit": 10},
        *({"delivery_mode": 1}, {"delivery_mode": 2}, {"soft_time_limit": 0.5}),
        {"acks_late": True, "reject_on_worker_lost": True},
        {"max_retries": None, "default_retry_delay": 1},
        {"store_errors_even_if_ignored": True, "expires": 60},
        {"an_option_of_a_deriver": "x"},
    ],
)
def test_options_are_kept(make_task, options):
    """Options are attributes of the Celery task, as Celery has it."""
    found = make_task(add, **options)
    assert {key: getattr(found, key) for key in options} == options


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("rate_limit", "often", "= often is not a rate"),
        ("serializer", "jsn", "= jsn is not one of .* Did you mean json"),
        ("compression", "gzp", "= gzp is not one of .* Did you mean gzip"),
        ("delivery_mode", "kept", "= kept is not one of 1, 2"),
        ("time_limit", "x", "= 'x' is not a number of seconds"),
        ("soft_time_limit", -1, "= -1 is not a number of seconds"),
        ("autoretry_for", "OSError", "= 'OSError' is not a tuple of exceptions"),
        ("autoretry_for", OSError, "= <class 'OSError'> is not a tuple of exceptions"),
        ("autoretry_for", (int,), ".*int.* is not a tuple of exceptions"),
        ("throws", "OSError", "= 'OSError' is not an exception or a tuple"),
        ("max_retries", "3", "= '3' is not a number"),
        ("retry_backoff", "x", "= 'x' is not a number"),
        ("retry_backoff_max", "x", "= 'x' is not a number"),
        ("retry_kwargs", {"max_retires": 3}, "has the unknown max_retires. Did you"),
        ("retry_kwargs", {"max_retries": "3"}, "has max_retries = '3' is not a number"),
        ("queue", 5, "= 5 is not a name"),
        ("Strategy", "nope:X", "= nope:X cannot be imported: there is no module nope"),
        ("Request", "os.path:X", "= os.path:X cannot be imported: os.path has no X."),
        ("acks_late", "no", "= 'no' is text: write True or False"),
        ("bind", "no", "= 'no' is text"),
        ("tm", "no", "= 'no' is text"),
        ("inbox", "false", "= 'false' is text"),
        ("base", object, "= <class 'object'> is not a class below celery.Task"),
        ("filter", 5, "= 5 is not a function"),
        ("apply_async", 5, "= 5 is not a function"),
        ("run", 5, "is no option"),
        ("app", 5, "is no option"),
    ],
)
def test_options_that_celery_cannot_use(make_task, option, value, said):
    """The application does not start with a value that ends a worker or a request."""
    with pytest.raises(ConfigurationError, match=f"The task it: {option} {said}"):
        make_task(add, **{option: value})


@pytest.mark.parametrize("name", ["", 5])
def test_name_that_is_none(configure, name):
    """A task is named by a text."""
    with pytest.raises(ConfigurationError, match="is not the name of a task"):
        configure().register_task(add, name=name)


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


def test_base_with_its_own_call(make_task):
    """A class that overrides __call__ calls the task through it."""

    class Base(Task):
        def __call__(self, *args, **kwargs):
            return "called", super().__call__(*args, **kwargs)

    assert make_task(add, base=Base).apply((1,)).get() == ("called", 2)


def test_autoretry_with_backoff(make_task):
    """Celery's own retries run the task again, each time with a new request."""
    requests = []

    def fail(request):
        requests.append(request)
        raise OSError("again")

    backoff = {"retry_backoff": 2, "retry_jitter": False, "max_retries": 3}
    result = make_task(fail, autoretry_for=(OSError,), **backoff).apply()
    assert isinstance(result.result, OSError)
    assert len(requests) == len(set(map(id, requests))) == 4


# Pydantic.


@pytest.fixture(params=["pydantic_deferred", "pydantic_plain"])
def pydantic(request, eager):
    """Return the tasks of a module with models as arguments."""
    if CELERY < (5, 5):
        pytest.skip("Celery has pydantic=True since 5.5")
    eager.scan(request.param)
    tasks = eager.make_celery_app().tasks
    return {name.removeprefix(f"{request.param}."): tasks[name] for name in tasks}


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "result"),
    [
        ("charge", [{"number": 3}], {"times": 2}, {"total": 6}),
        ("charge", [], {"order": {"number": "3"}}, {"total": 3}),
        ("strict", [{"number": 3}], {}, "Order"),
        pytest.param(
            *("annotated_request", [{"number": 3}], {}, {"total": 3}),
            id="only type checkers import the annotation of the request",
        ),
    ],
)
def test_pydantic(pydantic, name, args, kwargs, result):
    """Models are validated from their JSON, and dumped when they are returned."""
    assert pydantic[name].delay(*args, **kwargs).get() == result


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("charge", [{"number": "x"}], ValueError),
        pytest.param("strict", [{"number": "3"}], ValueError, id="pydantic_strict"),
        ("charge", [], TypeError),
        ("charge", [{}, 1, 2], TypeError),
    ],
)
def test_pydantic_refuses(pydantic, name, args, error):
    """What is not valid fails the task; what does not fit is not queued."""
    with pytest.raises(error, match="number" if error is ValueError else "argument"):
        pydantic[name].delay(*args)


def test_pydantic_with_bind(pydantic):
    """Models and bind go together."""
    found = pydantic["bound"]
    result = found.delay({"number": 1, "items": ["a"]}).get()
    assert result == [found.name, "Request", "a"]


@pytest.mark.parametrize("pydantic", ["pydantic_plain"], indirect=True)
def test_pydantic_and_another_annotation(pydantic):
    """An annotation need not exist, where the annotations are no strings."""
    found = pydantic["annotated_otherwise"]
    assert found.delay({"number": 3}, None).get() == {"total": 3}


def test_celerys_own_options_for_registering(configure, make_task):
    """shared and lazy are accepted; a task is made at once, for its application."""
    assert make_task(lambda request: None, "x", shared=True, lazy=True).name == "x"
    assert "x" not in configure().make_celery_app().tasks
