"""What is deferred in the test of an application: seen, asserted, run."""

from __future__ import annotations

import logging
import threading
from datetime import date
from unittest.mock import ANY

import pytest
from celery import chain, chord, group
from celery.exceptions import Ignore, Reject
from celery.result import AsyncResult
from pyramid import testing
from pyramid.config import Configurator
from pyramid.request import apply_request_extensions
from pyramid.threadlocal import get_current_request
from webtest import TestApp as WebTestApp

from pyramid_tasks import BeforeTask, TaskRetried
from pyramid_tasks.exceptions import (
    AmbiguousTask,
    CaptureError,
    DeferError,
    ResultNotReady,
    TaskError,
    TaskNotRegistered,
)
from pyramid_tasks.testing import capture
from pyramid_tasks.worker.request import get_runner

# Where nothing answers: whatever connects fails.
NOWHERE = "redis://localhost:1/0"


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
    raise TwoPartError("no", "way")


def flaky(self, request, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=3600, max_retries=2, exc=OSError("down"))
    return self.request.retries


def view(request):
    result = request.defer_task(add, int(request.params["x"]), y=2)
    return result.id


def configure(config):
    config.include("pyramid_tasks")
    for task in add, total, nest, fail:
        config.register_task(task)
    config.register_task(flaky, bind=True)
    config.add_view(view, renderer="string")


SETTINGS = {"celery.broker_url": NOWHERE, "celery.result_backend": NOWHERE}


@pytest.fixture
def config():
    """A Configurator as pyramid.testing.setUp() makes it."""
    with testing.testConfig(settings=dict(SETTINGS)) as config:
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


def task_name(func):
    return f"{func.__module__}.{func.__name__}"


def celery_app(registry):
    return registry["pyramid_tasks"].app


