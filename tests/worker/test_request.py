"""The request of a task: made, entered and left, whatever happens."""

from __future__ import annotations

import gc

import pytest
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from pyramid.events import ContextFound, NewRequest
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_registry, get_current_request, manager

from pyramid_tasks.worker.environ import HOST_KEYS

pytestmark = pytest.mark.usefixtures("threadlocals_stay")


class Root:
    def __init__(self, request):
        self.request = request


class CustomRequest(Request):
    custom = "custom"


class Failure(BaseException):
    """Not an Exception, as SystemExit and what gevent kills with are not."""


@pytest.fixture
def run(configure):
    """Return a function that runs a function as a task, and gives its result."""

    def run(func, *, setup=None, headers=None, **options):
        config = configure()
        if setup:
            setup(config)
        config.register_task(func, name="it", **options)
        return config.make_celery_app().tasks["it"].apply(headers=headers)

    return run


# The request.


def test_request_is_that_of_the_application(run):
    """The request has what a view's request has."""

    def task(request):
        assert isinstance(request, Request)
        return {
            "method": request.greet("you"),
            "property": request.answer,
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
        config.add_route("item", "/items/{id}")

    depth = len(manager.stack)
    assert run(task, setup=setup).get() == {
        "method": "hello you",
        "property": 42,
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


def test_requests_are_separate(configure):
    """No request is used twice or kept, and none has the environ of another."""
    config = configure()
    seen, gone = [], []

    class Watched:
        def __del__(self):
            gone.append(1)

    def task(request, keep):
        if keep:
            seen.append(request)
        else:
            request.watched = Watched()
        return request.host

    config.register_task(task, name="it")
    task = config.make_celery_app().tasks["it"]
    for host in "a", "b":
        headers = {"environ": {"HTTP_HOST": host}}
        assert task.apply((True,), headers=headers).get() == host
    assert seen[0].environ["wsgi.input"] is not seen[1].environ["wsgi.input"]
    assert seen[0].host == "a"
    assert task.apply((False,)).get() == "localhost:80"
    gc.collect()
    assert gone == [1]


def test_request_factory(run):
    """The request comes from the request factory of the application."""
    assert run(
        lambda request: (request.custom, request.answer, request.root is not None),
        setup=lambda config: (
            config.set_request_factory(CustomRequest),
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


def test_environ_header_is_kept_by_a_retry(run):
    """A task that retries has the same environ again."""
    hosts = []

    def task(self, request):
        hosts.append(request.host)
        if len(hosts) == 1:
            raise self.retry(countdown=0)

    run(task, headers={"environ": {"HTTP_HOST": "a"}}, bind=True).get()
    assert hosts == ["a", "a"]


STRINGS = "The header 'environ' must be a dictionary of strings"
ONLY = f"only {', '.join(HOST_KEYS)}"
WRONG = "that cannot be right"


@pytest.mark.parametrize(
    ("environ", "error", "message"),
    [
        ("HTTP_HOST=x", TypeError, STRINGS),
        (["HTTP_HOST"], TypeError, STRINGS),
        ({"HTTP_HOST": 1}, TypeError, STRINGS),
        ({1: "x"}, TypeError, STRINGS),
        *(
            (
                {key: "x"},
                ValueError,
                f"The header 'environ' must not set '{key}', {ONLY}",
            )
            for key in (
                *("wsgi.input", "webob.adhoc_attrs", "tm.active", "pyramid_tasks.task"),
                *("REMOTE_USER", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "PATH_INFO"),
                *("repoze.who.identity", "paste.registry", "beaker.session", ""),
            )
        ),
        *(
            ({key: value}, ValueError, f"The header 'environ' has a {key} {WRONG}")
            for key, value in (
                *(("wsgi.url_scheme", "ftp"), ("wsgi.url_scheme", "https\n")),
                *(("SERVER_PORT", "0"), ("SERVER_PORT", "65536"), ("SERVER_PORT", "٣")),
                *(("HTTP_HOST", "a\r\nb"), ("HTTP_HOST", ""), ("HTTP_HOST", "a/b")),
                *(("SERVER_NAME", "a b"), ("SERVER_NAME", "a\x85b")),
                *(
                    ("SCRIPT_NAME", "app"),
                    ("SCRIPT_NAME", "/\0"),
                    ("SCRIPT_NAME", "/ž"),
                ),
            )
        ),
    ],
)
def test_wrong_environ_header(run, environ, error, message):
    """A header that anyone could have sent is refused, with its fault."""
    ran = []
    result = run(ran.append, headers={"environ": environ})
    assert type(result.result) is error
    assert str(result.result) == message
    assert ran == []


# Ways to end.


@pytest.mark.parametrize(
    ("error", "state"),
    [
        pytest.param(ValueError("x"), "FAILURE", id="exception"),
        pytest.param(Retry("again", when=0), "RETRY", id="retry"),
        pytest.param(Ignore(), "IGNORED", id="ignore"),
        pytest.param(Reject("no"), "REJECTED", id="reject"),
        pytest.param(SoftTimeLimitExceeded(), "FAILURE", id="soft time limit"),
        *((error, None) for error in (Failure(), KeyboardInterrupt(), SystemExit())),
    ],
)
def test_left_cleanly(run, caplog, error, state):
    """All callbacks run inside the request; their errors do not hide the task's."""
    seen = []

    def fail(request):
        raise RuntimeError("callback")

    def note(request):
        seen.append((request.answer, get_current_request() is request))

    def task(request):
        request.add_finished_callback(fail)
        request.add_finished_callback(note)
        raise error

    def setup(config):
        config.add_request_method(lambda request: 42, "answer", property=True)

    if state:
        assert run(task, setup=setup).state == state
    else:
        with pytest.raises(type(error)):
            run(task, setup=setup)
    assert seen == [(42, True)]
    (record,) = (r for r in caplog.records if r.name == "pyramid_tasks.worker.ending")
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("A finished callback of it[")
    assert str(record.exc_info[1]) == "callback"


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


def test_errors_in_finished_callbacks(run):
    """An error fails the task, and the other callbacks run nevertheless."""
    seen = []

    def fail(request):
        seen.append("failing")
        raise RuntimeError("callback")

    def task(request):
        for callback in (fail, fail, lambda request: seen.append("other")):
            request.add_finished_callback(callback)
        return "result"

    result = run(task)
    assert result.state == "FAILURE"
    assert str(result.result) == "callback"
    assert seen == ["failing", "failing", "other"]


@pytest.mark.parametrize("error", [RuntimeError("root"), Failure("root")])
def test_error_in_the_root_factory(run, error):
    """An error before the task runs is an error of the task, and leaves nothing."""
    seen = []

    def root_factory(request):
        request.add_finished_callback(lambda request: seen.append("finished"))
        raise error

    def setup(config):
        config.set_root_factory(root_factory)

    if isinstance(error, Exception):
        assert run(seen.append, setup=setup).result is error
    else:
        with pytest.raises(Failure):
            run(seen.append, setup=setup)
    assert seen == ["finished"]


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
    assert app.tasks["depth"].apply().get() == depth + 1


# Eager tasks.


@pytest.mark.parametrize("fail", [False, True])
def test_eager_in_a_view(eager, fail):
    """A view has its own threadlocals back after a task that ran at once."""
    seen = []

    def task(request):
        seen.append(request)
        manager.push({"request": None, "registry": None})
        if fail:
            raise ValueError("x")

    def view(request):
        if fail:
            with pytest.raises(ValueError, match="x"):
                request.defer_task(task)
        else:
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
