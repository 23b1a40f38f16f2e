"""What is deferred in the test of an application: seen, asserted, run."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from unittest.mock import ANY, call

import pytest
from celery import _state, chain, chord, group
from celery.exceptions import Ignore, Reject
from celery.result import AsyncResult
from pyramid import testing
from pyramid.config import Configurator
from pyramid.request import apply_request_extensions
from pyramid.threadlocal import get_current_request
from webtest import TestApp as WebTestApp

from pyramid_tasks import BeforeTask, TaskRetried, exceptions
from pyramid_tasks.testing import capture, start_worker
from pyramid_tasks.worker.request import get_runner

# Where nothing answers: whatever connects fails.
NOWHERE = "redis://localhost:1/0"
SETTINGS = {"celery.broker_url": NOWHERE, "celery.result_backend": NOWHERE}
EAGER = {"celery.task_always_eager": True, **SETTINGS}
ADD = f"{__name__}.add"


def add(request, x, y=0):
    return x + y


def total(request, numbers):
    return sum(numbers)


def nest(request, number):
    if number:
        request.defer_task(nest, number - 1)
    return number


class TwoPartError(Exception):
    """An error that cannot be pickled, as many cannot."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def fail(request):
    raise TwoPartError("no", "way") from KeyError("why")


def flaky(self, request, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=3600, max_retries=2, exc=OSError("down"))
    return self.request.retries


def view(request):
    return request.defer_task(add, int(request.params["x"]), y=2).id


def configure(config):
    config.include("pyramid_tasks")
    for task in add, total, nest, fail:
        config.register_task(task)
    config.register_task(flaky, bind=True)
    config.add_view(view, renderer="string")


@pytest.fixture
def config(request):
    """A Configurator as pyramid.testing.setUp() makes it."""
    settings = getattr(request, "param", SETTINGS)
    with testing.testConfig(settings=dict(settings)) as config:
        configure(config)
        yield config


@pytest.fixture
def request_(config):
    request = testing.DummyRequest()
    apply_request_extensions(request)
    return request


@pytest.fixture
def deferred(config):
    with capture(config.registry) as deferred:
        yield deferred


@pytest.fixture(scope="module")
def app():
    """An application that many tests use."""
    with Configurator(settings=dict(SETTINGS)) as config:
        configure(config)
        return config.make_wsgi_app()


def celery_app(registry):
    return registry["pyramid_tasks"].app


def args_of(tasks):
    return [task.args for task in tasks]


# What is listed.


def test_task(config, deferred, request_):
    """A captured task says what was deferred, and what it will know of the request."""
    config.add_task_context("locale", lambda request: "de", lambda *_: None)
    options = {"countdown": 60, "delivery": "immediate"}
    result = request_.defer_task_with_options(add, (1,), {"y": 2}, **options)
    (task,) = deferred.tasks
    assert (task.func, task.name) == (add, ADD)
    assert (task.args, task.kwargs) == ((1,), {"y": 2})
    assert (task.context, task.options) == ({"locale": "de"}, {"countdown": 60})
    assert task.id == result.id
    assert repr(task).endswith("add(1, y=2)")
    assert repr(deferred).endswith("add(1, y=2)]>")


def test_web_server_thread(app):
    """What another thread defers is captured too, all of it."""
    with capture(app.registry) as deferred, ThreadPoolExecutor() as threads:
        for number in range(8):
            threads.submit(WebTestApp(app).get, "/", {"x": number})
    assert sorted(args_of(deferred.tasks)) == [(number,) for number in range(8)]


def test_arguments_travel(config, deferred, request_):
    """Arguments are what a serializer makes of them, and not what the caller keeps."""
    config.register_task(add, name="pickled", serializer="pickle")
    numbers = (1, [2])
    request_.defer_task(total, numbers)
    numbers[1].append(3)
    request_.defer_task("pickled", (1, 2), {3})
    request_.defer_task_with_options(total, ((1, 2),), serializer="pickle")
    assert args_of(deferred.tasks) == [([1, [2]],), ((1, 2), {3}), ((1, 2),)]
    request_.defer_task(total, date(2024, 5, 1))
    assert deferred.tasks[3].args[0].day == 1