class TestCaptured:
    """What is listed."""

    def test_task(self, deferred, request_):
        """A captured task says what was deferred."""
        result = request_.defer_task_with_options(add, (1,), {"y": 2}, countdown=60)
        (task,) = deferred.tasks
        assert (task.func, task.name) == (add, f"{add.__module__}.add")
        assert (task.args, task.kwargs) == ((1,), {"y": 2})
        assert task.options == {"countdown": 60}
        assert task.id == result.id
        assert repr(task).endswith("add(1, y=2)")
        assert repr(deferred).endswith("add(1, y=2)]>")

    @pytest.mark.parametrize("number", range(2))
    def test_webtest(self, app, number):
        """A view's tasks are captured; nothing of it is left for the next test."""
        with capture(app.registry) as deferred:
            task_id = WebTestApp(app).get("/", {"x": number}).text
        assert [(task.id, task.args) for task in deferred.tasks] == [
            (task_id, (number,))
        ]

    def test_web_server_thread(self, app):
        """What another thread defers is captured too, all of it."""
        with capture(app.registry) as deferred:
            threads = [
                threading.Thread(target=WebTestApp(app).get, args=("/", {"x": number}))
                for number in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(task.args for task in deferred.tasks) == [
            (number,) for number in range(8)
        ]

    def test_arguments_travel(self, deferred, request_):
        """Arguments are what a worker gets, and not what the caller keeps."""
        numbers = (1, [2])
        request_.defer_task(total, numbers)
        numbers[1].append(3)
        request_.defer_task(add, date(2024, 5, 1))
        assert deferred.tasks[0].args == ([1, [2]],)
        assert deferred.tasks[1].args[0].day == 1

    def test_what_cannot_travel(self, deferred, request_):
        """An argument that JSON cannot hold fails where it is deferred."""
        with pytest.raises(
            DeferError, match="add cannot be sent as json.*not JSON serial"
        ):
            request_.defer_task(add, object())
        assert deferred.tasks == []

    def test_serializer_of_the_task(self, config, deferred, request_):
        """A task with a serializer of its own gets what that makes of arguments."""
        config.register_task(add, name="pickled", serializer="pickle")
        request_.defer_task("pickled", (1, 2), {3})
        assert deferred.tasks[0].args == ((1, 2), {3})
        request_.defer_task_with_options(total, ((1, 2),), serializer="pickle")
        assert deferred.tasks[1].args == ((1, 2),)

    def test_wrong_arguments(self, deferred, request_):
        """Arguments that the task does not take fail as they do without a capture."""
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            request_.defer_task(add)
        assert deferred.tasks == []

    def test_context(self, config, deferred, request_):
        """What the task will know of the request is there to look at."""
        config.add_task_context("locale", lambda request: "de", lambda *_: None)
        request_.defer_task(add, 1)
        assert deferred.tasks[0].context == {"locale": "de"}
        assert deferred.tasks[0].options == {}

    @pytest.mark.parametrize(
        ("make", "names", "value"),
        [
            (lambda s: s(add, 1, 2), "add", 3),
            (lambda s: chain(s(add, 1, 2), s(add, 3)), "add add", 6),
            (lambda s: group(s(add, 1), s(add, 2)), "add add", [1, 2]),
            (
                lambda s: chord([s(add, 1), s(add, 2)], s(total)),
                "add add total",
                3,
            ),
            (
                lambda s: (
                    s(add, 1) | group(s(add, 1), s(add, 2)) | s(total) | s(add, 4)
                ),
                "add add add total add",
                9,
            ),
        ],
        ids=["signature", "chain", "group", "chord", "chain with a group"],
    )
    def test_canvas(self, deferred, request_, make, names, value):
        """A canvas is its tasks, in order; it runs as a whole, each task once."""
        ran = []
        request_.registry.registerHandler(
            lambda event: ran.append(event.request.current_task.request.id),
            [BeforeTask],
        )
        canvas = make(request_.task_signature)
        result = request_.defer_canvas(canvas)
        assert [task.name.rpartition(".")[2] for task in deferred.tasks] == (
            names.split()
        )
        assert len({id(task.canvas) for task in deferred.tasks}) == 1
        assert deferred.tasks[0].canvas["task"] == canvas["task"]
        assert deferred.run() == [value]
        assert ran == [task.id for task in deferred.tasks]
        assert result.get(timeout=10) == value

    @pytest.mark.parametrize("canvas", ["signature", "chain", "chord"])
    def test_id_of_a_canvas(self, deferred, request_, canvas):
        """A canvas that is given an id has it, and no other task of it."""
        one, two = request_.task_signature(add, 1), request_.task_signature(total)
        made = {"signature": one, "chain": one | one, "chord": chord([one], two)}
        result = request_.defer_canvas(made[canvas], task_id="mine")
        assert [task.id for task in deferred.tasks if task.id == "mine"] == [result.id]
        assert deferred.tasks[-1].id == "mine"

    def test_defer_tasks(self, deferred, request_):
        """Each call of defer_tasks is a task."""
        results = request_.defer_tasks(add, [(1, 2), (3, 4)])
        assert [task.id for task in deferred.tasks] == [each.id for each in results]
        assert deferred.run() == [3, 7]

    def test_linked_tasks(self, deferred, request_):
        """What is linked is captured once the task before it has succeeded."""
        link = request_.task_signature(add, 5)
        longer = request_.task_signature(add, 6) | request_.task_signature(add, 7)
        request_.defer_task_with_options(add, (1, 2), link=[link, longer])
        assert len(deferred.tasks) == 1
        assert deferred.run() == [3, 8, 16]
        assert [task.args for task in deferred.tasks[1:]] == [(3, 5), (3, 6), (7,)]

    def test_linked_to_a_failure(self, config, deferred, request_):
        """What is linked to a failure runs, before the test gets the error."""
        seen = []
        config.register_task(lambda request, task_id: seen.append(task_id), name="tell")
        link_error = request_.task_signature("tell")
        failed = request_.defer_task_with_options(fail, link_error=link_error)
        with pytest.raises(TwoPartError):
            deferred.run()
        assert seen == [failed.id]

    def test_delay(self, config, deferred):
        """What Celery's own methods send is captured too, and not sent."""
        app = celery_app(config.registry)
        result = app.tasks[task_name(add)].delay(1, y=2)
        app.send_task("of.another.application", (1,), queue="theirs")
        first, second = deferred.tasks
        assert (first.id, first.args, first.kwargs) == (result.id, (1,), {"y": 2})
        assert second.options["queue"] == "theirs"
        assert second.func is None
        assert deferred.find("of.another.application", 1) == [second]

    def test_chord_sent_by_celery(self, config, deferred, request_):
        """A chord that would never get to its body is refused, in plain words."""
        signature = request_.task_signature
        with pytest.raises(CaptureError, match=r"Defer it with request\.defer_canvas"):
            chord([signature(add, 1)], signature(total)).apply_async()

    def test_eager_application(self):
        """An application that runs its tasks eagerly is captured all the same."""
        settings = {"celery.task_always_eager": True, **SETTINGS}
        with testing.testConfig(settings=settings) as config:
            configure(config)
            request = testing.DummyRequest()
            apply_request_extensions(request)
            with capture(config.registry) as deferred:
                request.defer_task(add, 1)
                celery_app(config.registry).tasks[task_name(add)].delay(2)
                assert deferred.run(0) == []
                assert deferred.run() == [1, 2]
            assert request.defer_task(add, 3).get() == 3

    def test_delivery_by_name(self, deferred, request_):
        """A delivery given by name is captured as well."""
        request_.defer_task_with_options(add, (1,), delivery="immediate")
        assert len(deferred.tasks) == 1

    def test_clear(self, deferred, request_):
        """What was deferred so far can be forgotten."""
        request_.defer_task(add, 1)
        deferred.clear()
        request_.defer_task(add, 2)
        assert [task.args for task in deferred.tasks] == [(2,)]
        assert deferred.run() == [2]


def test_what_is_no_registry():
    """The application or the configurator in place of its registry is said so."""
    with (
        testing.testConfig() as config,
        pytest.raises(TypeError, match=r"no registry; pass app.registry or config"),
        capture(config),
    ):
        raise AssertionError


class TestAfterwards:
    """What a capture leaves behind: nothing."""

    def test_application_is_as_it_was(self, app, monkeypatch):
        """Deliveries, settings, connections and the environment are put back."""
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
            )

        before = state()
        with capture(app.registry, {"some": "thing"}) as deferred:
            WebTestApp(app).get("/", {"x": 1})
            assert deferred.run() == [3]
            assert "localhost:1" not in tasks.app.connection_for_write().as_uri()
        assert state() == before

    def test_after_an_error(self, app):
        """A test that fails is no different."""
        deliveries = dict(app.registry["pyramid_tasks"].deliveries)
        with pytest.raises(ZeroDivisionError), capture(app.registry):
            raise ZeroDivisionError
        assert app.registry["pyramid_tasks"].deliveries == deliveries
        assert "send_task" not in vars(celery_app(app.registry))

    def test_nested(self, deferred, config, request_):
        """The inner one of two captures has what is deferred in it."""
        with capture(config.registry) as inner:
            request_.defer_task(add, 1)
        request_.defer_task(add, 2)
        assert [task.args for task in inner.tasks] == [(1,)]
        assert [task.args for task in deferred.tasks] == [(2,)]

    def test_two_applications(self, app, config, deferred, request_):
        """Captures of two applications have nothing to do with each other."""
        with capture(app.registry) as other:
            WebTestApp(app).get("/", {"x": 1})
            request_.defer_task(add, 5)
            assert deferred.run() == [5]
            assert other.run() == [3]

    def test_application_without_tasks(self):
        """A registry without tasks is an error that says what to do."""
        with (
            testing.testConfig() as config,
            pytest.raises(TaskError, match=r'config\.include\("pyramid_tasks"\)'),
            capture(config.registry),
        ):
            pass


