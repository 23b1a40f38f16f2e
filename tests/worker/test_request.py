"""The request of a task: made, entered and left, whatever happens."""

from __future__ import annotations

import gc
import logging

import pytest
from celery import shared_task, signals
from celery._state import _set_task_join_will_block
from celery.app import trace
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from pyramid.events import ContextFound, NewRequest
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_registry, get_current_request, manager
from support import unique
from zope.interface import providedBy

from pyramid_tasks import CeleryWorkerProcessInit


class Root:
    def __init__(self, request):
        self.request = request


class CustomRequest(Request):
    custom = "custom"


class Failure(BaseException):
    """Not an Exception, as SystemExit and what gevent kills with are not."""


@pytest.fixture(autouse=True)
def _threadlocals():
    """Every test here leaves the threadlocals as it found them."""
    before = list(manager.stack)
    yield
    assert manager.stack == before
    # An embedded worker of Celery 5.3 leaves the mark of a worker.
    _set_task_join_will_block(False)  # noqa: FBT003


@pytest.fixture
def run(configure):
    """Return a function that runs a function as a task, and gives its result."""

    def run(func, *, setup=None, headers=None, **options):
        config = configure()
        if setup:
            setup(config)
        config.register_task(func, name="it", **options)
        task = config.make_celery_app().tasks["it"]
        return task.apply(headers=headers)

    return run


# The request.


def test_request_is_that_of_the_application(run):
    """The request has what a view's request has."""

    def task(request):
        assert isinstance(request, Request)
        return {
            "method": request.greet("you"),
            "property": request.answer,
            "same property": request.counted is request.counted,
            "registry": request.registry["pyramid_tasks"] is not None,
            "setting": request.registry.settings["a"],
            "root": type(request.root),
            "context": request.context is request.root,
            "root has the request": request.root.request is request,
            "current request": get_current_request() is request,
            "current registry": get_current_registry() is request.registry,
            "url": request.route_url("item", id=1),
            "body": request.body,
            "method of HTTP": request.method,
            "deeper": len(manager.stack),
        }

    def setup(config):
        config.add_settings({"a": "b"})
        config.set_root_factory(Root)
        config.add_request_method(lambda request, name: f"hello {name}", "greet")
        config.add_request_method(lambda request: 42, "answer", property=True)
        config.add_request_method(lambda request: object(), "counted", reify=True)
        config.add_route("item", "/items/{id}")

    depth = len(manager.stack)
    assert run(task, setup=setup).get() == {
        "method": "hello you",
        "property": 42,
        "same property": True,
        "registry": True,
        "setting": "b",
        "root": Root,
        "context": True,
        "root has the request": True,
        "current request": True,
        "current registry": True,
        "url": "http://localhost/items/1",
        "body": b"",
        "method of HTTP": "GET",
        "deeper": depth + 1,
    }


def test_default_root(run):
    """Without a root factory, the root is Pyramid's default one."""
    assert run(lambda request: type(request.root).__name__).get() == (
        "DefaultRootFactory"
    )


def test_root_factory_may_set_the_context(run):
    """A context that the root factory chose is kept."""

    def root_factory(request):
        request.context = "chosen"
        return "root"

    assert run(
        lambda request: (request.context, request.root),
        setup=lambda config: config.set_root_factory(root_factory),
    ).get() == ("chosen", "root")


def test_request_is_new_for_each_run(configure):
    """No request is used twice."""
    config = configure()
    seen = []
    config.register_task(seen.append, name="it")
    task = config.make_celery_app().tasks["it"]
    task.apply().get()
    task.apply().get()
    assert seen[0] is not seen[1]
    assert seen[0].environ is not seen[1].environ
    assert seen[0].environ["wsgi.input"] is not seen[1].environ["wsgi.input"]


def test_no_request_is_left_behind(configure):
    """What a request holds is free when the task has ended, without the collector."""
    config = configure()
    seen = []

    class Watched:
        def __del__(self):
            seen.append("gone")

    def task(request):
        request.watched = Watched()

    config.register_task(task, name="it")
    found = config.make_celery_app().tasks["it"]
    found.apply().get()
    gc.collect()
    assert seen == ["gone"]