def test_wrong_arguments(deferred, request_):
    """Arguments that JSON cannot hold, or that the task does not take, fail at once."""
    said = "add cannot be sent as json.*not JSON serial"
    with pytest.raises(exceptions.DeferError, match=said):
        request_.defer_task(add, object())
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        request_.defer_task(add)
    assert deferred.tasks == []


def test_canvas(deferred, request_):
    """A canvas is its tasks, in order; it runs as a whole, each task once."""
    ran = []
    request_.registry.registerHandler(
        lambda event: ran.append(event.request.current_task.request.id), [BeforeTask]
    )
    s = request_.task_signature
    pair = [s(add, 1), s(add, 2)]
    for canvas, names, value in (
        (s(add, 1, 2), "add", 3),
        (chain(s(add, 1, 2), s(add, 3)), "add add", 6),
        (group(pair), "add add", [1, 2]),
        (chord(pair, s(total)), "add add total", 3),
        (s(add, 1) | group(pair) | s(total) | s(add, 4), "add add add total add", 9),
    ):
        deferred.clear()
        ran.clear()
        result = request_.defer_canvas(canvas)
        tasks = deferred.tasks
        assert [task.name.rpartition(".")[2] for task in tasks] == names.split()
        assert len({id(task.canvas) for task in tasks}) == 1
        assert tasks[0].canvas["task"] == canvas["task"]
        assert deferred.run() == [value]
        assert ran == [task.id for task in tasks]
        assert result.get(timeout=10) == value


def test_id_of_a_canvas(deferred, request_):
    """A canvas that is given an id has it, and no other task of it."""
    one, two = request_.task_signature(add, 1), request_.task_signature(total)
    for canvas in (one, one | one, chord([one], two)):
        deferred.clear()
        assert request_.defer_canvas(canvas, task_id="mine").id == "mine"
        *others, last = [task.id for task in deferred.tasks]
        assert last == "mine"
        assert "mine" not in others


def test_defer_tasks(deferred, request_):
    """Each call of defer_tasks is a task; what was deferred before can be forgotten."""
    request_.defer_task(add, 1)
    deferred.clear()
    results = request_.defer_tasks(add, [(1, 2), (3, 4)])
    assert [task.id for task in deferred.tasks] == [each.id for each in results]
    assert deferred.run() == [3, 7]


def test_linked_tasks(deferred, request_):
    """What is linked is captured once the task before it has succeeded."""
    link = request_.task_signature(add, 5)
    longer = request_.task_signature(add, 6) | request_.task_signature(add, 7)
    request_.defer_task_with_options(add, (1, 2), link=[link, longer])
    assert len(deferred.tasks) == 1
    assert deferred.run() == [3, 8, 16]
    assert args_of(deferred.tasks[1:]) == [(3, 5), (3, 6), (7,)]


def test_linked_to_a_failure(config, deferred, request_):
    """What is linked to a failure runs, before the test gets the error."""
    seen = []
    config.register_task(lambda request, task_id: seen.append(task_id), name="tell")
    link_error = request_.task_signature("tell")
    failed = request_.defer_task_with_options(fail, link_error=link_error)
    with pytest.raises(TwoPartError):
        deferred.run()
    assert seen == [failed.id]


def test_delay(config, deferred):
    """What Celery's own methods send is captured too, and not sent.

    A task of another application cannot run here.
    """
    app = celery_app(config.registry)
    result = app.tasks[ADD].delay(1, y=2)
    numbers = [1]
    with app.connection_for_write() as connection:
        options = {"connection": connection, "countdown": None}
        app.send_task("of.another.application", (numbers,), queue="theirs", **options)
    numbers.append(2)  # too late, as the task would be sent by now
    first, second = deferred.tasks
    assert (first.id, first.args, first.kwargs) == (result.id, (1,), {"y": 2})
    assert second.options["queue"] == "theirs"
    assert second.func is None
    # What only says how to send it now is no part of it.
    assert first.options.keys() == {"serializer", "ignore_result"}
    assert second.options.keys() == {"queue"}
    assert deferred.find("of.another.application", [1]) == [second]
    assert deferred.run(1) == [3]
    with pytest.raises(exceptions.TaskNotRegistered, match=r"of\.another\.application"):
        deferred.run()