class TestAssertions:
    """Asking for a task."""

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((), {}),
            ((1,), {"y": 2}),
            ((1, 2), {}),
            ((), {"x": 1, "y": 2}),
            ((ANY, 2), {}),
        ],
    )
    def test_arguments(self, deferred, request_, args, kwargs):
        """It does not matter how arguments were given, and none accept any."""
        request_.defer_task(add, 1, y=2)
        assert deferred.assert_deferred(add, *args, **kwargs) is not None
        assert len(deferred.find(add, *args, **kwargs)) == 1

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((1,), {}),
            ((1, 3), {}),
            ((1, object()), {}),
        ],
    )
    def test_other_arguments(self, deferred, request_, args, kwargs):
        """All arguments of the call count."""
        request_.defer_task(add, 1, y=2)
        deferred.assert_not_deferred(add, *args, **kwargs)
        with pytest.raises(AssertionError):
            deferred.assert_deferred(add, *args, **kwargs)

    @pytest.mark.parametrize(("args", "kwargs"), [((1, 2, 3), {}), ((), {"z": 2})])
    def test_impossible_arguments(self, deferred, args, kwargs):
        """Arguments that no call can have are a slip of the test, which fails."""
        said = r"add\(.*\) cannot have been deferred: "
        for name in "find", "assert_deferred", "assert_not_deferred":
            with pytest.raises(TypeError, match=said):
                getattr(deferred, name)(add, *args, **kwargs)

    def test_defaults(self, deferred, request_):
        """A default that was given is as one that was not."""
        request_.defer_task(add, 1)
        assert deferred.find(add, 1, 0)
        assert deferred.find(add, 1)

    def test_compared_as_received(self, deferred, request_):
        """A tuple is found where JSON makes a list of it."""
        request_.defer_task(total, (1, 2))
        assert deferred.find(total, (1, 2))
        assert deferred.find(total, [1, 2])

    def test_partial_arguments(self, deferred, request_):
        """A task of a chain is found by the arguments that it was given."""
        signature = request_.task_signature
        request_.defer_canvas(signature(add, 1) | signature(total))
        assert deferred.find(total)
        assert not deferred.find(total, 1)

    @pytest.mark.parametrize("task", [add, f"{add.__module__}.add", "tsak"])
    def test_names(self, config, deferred, request_, task):
        """The task is named in the ways that defer_task knows; a slip is an error."""
        request_.defer_task(add, 1)
        if task == "tsak":
            with pytest.raises(TaskNotRegistered):
                deferred.assert_not_deferred(task)
        else:
            assert deferred.assert_deferred(task).func is add
            found = deferred.find(celery_app(config.registry).tasks[task_name(add)])
            assert len(found) == 1

    def test_several_names(self, config, deferred, request_):
        """A function with several names needs one of them."""
        config.register_task(add, name="second")
        request_.defer_task("second", 1)
        with pytest.raises(AmbiguousTask):
            deferred.assert_deferred(add)
        assert deferred.assert_deferred("second", 1)

    def test_failure_lists_what_was_deferred(self, deferred, request_):
        """The message of a failure says what was deferred instead."""
        name = add.__module__
        with pytest.raises(AssertionError) as error:
            deferred.assert_deferred(add)
        assert str(error.value) == (
            f"{name}.add was not deferred.\nNothing was deferred."
        )
        request_.defer_task(add, 1, y=2)
        request_.defer_task(nest, 0)
        with pytest.raises(AssertionError) as error:
            deferred.assert_deferred(add, 1)
        listed = f"Deferred:\n  {name}.add(1, y=2)\n  {name}.nest(0)"
        assert str(error.value) == f"{name}.add(1) was not deferred.\n{listed}"
        with pytest.raises(AssertionError) as error:
            deferred.assert_not_deferred(add)
        assert str(error.value) == f"{name}.add was deferred.\n{listed}"