@pytest.mark.parametrize(
    "factory",
    [
        pytest.param(CustomRequest, id="class"),
        pytest.param(lambda environ: CustomRequest(environ), id="function"),  # noqa: PLW0108
        pytest.param(f"{__name__}.CustomRequest", id="dotted name"),
    ],
)
def test_request_factory(run, factory):
    """The request comes from the request factory of the application."""
    assert run(
        lambda request: (request.custom, request.answer, request.root is not None),
        setup=lambda config: (
            config.set_request_factory(factory),
            config.add_request_method(lambda request: 42, "answer", property=True),
        ),
    ).get() == ("custom", 42, True)


@pytest.mark.parametrize("event", [NewRequest, ContextFound])
def test_no_events_of_the_router(run, event):
    """A task's request does not pass the router, so that its events are not sent."""
    seen = []
    run(
        lambda request: None,
        setup=lambda config: config.add_subscriber(seen.append, event),
    ).get()
    assert seen == []


# The header environ.


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HTTP_HOST": "example.com"}, "http://example.com"),
        (
            {"HTTP_HOST": "example.com", "wsgi.url_scheme": "https"},
            "https://example.com",
        ),
        ({"SCRIPT_NAME": "/app"}, "http://localhost/app"),
        ({}, "http://localhost"),
        (None, "http://localhost"),
    ],
)
def test_environ_header(run, environ, url):
    """The header fills the WSGI environ of the request."""
    result = run(lambda request: request.application_url, headers={"environ": environ})
    assert result.get() == url


def test_environ_header_does_not_stay(configure):
    """What one message says is not there in the next task."""
    config = configure()
    config.register_task(lambda request: request.host, name="it")
    task = config.make_celery_app().tasks["it"]
    assert task.apply(headers={"environ": {"HTTP_HOST": "a"}}).get() == "a"
    assert task.apply().get() == "localhost:80"


def test_environ_header_is_kept_by_a_retry(run):
    """A task that retries has the same environ again."""
    hosts = []

    def task(self, request):
        hosts.append(request.host)
        if len(hosts) == 1:
            raise self.retry(countdown=0)

    run(task, headers={"environ": {"HTTP_HOST": "a"}}, bind=True).get()
    assert hosts == ["a", "a"]


@pytest.mark.parametrize(
    ("environ", "error", "sentence"),
    [
        ("HTTP_HOST=x", TypeError, "must be a dictionary of strings"),
        (["HTTP_HOST"], TypeError, "must be a dictionary of strings"),
        ({"HTTP_HOST": 1}, TypeError, "must be a dictionary of strings"),
        ({"HTTP_HOST": None}, TypeError, "must be a dictionary of strings"),
        ({1: "x"}, TypeError, "must be a dictionary of strings"),
        ({"wsgi.input": "x"}, ValueError, "must not set 'wsgi.input'"),
        ({"wsgi.errors": "x"}, ValueError, "must not set 'wsgi.errors'"),
        ({"wsgi.version": "x"}, ValueError, "must not set 'wsgi.version'"),
        (
            {"pyramid_tasks.task": "x"},
            ValueError,
            "must not set 'pyramid_tasks.task'",
        ),
    ],
)
def test_wrong_environ_header(run, environ, error, sentence):
    """A header that anyone could have sent is refused with what is wrong with it."""
    ran = []
    result = run(ran.append, headers={"environ": environ})
    assert isinstance(result.result, error)
    assert str(result.result).startswith("The header 'environ'")
    assert sentence in str(result.result)
    assert ran == []


# Ways to end.

ENDS = {
    "exception": (ValueError("x"), "FAILURE"),
    "retry": (Retry("again", when=0), "RETRY"),
    "ignore": (Ignore(), "IGNORED"),
    "reject": (Reject("no"), "REJECTED"),
    "soft time limit": (SoftTimeLimitExceeded(), "FAILURE"),
}


@pytest.mark.parametrize(
    ("error", "state"), [pytest.param(*end, id=name) for name, end in ENDS.items()]
)
def test_left_cleanly(run, error, state):
    """However a task ends, callbacks run inside its request, and no request stays."""
    seen = []

    def finished(request):
        seen.append((request.answer, get_current_request() is request))

    def task(request):
        request.add_finished_callback(finished)
        raise error

    depth = len(manager.stack)
    result = run(
        task,
        setup=lambda config: config.add_request_method(
            lambda request: 42, "answer", property=True
        ),
    )
    assert result.state == state
    assert seen == [(42, True)]
    assert len(manager.stack) == depth


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt, SystemExit])
def test_left_cleanly_by_what_is_no_exception(run, error):
    """So it is for what ends the worker itself."""
    seen = []

    def task(request):
        request.add_finished_callback(lambda request: seen.append("finished"))
        raise error

    depth = len(manager.stack)
    with pytest.raises(error):
        run(task)
    assert seen == ["finished"]
    assert len(manager.stack) == depth


