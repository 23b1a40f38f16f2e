"""The request of a task: made, entered and left, whatever happens."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext

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


class Failure(BaseException):
    """Not an Exception, as SystemExit and what gevent kills with are not."""


# The request.


def test_request_is_that_of_the_application(config, run):
    """The request has what a view's request has."""
    config.add_settings({"a": "b"})
    config.set_root_factory(Root)
    config.add_request_method(lambda request, name: f"hello {name}", "greet")
    config.add_request_method(lambda request: 42, "answer", property=True)
    config.add_route("item", "/items/{id}")
    depth = len(manager.stack)

    def task(request):
        assert isinstance(request, Request)
        assert request.greet("you") == "hello you"
        assert request.answer == 42
        assert request.registry is get_current_registry() is config.registry
        assert request.registry.settings["a"] == "b"
        assert type(request.root) is Root
        assert request.root.request is get_current_request() is request
        assert request.context is request.root
        assert request.route_url("item", id=1) == "http://localhost/items/1"
        assert (request.method, request.body) == ("GET", b"")
        return len(manager.stack)

    assert run(task).get() == depth + 1


def test_default_root(run):
    """Without a root factory, the root is Pyramid's default one."""
    root = run(lambda request: type(request.root).__name__).get()
    assert root == "DefaultRootFactory"


def test_root_factory_may_set_the_context(config, run):
    """A context that the root factory chose is kept."""

    def root_factory(request):
        request.context = "chosen"
        return "root"

    config.set_root_factory(root_factory)
    found = run(lambda request: (request.context, request.root)).get()
    assert found == ("chosen", "root")


def test_requests_are_separate(config):
    """No request is used twice or kept, and none has the environ of another."""
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


def test_no_events_of_the_router(config, run):
    """A task's request does not pass the router, so that its events are not sent."""
    seen = []
    for event in NewRequest, ContextFound:
        config.add_subscriber(seen.append, event)
    run(lambda request: None).get()
    assert seen == []


# The header environ.


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HTTP_HOST": "a.example", "wsgi.url_scheme": "https"}, "https://a.example"),
        ({"SCRIPT_NAME": "/app"}, "http://localhost/app"),
        ({}, "http://localhost"),
        (None, "http://localhost"),
    ],
)
def test_environ_header(run, environ, url):
    """The header fills the WSGI environ of the request, and again after a retry."""
    urls = []

    def task(self, request):
        urls.append(request.application_url)
        if len(urls) == 1:
            raise self.retry(countdown=0)

    run(task, headers={"environ": environ}, bind=True).get()
    assert urls == [url, url]


#: What no message may set; the last name is the empty one.
FORBIDDEN = (
    "wsgi.input webob.adhoc_attrs tm.active pyramid_tasks.task REMOTE_USER PATH_INFO "
    "HTTP_COOKIE HTTP_AUTHORIZATION repoze.who.identity paste.registry beaker.session "
)
IMPOSSIBLE = {
    "wsgi.url_scheme": ["ftp", "https\n"],
    "SERVER_PORT": ["0", "65536", "٣"],
    "HTTP_HOST": ["a\r\nb", "", "a/b", "a\ud800"],
    "SERVER_NAME": ["a b", "a\x85b"],
    "SCRIPT_NAME": ["app", "/\0", "/ž"],
}
ONLY = f"only {', '.join(HOST_KEYS)}"


@pytest.mark.parametrize(
    ("environ", "error", "said"),
    [
        *(
            (environ, TypeError, "must be a dictionary of strings")
            for environ in ("HTTP_HOST=x", ["HTTP_HOST"], {"HTTP_HOST": 1}, {1: "x"})
        ),
        *(
            ({key: "x"}, ValueError, f"must not set '{key}', {ONLY}")
            for key in FORBIDDEN.split(" ")
        ),
        *(
            ({key: value}, ValueError, f"has a {key} that cannot be right")
            for key, values in IMPOSSIBLE.items()
            for value in values
        ),
    ],
)
def test_wrong_environ_header(run, environ, error, said):
    """A header that anyone could have sent is refused, with its fault."""
    ran = []
    result = run(ran.append, headers={"environ": environ})
    assert type(result.result) is error
    assert str(result.result) == f"The header 'environ' {said}"
    assert ran == []