def test_chord_sent_by_celery(deferred, request_):
    """A chord that would never get to its body is refused, in plain words."""
    s = request_.task_signature
    said = r"Defer it with request\.defer_canvas"
    with pytest.raises(exceptions.CaptureError, match=said):
        chord([s(add, 1)], s(total)).apply_async()


@pytest.mark.parametrize("config", [EAGER], indirect=True)
def test_eager_application(config, request_):
    """An application that runs its tasks eagerly is captured all the same."""
    with capture(config.registry) as deferred:
        request_.defer_task(add, 1)
        celery_app(config.registry).tasks[ADD].delay(2)
        assert deferred.run(0) == []
        assert deferred.run() == [1, 2]
    assert request_.defer_task(add, 3).get() == 3


@pytest.mark.parametrize("opened", [capture, start_worker])
def test_what_is_no_application(opened):
    """A configurator is no registry, and a registry without tasks is not enough."""
    with testing.testConfig() as config:
        said = "no registry; pass app.registry or config"
        with pytest.raises(TypeError, match=said), opened(config):
            pass
        said = r'config\.include\("pyramid_tasks"\)'
        with pytest.raises(exceptions.TaskError, match=said), opened(config.registry):
            pass


# What a capture leaves behind: nothing.


def test_application_is_as_it_was(app, monkeypatch):
    """Deliveries, settings, connections and variables are put back, whatever fails."""
    monkeypatch.setenv("CELERY_BROKER_URL", NOWHERE)
    tasks = app.registry["pyramid_tasks"]
    base_environ = get_runner(app.registry).base_environ

    def state():
        celery = tasks.app
        handlers = len(list(app.registry.registeredHandlers()))
        return (
            *(dict(tasks.deliveries), dict(base_environ), handlers),
            *(celery.send_task, celery.pool, celery.backend, dict(celery.conf)),
            *(celery.connection_for_write().as_uri(), celery.current_task),
            "send_task" in vars(celery),
        )

    before = state()
    with capture(app.registry, {"some": "thing"}) as deferred:
        WebTestApp(app).get("/", {"x": 1})
        assert deferred.run() == [3]
        assert "localhost:1" not in tasks.app.connection_for_write().as_uri()
    assert state() == before
    with pytest.raises(ZeroDivisionError), capture(app.registry):
        raise ZeroDivisionError
    assert state() == before


def test_several(app, config, deferred, request_):
    """The inner one of two captures has what is deferred in it.

    Captures of two applications have nothing to do with each other.
    """
    with capture(config.registry) as inner, capture(app.registry) as other:
        WebTestApp(app).get("/", {"x": 1})
        request_.defer_task(add, 5)
        assert inner.run() == [5]
        assert other.run() == [3]
    request_.defer_task(add, 2)
    assert args_of(inner.tasks) == [(5,)]
    assert args_of(deferred.tasks) == [(2,)]


# Asking for a task.


def test_arguments(deferred, request_):
    """It does not matter how arguments were given; all of them count, or none."""
    request_.defer_task(add, 1, y=2)
    for given in call(), call(1, y=2), call(1, 2), call(x=1, y=2), call(ANY, 2):
        assert len(deferred.find(add, *given.args, **given.kwargs)) == 1
        assert deferred.assert_deferred(add, *given.args, **given.kwargs).func is add
    for args in (1,), (1, 3), (1, object()):
        deferred.assert_not_deferred(add, *args)
        with pytest.raises(AssertionError):
            deferred.assert_deferred(add, *args)


@pytest.mark.parametrize("name", ["find", "assert_deferred", "assert_not_deferred"])
def test_impossible_arguments(deferred, name):
    """Arguments that no call can have are a slip of the test, which fails."""
    for given in call(1, 2, 3), call(z=2):
        with pytest.raises(TypeError, match=r"add\(.*\) cannot have been deferred: "):
            getattr(deferred, name)(add, *given.args, **given.kwargs)


