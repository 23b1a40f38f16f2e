"""What travels from the request that defers a task to the request of the task."""

from __future__ import annotations

import json
import uuid
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from celery._state import _set_task_join_will_block
from celery.contrib.testing.worker import start_worker
from contextapp import restore_tenant
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_request, manager
from support import unique

from pyramid_tasks import BeforeDeferTask, BeforeTask, TaskFailed
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.worker.contexts import HEADER

pytestmark = pytest.mark.filterwarnings(
    "ignore:You're running the worker with superuser"
)

SECRET = "s3cret"


def capture_language(request):
    return request.headers.get("X-Language")


def restore_language(request, value):
    request.language = value


def nothing(request, *args):
    """A context that brings nothing, and a task that does nothing."""


def failing(request, *args):
    raise LookupError("cannot be done here")


@pytest.fixture(autouse=True)
def _requests():
    """Take the requests of a test off the stack of threadlocals."""
    depth = len(manager.stack)
    yield
    del manager.stack[depth:]
    # An embedded worker of Celery 5.3 leaves the mark of a worker.
    _set_task_join_will_block(False)  # noqa: FBT003


@pytest.fixture
def queueing(configure, request):
    """Return a Configurator with a task, ``it``, that stays in a queue, in memory."""
    config = configure(
        **{
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
            "celery.task_default_queue": unique(),
            "pyramid_tasks.context": getattr(request, "param", ""),
        }
    )
    config.register_task(nothing, name="it")
    return config


@pytest.fixture
def german(queueing):
    """Return a request in German, for an application in which languages travel."""
    queueing.add_task_context("language", capture_language, restore_language)
    return request_of(queueing, X_Language="de")


def request_of(config, **headers):
    """Return the request of a browser, with some headers."""
    config.commit()
    request = Request.blank("/", headers=headers)
    return prepare(request, config.registry)["request"]


def sent(config):
    """Take the next message from the queue; ``None`` if there is none."""
    app = get_tasks(config.registry).app
    with app.connection_for_write() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue]
        queue(connection.default_channel).declare()
        return connection.default_channel.basic_get(queue.name, no_ack=True)


def context_of(message):
    return json.loads(message.headers[HEADER])


def run(config, func, headers=None):
    """Run a function as a task whose message has some headers."""
    config.register_task(func, name="it")
    return config.make_celery_app().tasks["it"].apply(headers=headers)


def header(**values):
    return {HEADER: json.dumps(values)}


# Deferring.


def test_nothing_switched_on(queueing):
    """Without a context, a message has the headers that Celery gives it."""
    request_of(queueing, X_Language="de").defer_task("it")
    headers = sent(queueing).headers
    get_tasks(queueing.registry).app.tasks["it"].apply_async()
    assert headers.keys() == sent(queueing).headers.keys()
    assert HEADER not in headers


def test_one_header(queueing, german):
    """Values travel in one string, beside the other headers of a call."""
    queueing.add_task_context("other", lambda request: '"ä"', nothing)
    queueing.commit()
    own = {"mine": "x"}
    german.defer_task_with_options("it", headers=own)
    message = sent(queueing)
    assert message.headers[HEADER].isascii()
    assert context_of(message) == {"language": "de", "other": '"ä"'}
    assert message.headers["mine"] == "x"
    assert own == {"mine": "x"}