class TestRun:
    """Running what was captured."""

    def test_request(self, config, deferred, request_):
        """Each task has a request of its own, with the application's methods."""
        seen = []

        def look(request):
            seen.append(request)
            assert get_current_request() is request
            assert request.current_task.app is celery_app(config.registry)
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

    def test_environ(self, config, request_):
        """The requests of tasks can have more in their environ, as in WebTest."""
        config.register_task(lambda request: request.environ["a"], name="look")
        with capture(config.registry, {"a": 5}) as deferred:
            request_.defer_task("look")
            assert deferred.run() == [5]

    def test_until_none_is_left(self, deferred, request_):
        """What tasks defer is captured, and runs too."""
        request_.defer_task(nest, 3)
        assert deferred.run() == [3, 2, 1, 0]
        assert len(deferred.tasks) == 4
        assert deferred.run() == []

    def test_at_most(self, deferred, request_):
        """A test can run some, look, and run more."""
        request_.defer_task(nest, 3)
        assert deferred.run(1) == [3]
        assert [task.args for task in deferred.tasks] == [(3,), (2,)]
        assert deferred.run(2) == [2, 1]
        assert deferred.run(9) == [0]

    def test_without_end(self, config, deferred, request_):
        """A task that defers itself for ever is an error, and no test that hangs."""

        def again(request):
            request.defer_task("again")

        config.register_task(again, name="again")
        request_.defer_task("again")
        with pytest.raises(CaptureError, match=r"defers itself.*deferred\.run\(10\)"):
            deferred.run()

    def test_error(self, deferred, request_):
        """An error is raised in the test, as it is; the tasks after it wait."""
        failed = request_.defer_task(fail)
        request_.defer_task(add, 1)
        with pytest.raises(TwoPartError, match="no way") as error:
            deferred.run()
        assert error.traceback[-1].name == "fail"
        with pytest.raises(ResultNotReady):
            failed.get(timeout=1)
        assert deferred.run() == [1]

    @pytest.mark.parametrize(
        "make",
        [
            lambda s: s(add, 1) | s(fail).set(immutable=True) | s(add, 1),
            lambda s: group(s(add, 1), s(fail)),
            lambda s: chord([s(fail), s(add, 1)], s(total)),
            lambda s: chord([s(add, 1)], s(fail).set(immutable=True)),
        ],
        ids=["chain", "group", "header", "body"],
    )
    def test_error_in_a_canvas(self, deferred, request_, make):
        """An error in any part of a canvas is raised in the test, as it is."""
        request_.defer_canvas(make(request_.task_signature))
        with pytest.raises(TwoPartError):
            deferred.run()

    @pytest.mark.parametrize("ending", [Ignore(), Reject("no")], ids=str)
    def test_ignored(self, config, deferred, request_, ending):
        """A task that ends as ignored or rejected is no error."""

        def end(request):
            raise ending

        config.register_task(end)
        request_.defer_task(end)
        assert deferred.run() == [None]

    def test_retry(self, config, deferred, request_):
        """A task that retries runs again at once, until it succeeds."""
        seen = []
        config.add_subscriber(seen.append, TaskRetried)
        request_.defer_task(flaky, 2)
        assert deferred.run() == [2]
        assert [event.exception.when for event in seen] == [3600, 3600]
        assert len({id(event.request) for event in seen}) == 2
        assert len(deferred.tasks) == 1

    def test_too_many_retries(self, deferred, request_):
        """The error after the last retry is raised in the test."""
        request_.defer_task(flaky, 3)
        with pytest.raises(OSError, match="down"):
            deferred.run()

    def test_autoretry(self, config, deferred, request_):
        """autoretry_for retries, and raises the error itself at last."""
        runs = []

        def work(request):
            runs.append(request)
            raise TwoPartError(1, 2)

        config.register_task(
            work, autoretry_for=(TwoPartError,), max_retries=2, retry_backoff=60
        )
        request_.defer_task(work)
        with pytest.raises(TwoPartError):
            deferred.run()
        assert len(runs) == 3

    def test_result(self, config, deferred, request_):
        """Waiting for a task that has not run is an error; then its result is there."""
        result = request_.defer_task(add, 1, 2)
        assert not result.ready()
        with pytest.raises(ResultNotReady, match="captures tasks, run it first"):
            result.get()
        assert request_.get_task_result(result.id).state == "PENDING"
        deferred.run()
        assert result.get(timeout=10) == 3
        assert request_.get_task_result(result.id).state == "SUCCESS"

    def test_without_result_backend(self):
        """Without a result backend a task may return what JSON cannot hold."""
        with testing.testConfig() as config:
            config.include("pyramid_tasks")
            config.register_task(lambda request: {1, 2}, name="task")
            request = testing.DummyRequest()
            apply_request_extensions(request)
            with capture(config.registry) as deferred:
                request.defer_task("task")
                assert deferred.run() == [{1, 2}]

    def test_of_another_application(self, config, deferred):
        """A task of another application cannot run here."""
        celery_app(config.registry).send_task("of.another.application")
        with pytest.raises(TaskNotRegistered, match=r"of\.another\.application"):
            deferred.run()

    def test_current_application(self, config, deferred, request_):
        """While a task runs, its application is Celery's current one."""
        from celery import _state

        def look(request):
            return AsyncResult("1").app is celery_app(config.registry)

        before = _state._tls.current_app
        config.register_task(look)
        request_.defer_task(look)
        assert deferred.run() == [True]
        assert _state._tls.current_app is before

    def test_nothing_is_logged_as_error(self, deferred, request_, caplog):
        """A run that goes well has nothing to complain of."""
        request_.defer_task(add, 1)
        with caplog.at_level(logging.WARNING):
            deferred.run()
        assert caplog.records == []