def test_equal_arguments(deferred, request_):
    """A default may be given or not, a tuple or the list that JSON makes of it.

    A task of a chain is found by the arguments that it was given.
    """
    request_.defer_task(total, (1, 2))
    signature = request_.task_signature
    request_.defer_canvas(signature(add, 1) | signature(total))
    for args in [(add, 1, 0), (add, 1), (total, (1, 2)), (total, [1, 2])]:
        assert len(deferred.find(*args)) == 1
    assert len(deferred.find(total)) == 2
    assert not deferred.find(total, 1)


def test_models(config, deferred, request_):
    """A call with a model is found by that model, whatever else the task takes."""
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):
        number: int

    def charge(request, times, order): ...

    charge.__annotations__["order"] = Order
    config.register_task(charge, pydantic=True)
    config.commit()
    if not hasattr(celery_app(config.registry).Task, "_dump_pydantic_arguments"):
        pytest.skip("Celery sends models as dictionaries since 5.7")
    request_.defer_task(charge, 2, Order(number=1))
    assert deferred.assert_deferred(charge, 2, Order(number=1))
    assert deferred.assert_deferred(charge, ANY, order=Order(number=1))
    deferred.assert_not_deferred(charge, 2, Order(number=2))


def test_names(config, deferred, request_):
    """The task is named in the ways that defer_task knows; a slip is an error.

    A function with several names needs one of them.
    """
    request_.defer_task(add, 1)
    for task in (add, ADD, celery_app(config.registry).tasks[ADD]):
        assert deferred.assert_deferred(task).func is add
        assert len(deferred.find(task)) == 1
    with pytest.raises(exceptions.TaskNotRegistered):
        deferred.assert_not_deferred("tsak")
    config.register_task(add, name="second")
    request_.defer_task("second", 1)
    with pytest.raises(exceptions.AmbiguousTask):
        deferred.assert_deferred(add)
    assert deferred.assert_deferred("second", 1)


def test_failure_lists_what_was_deferred(deferred, request_):
    """The message of a failure says what was deferred instead."""
    with pytest.raises(AssertionError) as error:
        deferred.assert_deferred(add)
    assert str(error.value) == f"{ADD} was not deferred.\nNothing was deferred."
    request_.defer_task(add, 1, y=2)
    request_.defer_task(nest, 0)
    listed = f"Deferred:\n  {ADD}(1, y=2)\n  {__name__}.nest(0)"
    with pytest.raises(AssertionError) as error:
        deferred.assert_deferred(add, 1)
    assert str(error.value) == f"{ADD}(1) was not deferred.\n{listed}"
    with pytest.raises(AssertionError) as error:
        deferred.assert_not_deferred(add)
    assert str(error.value) == f"{ADD} was deferred.\n{listed}"


# Running what was captured.


def test_request(config, deferred, request_):
    """Each task has a request of its own; its application is Celery's current one."""
    seen = []
    before = _state._tls.current_app

    def look(request):
        seen.append(request)
        assert get_current_request() is request
        assert request.current_task.app is celery_app(config.registry)
        assert AsyncResult("1").app is celery_app(config.registry)
        request.add_finished_callback(seen.append)

    config.register_task(look)
    for _ in range(2):
        request_.defer_task(look)
    assert deferred.run() == [None, None]
    first, again, second, _ = seen
    assert first is again
    assert first is not second
    assert request_ not in seen
    assert get_current_request() is None
    assert _state._tls.current_app is before


def test_environ(config, request_):
    """The requests of tasks can have more in their environ, as in WebTest."""
    config.register_task(lambda request: request.environ["a"], name="look")
    with capture(config.registry, {"a": 5}) as deferred:
        request_.defer_task("look")
        assert deferred.run() == [5]


def test_until_none_is_left(deferred, request_):
    """What tasks defer runs too; a test can run some, look, and run more."""
    request_.defer_task(nest, 5)
    assert deferred.run(1) == [5]
    assert args_of(deferred.tasks) == [(5,), (4,)]
    assert deferred.run(2) == [4, 3]
    assert deferred.run() == [2, 1, 0]
    assert len(deferred.tasks) == 6
    assert deferred.run() == deferred.run(9) == []