def test_callbacks_run_after_success(run):
    """Finished callbacks run in their order, after the task."""
    seen = []

    def task(request):
        request.add_finished_callback(lambda request: seen.append(1))
        request.add_finished_callback(lambda request: seen.append(2))
        seen.append(0)
        return "result"

    assert run(task).get() == "result"
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("error", [RuntimeError("root"), Failure("root")])
def test_error_in_the_root_factory(run, error):
    """An error before the task runs is an error of the task, and leaves nothing."""
    seen = []

    def root_factory(request):
        request.add_finished_callback(lambda request: seen.append("finished"))
        raise error

    def setup(config):
        config.set_root_factory(root_factory)

    depth = len(manager.stack)
    if isinstance(error, Exception):
        assert run(seen.append, setup=setup).result is error
    else:
        with pytest.raises(Failure):
            run(seen.append, setup=setup)
    assert seen == ["finished"]
    assert len(manager.stack) == depth


def test_error_in_the_request_factory(run):
    """An error in the request factory fails the task as well."""

    def factory(environ):
        raise RuntimeError("factory")

    result = run(
        lambda request: None, setup=lambda config: config.set_request_factory(factory)
    )
    assert str(result.result) == "factory"


def test_error_in_a_finished_callback(run):
    """It fails the task, and the other callbacks run nevertheless."""
    seen = []

    def fail(request):
        seen.append("failing")
        raise RuntimeError("callback")

    def task(request):
        request.add_finished_callback(fail)
        request.add_finished_callback(lambda request: seen.append("other"))
        return "result"

    result = run(task)
    assert result.state == "FAILURE"
    assert str(result.result) == "callback"
    assert seen == ["failing", "other"]


def test_errors_in_several_callbacks(run):
    """Each callback runs, even when the one before it fails."""
    seen = []

    def fail(request):
        seen.append("failing")
        raise RuntimeError(f"callback {len(seen)}")

    def task(request):
        for _ in range(3):
            request.add_finished_callback(fail)

    result = run(task)
    assert result.state == "FAILURE"
    assert seen == ["failing"] * 3


@pytest.mark.parametrize(
    ("error", "state"), [pytest.param(*end, id=name) for name, end in ENDS.items()]
)
def test_error_of_the_task_wins(run, caplog, error, state):
    """An error in a callback does not hide what the task raised; it is logged."""
    seen = []

    def fail(request):
        raise RuntimeError("callback")

    def task(request):
        request.add_finished_callback(fail)
        request.add_finished_callback(lambda request: seen.append("other"))
        raise error

    with caplog.at_level(logging.ERROR, logger="pyramid_tasks"):
        result = run(task)
    assert result.state == state
    assert seen == ["other"]
    (record,) = (r for r in caplog.records if r.name == "pyramid_tasks.worker.request")
    assert record.getMessage().startswith("A finished callback of it[")
    assert str(record.exc_info[1]) == "callback"


def test_leftover_threadlocals(configure):
    """What a task pushes and forgets does not reach the next task."""
    config = configure()

    def dirty(request):
        manager.push({"request": "leftover", "registry": request.registry})
        config.begin()

    config.register_task(dirty, name="dirty")
    config.register_task(lambda request: len(manager.stack), name="depth")
    app = config.make_celery_app()
    depth = len(manager.stack)
    app.tasks["dirty"].apply().get()
    assert len(manager.stack) == depth
    assert app.tasks["depth"].apply().get() == depth + 1


# Eager tasks.


def test_eager_in_a_view(eager):
    """A view has its own threadlocals back after a task that ran at once."""
    seen = []

    def task(request):
        seen.append(request)
        manager.push({"request": None, "registry": None})

    def view(request):
        request.defer_task(task)
        assert get_current_request() is request
        assert get_current_registry() is request.registry
        assert seen[0] is not request
        assert request.current_task is None
        return Response("still the view")

    eager.register_task(task)
    eager.add_view(view)
    response = Request.blank("/").get_response(eager.make_wsgi_app())
    assert response.text == "still the view"