@pytest.mark.parametrize(
    "value",
    [
        *(0, "", False, [], {}, "x" * 10_000),
        datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        Decimal("1.10"),
        b"\xff",
        {"nested": [uuid.UUID(int=2)]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(eager, value):
    """Any value that Celery's JSON can hold comes back as it was, a false one too."""
    eager.add_task_context("it", lambda request: value, restore_tenant)
    eager.register_task(lambda request: request.tenant, name="it")
    assert request_of(eager).defer_task("it").get() == value


def test_none(eager):
    """``None`` is nothing: it does not travel, and nothing is restored."""
    eager.add_task_context("it", nothing, failing)
    eager.register_task(lambda request: request.current_task.request.headers, name="it")
    assert request_of(eager).defer_task("it").get() == {HEADER: "{}"}


CIRCULAR: list[object] = []
CIRCULAR.append(CIRCULAR)
DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, {(1, 2): 3}, CIRCULAR, DEEP, Request.blank("/")]
)
def test_value_that_json_cannot_hold(queueing, value):
    """A value that cannot travel is an error of the view; nothing is sent."""
    queueing.add_task_context("tenant", lambda request: value, restore_tenant)
    request = request_of(queueing)
    signature = request.task_signature("it")
    for defer in (
        lambda: request.defer_task("it"),
        lambda: request.defer_tasks("it", [()]),
        lambda: request.defer_canvas(signature | signature),
    ):
        with pytest.raises(TypeError, match="task context 'tenant' .* JSON") as caught:
            defer()
        assert len(str(caught.value)) < 500
    assert sent(queueing) is None


def test_error_in_capture(queueing):
    """An error in a capture is an error of the view; nothing is sent."""
    queueing.add_task_context("language", failing, nothing)
    with pytest.raises(LookupError, match="cannot be done here"):
        request_of(queueing).defer_task("it")
    assert sent(queueing) is None


def test_subscribers_may_change_it(queueing, german):
    """A subscriber of ``BeforeDeferTask`` sees the header among the options."""
    queueing.add_subscriber(
        lambda event: event.options["headers"].pop(HEADER), BeforeDeferTask
    )
    queueing.commit()
    german.defer_task("it")
    assert HEADER not in sent(queueing).headers


def test_transaction(queueing):
    """The values are those at the time of deferring, not at the commit."""
    pytest.importorskip("pyramid_tm")
    queueing.include("pyramid_tm")
    queueing.include("pyramid_tasks.contrib.pyramid_tm")
    queueing.add_task_context("language", capture_language, restore_language)
    request = request_of(queueing, X_Language="de")
    with request.tm:
        request.defer_task("it")
        request.headers["X-Language"] = "fr"
        assert sent(queueing) is None
    assert context_of(sent(queueing)) == {"language": "de"}


# Running.


def test_place_of_restore(eager):
    """The request has its methods and is the current one; its root comes later."""
    seen = []

    def restore(request, value):
        seen.append("restore")
        assert request.answer == 42
        assert get_current_request() is request
        assert request.current_task.name == "it"
        assert not hasattr(request, "root")
        request.language = value

    def root_factory(request):
        if request.current_task:
            seen.append("root")
            assert request.language == "de"

    def deriver(task, info):
        def wrapper(request, *args, **kwargs):
            seen.append("deriver")
            return task(request, *args, **kwargs)

        return wrapper

    eager.add_request_method(lambda request: 42, "answer", property=True)
    eager.set_root_factory(root_factory)
    eager.add_task_deriver(deriver)
    eager.add_subscriber(lambda event: seen.append("event"), BeforeTask)
    eager.add_task_context("language", capture_language, restore)
    eager.register_task(lambda request: seen.append("task"), name="it")
    request_of(eager, X_Language="de").defer_task("it")
    assert seen == ["restore", "root", "event", "deriver", "task"]


def test_error_in_restore(configure):
    """An error in a restore fails the task, and subscribers are told."""
    config = configure()
    failures = []
    config.add_subscriber(failures.append, TaskFailed)
    config.add_task_context("language", nothing, failing)
    result = run(config, nothing, header(language="de"))
    with pytest.raises(LookupError, match="cannot be done here"):
        result.get()
    (failure,) = failures
    assert failure.exception is result.result
    assert failure.request.current_task.name == "it"


@pytest.mark.parametrize("headers", [None, header(other=[1], language=None)])
def test_nothing_to_restore(configure, headers):
    """A message without the header, without a value, or with unknown ones is fine."""
    config = configure()
    config.add_task_context("language", failing, failing)
    assert run(config, lambda request: 1, headers).get() == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", '"x"', '[["language", "de"]]', "[" * 100_000),
        '{"language": {"__type__": "nothing", "__value__": 1}}',
        '{"language": {"__type__": "decimal", "__value__": "x"}}',
        '{"language": {"__type__": [], "__value__": "x"}}',
        *(b"\xff", b"{}", 1, {"language": "de"}),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_malformed_header(configure, text):
    """A header that is no JSON object fails the task, unless nobody reads it."""
    config = configure()
    assert run(config, lambda request: 1, {HEADER: text}).get() == 1
    config.add_task_context("language", nothing, failing)
    result = run(config, nothing, {HEADER: text})
    with pytest.raises(ValueError, match="'pyramid_tasks_context' is no JSON") as error:
        result.get()
    assert len(str(error.value)) < 300


def test_environ_header_wins(configure):
    """The header ``environ`` of a message wins over the context."""
    config = configure(**{"pyramid_tasks.context": "host"})
    host = {"HTTP_HOST": "a.example:81", "SCRIPT_NAME": "/app"}
    headers = header(host=host) | {"environ": {"HTTP_HOST": "b.example"}}
    found = run(config, lambda request: request.application_url, headers).get()
    assert found == "http://b.example/app"


# Handing on.


def wait_for(result):
    """Return the result of a task that another one deferred, in eager mode."""
    return result.get(disable_sync_subtasks=False)


def test_handed_on(eager):
    """A task that defers a task hands on what came to it, without its changes."""
    asked = []

    def capture(request):
        asked.append(request.current_task)
        return ["tenant"]

    def task(request, depth):
        request.tenant.append("changed")
        if depth:
            return wait_for(request.defer_task("it", depth - 1))
        return request.tenant

    eager.add_task_context("it", capture, restore_tenant)
    # None from the view: the tasks hand on that there is nothing.
    view_only = lambda request: request.current_task and failing(request)  # noqa: E731
    eager.add_task_context("route", view_only, nothing)
    eager.register_task(task, name="it")
    found = request_of(eager).defer_task("it", 2).get()
    assert found == ["tenant", "changed"]
    assert asked == [None]


def test_values_of_others_are_handed_on(queueing):
    """A value that this application does not know may be for the next one."""
    queueing.add_task_context("language", failing, restore_language)
    queueing.register_task(lambda request: request.defer_task("it").id, name="first")
    came = header(language="de", other=[1])
    queueing.make_celery_app().tasks["first"].apply(headers=came).get()
    assert sent(queueing).headers[HEADER] == came[HEADER]


def test_task_that_no_request_deferred(eager):
    """Its own request is asked, as nothing came; what it defers has that."""

    def restore_id(request, value):
        request.id = value

    eager.add_task_context("id", lambda request: request.id, restore_id)
    eager.add_request_method(lambda request: unique(), "id", reify=True)
    result = run(
        eager,
        lambda request, depth=2: [
            request.id,
            *(wait_for(request.defer_task("it", depth - 1)) if depth else ()),
        ],
    )
    first, *others = result.get()
    assert others == [first, first]


def worker(config):
    app = get_tasks(config.registry).app
    return start_worker(app, pool="solo", concurrency=1, perform_ping_check=False)


@pytest.mark.parametrize("where", ["eager", "worker"])
def test_retries(queueing, where):
    """A task that runs again knows the same."""
    seen = []

    def retry(self, request):
        seen.append(request.language)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return request.language

    def raise_error(self, request):
        seen.append(request.language)
        if self.request.retries < 2:
            raise OSError
        return request.language

    queueing.add_settings({"celery.task_always_eager": where == "eager"})
    queueing.add_task_context("language", capture_language, restore_language)
    queueing.register_task(retry, bind=True, name="retry")
    options = {"autoretry_for": (OSError,), "default_retry_delay": 0}
    queueing.register_task(raise_error, bind=True, name="raise", **options)
    request = request_of(queueing, X_Language="de")
    with worker(queueing) if where == "worker" else nullcontext():
        for name in ("retry", "raise"):
            assert request.defer_task(name).get(timeout=60) == "de"
    assert seen == ["de"] * 6


def test_calls_inside_a_task(queueing, german):
    """Celery's map, starmap and chunks, and plain calls, know what their task knows."""

    def speak(request, *words):
        return [request.language, *words]

    def call(self, request):
        return self.app.tasks["speak"]("here")

    queueing.register_task(speak, name="speak")
    queueing.register_task(call, name="call", bind=True)
    queueing.commit()
    speak_task = get_tasks(queueing.registry).app.tasks["speak"]
    with worker(queueing):
        results = [
            german.defer_canvas(speak_task.map(["a", "b"])),
            german.defer_canvas(speak_task.starmap([("a", "b")])),
            german.defer_canvas(speak_task.chunks([("a",), ("b",)], 1)),
            german.defer_task("call"),
        ]
        assert [result.get(timeout=60) for result in results] == [
            [["de", "a"], ["de", "b"]],
            [["de", "a", "b"]],
            [[["de", "a"]], [["de", "b"]]],
            ["de", "here"],
        ]


# What must not travel.


@pytest.mark.parametrize("queueing", ["host locale user"], indirect=True)
def test_nothing_else_of_the_request(queueing):
    """No cookie, no authorization, nothing of the environ is in the message."""
    request = request_of(
        queueing,
        Host="shop.example",
        Cookie=f"session={SECRET}",
        Authorization=f"Bearer {SECRET}",
        Referer=f"http://shop.example/{SECRET}",
        X_Forwarded_For=SECRET,
        X_Api_Key=SECRET,
    )
    request.environ |= {
        "QUERY_STRING": f"token={SECRET}",
        "PATH_INFO": f"/{SECRET}",
        "REMOTE_ADDR": SECRET,
        "AUTH_TYPE": SECRET,
        "wsgi.anything": SECRET,
        "myapp.password": SECRET,
    }
    request.defer_task("it")
    request.defer_tasks("it", [()])
    request.defer_canvas(request.task_signature("it"))
    for _ in range(3):
        message = sent(queueing)
        everything = repr((message.headers, message.properties, message.body))
        assert "shop.example" in everything
        assert SECRET not in everything
        assert context_of(message) == {
            "host": {
                "HTTP_HOST": "shop.example",
                "SCRIPT_NAME": "",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.url_scheme": "http",
            },
            "locale": "en",
        }
    assert sent(queueing) is None