# Ways to end.


@pytest.mark.parametrize(
    ("error", "state"),
    [
        *((ValueError("x"), "FAILURE"), (SoftTimeLimitExceeded(), "FAILURE")),
        *((Ignore(), "IGNORED"), (Reject("no"), "REJECTED")),
        (Retry("again", when=0), "RETRY"),
        *((error, None) for error in (Failure(), KeyboardInterrupt(), SystemExit())),
    ],
)
def test_left_cleanly(config, run, caplog, error, state):
    """All callbacks run inside the request; their errors do not hide the task's."""
    config.add_request_method(lambda request: 42, "answer", property=True)
    seen = []

    def fail(request):
        raise RuntimeError("callback")

    def note(request):
        seen.append((request.answer, get_current_request() is request))

    def task(request):
        request.add_finished_callback(fail)
        request.add_finished_callback(note)
        raise error

    if state:
        assert run(task).state == state
    else:
        with pytest.raises(type(error)):
            run(task)
    assert seen == [(42, True)]
    (record,) = (r for r in caplog.records if r.name == "pyramid_tasks.worker.ending")
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("A finished callback of it[")
    assert str(record.exc_info[1]) == "callback"


def test_what_is_left_open_is_let_go(run):
    """If a callback fails, no error of the task keeps what the task had opened."""
    opened = []

    def query(request):
        connection = Root(request)
        opened.append(weakref.ref(connection))
        raise LookupError("no row")

    def task(request):
        request.add_finished_callback(lambda request: 1 / 0)
        try:
            query(request)
        except LookupError:
            raise ValueError("its own")  # noqa: B904 as applications do

    assert type(run(task).result) is ValueError
    assert opened[0]() is None


@pytest.mark.parametrize("error", [None, RuntimeError("callback")])
def test_finished_callbacks(run, error):
    """They run in their order, after the task; an error fails it, and the rest run."""
    seen = []

    def callback(request):
        seen.append("callback")
        if error:
            raise error

    def task(request):
        request.add_finished_callback(callback)
        request.add_finished_callback(callback)
        request.add_finished_callback(lambda request: seen.append("other"))
        seen.append("task")
        return "result"

    result = run(task)
    assert result.result == (error or "result")
    assert result.state == ("FAILURE" if error else "SUCCESS")
    assert seen == ["task", "callback", "callback", "other"]


@pytest.mark.parametrize("error", [RuntimeError("root"), Failure("root")])
def test_error_in_the_root_factory(config, run, error):
    """An error before the task runs is an error of the task, and leaves nothing."""
    seen = []

    def root_factory(request):
        request.add_finished_callback(lambda request: seen.append("finished"))
        raise error

    config.set_root_factory(root_factory)
    if isinstance(error, Exception):
        assert run(seen.append).result is error
    else:
        with pytest.raises(Failure):
            run(seen.append)
    assert seen == ["finished"]


def test_leftover_threadlocals(config):
    """What a task pushes and forgets does not reach the next task."""

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
        with pytest.raises(ValueError, match="x") if fail else nullcontext():
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

    def outer(request):
        task = request.current_task
        inner_id = request.defer_task("inner", id(request)).result
        assert get_current_request() is request
        assert request.current_task is task
        assert task.name == "outer"
        return task.request.id, inner_id

    def inner(request, outer_id):
        assert id(request) != outer_id
        assert request.current_task.name == "inner"
        return request.current_task.request.id

    eager.register_task(outer, name="outer")
    eager.register_task(inner, name="inner")
    eager.commit()
    with prepare(registry=eager.registry) as env:
        result = env["request"].defer_task("outer")
        outer_id, inner_id = result.get()
        assert result.id == outer_id != inner_id
        assert get_current_request() is env["request"]