def test_eager_error_in_a_view(eager):
    """So it has after a task that failed."""

    def task(request):
        raise ValueError("x")

    def view(request):
        with pytest.raises(ValueError, match="x"):
            request.defer_task(task)
        return Response(str(get_current_request() is request))

    eager.register_task(task)
    eager.add_view(view)
    assert Request.blank("/").get_response(eager.make_wsgi_app()).text == "True"


def test_nested_eager_tasks(eager):
    """A task that defers a task at once gets its own request back."""
    seen = []

    def outer(request):
        before = request.current_task
        inner_id = request.defer_task("inner", id(request)).result
        assert get_current_request() is request
        assert request.current_task is before
        assert request.current_task.name == "outer"
        seen.append(request.current_task.request.id)
        assert inner_id != seen[0]
        return inner_id

    def inner(request, outer_id):
        assert id(request) != outer_id
        assert request.current_task.name == "inner"
        return request.current_task.request.id

    eager.register_task(outer, name="outer")
    eager.register_task(inner, name="inner")
    eager.commit()
    with prepare(registry=eager.registry) as env:
        result = env["request"].defer_task("outer")
        assert seen == [result.id]
        assert result.get() != result.id
        assert get_current_request() is env["request"]


def test_task_can_defer_itself(eager):
    """Each run of a recursive task has a request of its own."""
    requests = []

    def task(request, left):
        requests.append(request)
        if left:
            request.defer_task("it", left - 1)
        assert get_current_request() is request

    eager.register_task(task, name="it")
    eager.make_celery_app().tasks["it"].delay(3)
    assert len({id(request) for request in requests}) == 4


# Several applications in one process.


def test_request_methods_added_later(configure):
    """What is added to requests after a task has run is there for the next one."""
    config = configure()
    config.add_request_method(lambda request: "first", "word", property=True)
    config.register_task(lambda request: request.word, name="say")
    task = config.make_celery_app().tasks["say"]
    assert task.apply().get() == "first"
    config.add_request_method(lambda request: "second", "word", property=True)
    config.add_request_method(lambda request: request.word * 2, "twice")
    config.commit()
    assert task.apply().get() == "second"
    config.register_task(lambda request: request.twice(), name="say twice")
    config.commit()
    assert config.make_celery_app().tasks["say twice"].apply().get() == "secondsecond"


def test_request_class_is_made_once(configure):
    """All tasks share the class of their requests, but not what is set on one."""
    classes, values = [], []

    def task(request):
        classes.append(type(request))
        values.append(request.cached)
        request.set_property(lambda _: "own", "own", reify=True)
        assert request.own == "own"
        assert not hasattr(classes[0], "own")

    config = configure()
    config.add_request_method(lambda _: object(), "cached", reify=True)
    config.register_task(task, name="task")
    app = config.make_celery_app()
    for _ in range(2):
        app.tasks["task"].apply().get()
    assert classes[0] is classes[1]
    assert values[0] is not values[1]


def test_request_is_like_that_of_a_script(run):
    """It provides and adapts what the request of pyramid.scripting.prepare does."""

    def look(request):
        with prepare(registry=request.registry) as env:
            scripted = env["request"]
            return [
                (
                    type(it).__mro__[1:],
                    list(providedBy(it)),
                    sorted(set(dir(it)) - {"root"}),
                    it.application_url,
                )
                for it in (request, scripted)
            ]

    def setup(config):
        config.add_request_method(lambda request: 1, "method")
        config.add_request_method(lambda request: 2, "cached", reify=True)

    ours, theirs = run(look, setup=setup).get()
    assert ours == theirs


@pytest.fixture
def two(configure):
    """Return two applications, each with a task of its own and one of a common name."""
    configs = []
    for number in (1, 2):
        config = configure(number=number)
        config.register_task(lambda request: "mine", name=f"only {number}")
        config.register_task(
            lambda request: request.registry.settings["number"], name="common"
        )
        configs.append(config)
    return configs