def test_without_end(config, deferred, request_):
    """A task that defers itself for ever is an error, and no test that hangs."""
    config.register_task(lambda request: request.defer_task("again"), name="again")
    request_.defer_task("again")
    said = r"defers itself.*deferred\.run\(10\)"
    with pytest.raises(exceptions.CaptureError, match=said):
        deferred.run()


def test_error(deferred, request_):
    """An error is raised in the test, as it is; the tasks after it wait."""
    failed = request_.defer_task(fail)
    request_.defer_task(add, 1)
    with pytest.raises(TwoPartError, match="no way") as error:
        deferred.run()
    assert error.traceback[-1].name == "fail"
    assert isinstance(error.value.__cause__, KeyError)
    with pytest.raises(exceptions.ResultNotReady):
        failed.get(timeout=1)
    assert deferred.run() == [1]


def test_cause_of_an_error(config, deferred, request_):
    """An error that another one has caused is raised with its cause."""

    def work(request):
        raise ZeroDivisionError from KeyError()

    config.register_task(work)
    request_.defer_task(work)
    with pytest.raises(ZeroDivisionError) as error:
        deferred.run()
    assert isinstance(error.value.__cause__, KeyError)


def test_error_in_a_canvas(deferred, request_):
    """An error in any part of a canvas is raised in the test, as it is."""
    s = request_.task_signature
    for canvas in (
        s(add, 1) | s(fail).set(immutable=True) | s(add, 1),
        group(s(add, 1), s(fail)),
        chord([s(fail), s(add, 1)], s(total)),
        chord([s(add, 1)], s(fail).set(immutable=True)),
    ):
        request_.defer_canvas(canvas)
        with pytest.raises(TwoPartError):
            deferred.run()


def test_ignored(config, deferred, request_):
    """A task that ends as ignored or rejected is no error."""

    def end(request, how):
        raise Ignore if how == "ignored" else Reject("no")

    config.register_task(end)
    request_.defer_tasks(end, [("ignored",), ("rejected",)])
    assert deferred.run() == [None, None]


def test_retry(config, deferred, request_):
    """A task that retries runs again at once, until it succeeds or may not again."""
    seen = []
    config.add_subscriber(seen.append, TaskRetried)
    request_.defer_task(flaky, 2)
    assert deferred.run() == [2]
    assert [event.exception.when for event in seen] == [3600, 3600]
    assert len({id(event.request) for event in seen}) == 2
    assert len(deferred.tasks) == 1
    request_.defer_task(flaky, 3)
    with pytest.raises(OSError, match="down"):
        deferred.run()


def test_autoretry(config, deferred, request_):
    """autoretry_for retries, and raises the error itself at last."""
    runs = []

    def work(request):
        runs.append(request)
        raise TwoPartError(1, 2)

    options = {"autoretry_for": (TwoPartError,), "retry_backoff": 60}
    config.register_task(work, max_retries=2, **options)
    request_.defer_task(work)
    with pytest.raises(TwoPartError):
        deferred.run()
    assert len(runs) == 3


def test_result(config, deferred, request_, caplog):
    """Waiting for a task that has not run is an error; then its result is there.

    So is that of a task that is registered later. A run that goes well has nothing to
    complain of.
    """
    config.register_task(lambda request: 5, name="late")
    late = request_.defer_task("late")
    result = request_.defer_task(add, 1, 2)
    assert not result.ready()
    with pytest.raises(exceptions.ResultNotReady, match="captures tasks, run it first"):
        result.get()
    ignored = request_.defer_task_with_options(add, (1, 2), ignore_result=True)
    assert ignored.get() is None
    assert request_.get_task_result(result.id).state == "PENDING"
    with caplog.at_level(logging.WARNING):
        deferred.run()
    assert caplog.records == []
    assert result.get(timeout=10) == 3
    for each in result, late:
        assert request_.get_task_result(each.id).state == "SUCCESS"


@pytest.mark.parametrize("config", [{}], indirect=True)
def test_without_result_backend(config, deferred, request_):
    """Without a result backend a task may return what JSON cannot hold."""
    config.register_task(lambda request: {1, 2}, name="task")
    request_.defer_task("task")
    assert deferred.run() == [{1, 2}]