@pytest.mark.parametrize("finalize", [False, True])
def test_two_applications(two, finalize):
    """Neither sees the tasks of the other."""
    apps = [config.make_celery_app() for config in two]
    if finalize:
        for app in apps:
            app.finalize()
    assert "only 1" in apps[0].tasks
    assert "only 2" not in apps[0].tasks
    assert "only 2" in apps[1].tasks
    assert "only 1" not in apps[1].tasks
    assert [app.tasks["common"].apply().get() for app in apps] == [1, 2]


def test_two_applications_registered_later(two):
    """Nor does a task that is registered after both are finalized go astray."""
    apps = [config.make_celery_app() for config in two]
    for app in apps:
        app.finalize()
    two[0].register_task(lambda request: "late", name="late")
    two[0].commit()
    assert "late" in apps[0].tasks
    assert "late" not in apps[1].tasks


def test_no_application_is_the_current_one(two):
    """Including the package does not change what Celery takes for the current app."""
    from celery import current_app

    assert current_app._get_current_object() not in [
        config.make_celery_app() for config in two
    ]


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_shared_tasks(two, when):
    """A shared_task of Celery goes to both, as it is meant to."""
    name = unique()

    def share():
        @shared_task(name=name)
        def increment(x):
            return x + 1

    if when == "before":
        share()
    apps = [config.make_celery_app() for config in two]
    if when == "between":
        share()
    for app in apps:
        app.finalize()
    if when == "after":
        share()
    for app in apps:
        assert app.tasks[name].apply((1,)).get() == 2
        assert app.tasks[name].app is app


def test_registries_are_separate(two):
    """A task of one application, run inside one of the other, has its own registry."""
    for config in two:
        config.commit()
    first, second = (config.make_celery_app() for config in two)

    def outer(request):
        inner = second.tasks["common"].apply().result
        assert get_current_registry() is two[0].registry
        return request.registry.settings["number"], inner

    two[0].register_task(outer, name="outer")
    two[0].commit()
    assert first.tasks["outer"].apply().get() == (1, 2)


# A worker in a thread of this process.


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_worker(configure, pool):
    """A worker runs a task in its request, and is clean for the next."""
    config = configure(
        **{
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
            "celery.broker_transport_options": {"polling_interval": 0.01},
            "celery.task_default_queue": unique(),
        }
    )

    def task(request, how):
        depth = len(manager.stack)
        manager.push({"request": None, "registry": None})
        if how == "fail":
            raise ValueError(how)
        return depth, request.host

    config.register_task(task, name="it")
    app = config.make_celery_app()
    with (
        start_worker(app, pool=pool, concurrency=1, perform_ping_check=False),
        prepare(registry=config.registry) as env,
    ):
        request = env["request"]
        failed = request.defer_task("it", "fail")
        passed = request.defer_task_with_options(
            "it", ("pass",), headers={"environ": {"HTTP_HOST": "a"}}
        )
        assert tuple(passed.get(timeout=60)) == (1, "a")
        with pytest.raises(ValueError, match="fail"):
            failed.get(timeout=60)


@pytest.mark.filterwarnings("ignore:You're running the worker with superuser")
@pytest.mark.parametrize(
    ("pool", "count"), [("solo", 1), ("threads", 1), ("prefork", 0)]
)
def test_process_init(configure, pool, count):
    """The event is sent once in the process that runs tasks, to one application.

    The children of the prefork pool are not started here.
    """
    seen, others = [], []
    config = configure(**{"celery.broker_url": "memory://"})
    config.add_subscriber(seen.append, CeleryWorkerProcessInit)
    other = configure()
    other.add_subscriber(others.append, CeleryWorkerProcessInit)
    other.commit()
    app = config.make_celery_app()
    try:
        app.Worker(pool=pool, concurrency=1)
    finally:
        trace.reset_worker_optimizations(app)
    assert [event.registry for event in seen] == [config.registry] * count
    if not count:  # as each child does after the fork
        app.loader.init_worker_process()
        signals.worker_process_init.send(sender=None)
        assert [event.registry for event in seen] == [config.registry]
    assert others == []


def test_web_process_sends_no_process_init(configure):
    """Nothing is connected to Celery's signals without a worker."""
    seen = []
    config = configure()
    config.add_subscriber(seen.append, CeleryWorkerProcessInit)
    config.make_celery_app().finalize()
    signals.worker_process_init.send(sender=None)
    assert seen == []
