"""What travels from the request that defers a task to the request of the task."""

from __future__ import annotations

import json
import uuid
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from contextapp import capture_tenant, restore_tenant
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.threadlocal import get_current_request, manager
from support import unique

from pyramid_tasks import BeforeDeferTask, BeforeTask, TaskFailed
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import start_worker
from pyramid_tasks.worker.contexts import HEADER
from pyramid_tasks.worker.environ import HOST_KEYS

SECRET = "s3cret"


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
def acme(queueing):
    """Return a request of the tenant acme, in an application whose tenants travel."""
    queueing.add_task_context("tenant", capture_tenant, restore_tenant)
    return request_of(queueing, X_Tenant="acme")


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


def header(**values):
    return {HEADER: json.dumps(values)}


# Deferring.


def test_nothing_switched_on(queueing):
    """Without a context, a message has the headers that Celery gives it."""
    request_of(queueing, X_Tenant="acme").defer_task("it")
    headers = sent(queueing).headers
    get_tasks(queueing.registry).app.tasks["it"].apply_async()
    assert headers.keys() == sent(queueing).headers.keys()
    assert HEADER not in headers


def test_one_header(queueing, acme):
    """Values travel in one string, beside the other headers of a call."""
    queueing.add_task_context("other", lambda request: '"ä"', nothing)
    queueing.commit()
    own = {"mine": "x"}
    acme.defer_task_with_options("it", headers=own)
    message = sent(queueing)
    assert message.headers[HEADER].isascii()
    assert context_of(message) == {"tenant": "acme", "other": '"ä"'}
    assert message.headers["mine"] == "x"
    assert own == {"mine": "x"}


@pytest.mark.parametrize(
    "value",
    [
        *(0, "", False, [], {}, b"\xff", "x" * 10_000),
        datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        {"nested": [uuid.UUID(int=2), Decimal("1.10")]},
    ],
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
    queueing.add_task_context("tenant", failing, nothing)
    with pytest.raises(LookupError, match="cannot be done here"):
        request_of(queueing).defer_task("it")
    assert sent(queueing) is None


def test_subscribers_may_change_it(queueing, acme):
    """A subscriber of ``BeforeDeferTask`` sees the header among the options."""
    queueing.add_subscriber(
        lambda event: event.options["headers"].pop(HEADER), BeforeDeferTask
    )
    queueing.commit()
    acme.defer_task("it")
    assert HEADER not in sent(queueing).headers


def test_transaction(queueing):
    """The values are those at the time of deferring, not at the commit."""
    pytest.importorskip("pyramid_tm")
    queueing.include("pyramid_tm")
    queueing.include("pyramid_tasks.contrib.pyramid_tm")
    queueing.add_task_context("tenant", capture_tenant, restore_tenant)
    request = request_of(queueing, X_Tenant="acme")
    with request.tm:
        request.defer_task("it")
        request.headers["X-Tenant"] = "other"
        assert sent(queueing) is None
    assert context_of(sent(queueing)) == {"tenant": "acme"}


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
        request.tenant = value

    def root_factory(request):
        if request.current_task:
            seen.append("root")
            assert request.tenant == "acme"

    def deriver(task, info):
        return lambda request: (seen.append("deriver"), task(request))

    eager.add_request_method(lambda request: 42, "answer", property=True)
    eager.set_root_factory(root_factory)
    eager.add_task_deriver(deriver)
    eager.add_subscriber(lambda event: seen.append("event"), BeforeTask)
    eager.add_task_context("tenant", capture_tenant, restore)
    eager.register_task(lambda request: seen.append("task"), name="it")
    request_of(eager, X_Tenant="acme").defer_task("it")
    assert seen == ["restore", "root", "event", "deriver", "task"]


def test_error_in_restore(config, run):
    """An error in a restore fails the task, and subscribers are told."""
    failures = []
    config.add_subscriber(failures.append, TaskFailed)
    config.add_task_context("tenant", nothing, failing)
    result = run(nothing, headers=header(tenant="acme"))
    with pytest.raises(LookupError, match="cannot be done here"):
        result.get()
    (failure,) = failures
    assert failure.exception is result.result
    assert failure.request.current_task.name == "it"


@pytest.mark.parametrize("headers", [None, header(other=[1], tenant=None)])
def test_nothing_to_restore(config, run, headers):
    """A message without the header, without a value, or with unknown ones is fine."""
    config.add_task_context("tenant", failing, failing)
    assert run(lambda request: 1, headers=headers).get() == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", '"x"', '[["tenant", "acme"]]', "[" * 100_000),
        '{"tenant": {"__type__": "nothing", "__value__": 1}}',
        '{"tenant": {"__type__": "decimal", "__value__": "x"}}',
        '{"tenant": {"__type__": [], "__value__": "x"}}',
        *(b"\xff", b"{}", 1, {"tenant": "acme"}),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_malformed_header(config, run, text):
    """A header that is no JSON object fails the task, unless nobody reads it."""
    assert run(lambda request: 1, headers={HEADER: text}).get() == 1
    config.add_task_context("tenant", nothing, failing)
    result = run(nothing, headers={HEADER: text})
    with pytest.raises(ValueError, match="'pyramid_tasks_context' is no JSON") as error:
        result.get()
    assert len(str(error.value)) < 300


def test_environ_header_wins(configure, run):
    """The header ``environ`` of a message wins over the context."""
    config = configure(**{"pyramid_tasks.context": "host"})
    host = {"HTTP_HOST": "a.example:81", "SCRIPT_NAME": "/app"}
    headers = header(host=host) | {"environ": {"HTTP_HOST": "b.example"}}
    found = run(lambda request: request.application_url, config=config, headers=headers)
    assert found.get() == "http://b.example/app"


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
    queueing.add_task_context("tenant", failing, restore_tenant)
    queueing.register_task(lambda request: request.defer_task("it").id, name="first")
    came = header(tenant="acme", other=[1])
    queueing.make_celery_app().tasks["first"].apply(headers=came).get()
    assert sent(queueing).headers[HEADER] == came[HEADER]


def test_task_that_no_request_deferred(eager, run):
    """Its own request is asked, as nothing came; what it defers has that."""

    def restore_id(request, value):
        request.id = value

    eager.add_task_context("id", lambda request: request.id, restore_id)
    eager.add_request_method(lambda request: unique(), "id", reify=True)

    def ids(request, depth=2):
        others = wait_for(request.defer_task("it", depth - 1)) if depth else []
        return [request.id, *others]

    first, *others = run(ids, config=eager).get()
    assert others == [first, first]


@pytest.mark.parametrize("where", ["eager", "worker"])
def test_retries(queueing, where):
    """A task that runs again knows the same."""
    seen = []

    def flaky(self, request, *, is_automatic):
        seen.append(request.tenant)
        if self.request.retries < 2:
            raise OSError if is_automatic else self.retry(countdown=0)
        return request.tenant

    queueing.add_settings({"celery.task_always_eager": where == "eager"})
    options = {"autoretry_for": (OSError,), "default_retry_delay": 0}
    queueing.register_task(flaky, bind=True, name="flaky", **options)
    queueing.add_task_context("tenant", capture_tenant, restore_tenant)
    request = request_of(queueing, X_Tenant="acme")
    with start_worker(queueing.registry) if where == "worker" else nullcontext():
        for is_automatic in False, True:
            result = request.defer_task("flaky", is_automatic=is_automatic)
            assert result.get(timeout=60) == "acme"
    assert seen == ["acme"] * 6


def test_calls_inside_a_task(queueing, acme):
    """Celery's map, starmap and chunks, and plain calls, know what their task knows."""

    def speak(request, *words):
        return [request.tenant, *words]

    def call(self, request):
        return self.app.tasks["speak"]("here")

    queueing.register_task(speak, name="speak")
    queueing.register_task(call, name="call", bind=True)
    queueing.commit()
    speak_task = get_tasks(queueing.registry).app.tasks["speak"]
    with start_worker(queueing.registry):
        for result, expected in (
            (acme.defer_canvas(speak_task.map(["a"])), [["acme", "a"]]),
            (acme.defer_canvas(speak_task.starmap([("a",)])), [["acme", "a"]]),
            (acme.defer_canvas(speak_task.chunks([("a",)], 1)), [[["acme", "a"]]]),
            (acme.defer_task("call"), ["acme", "here"]),
        ):
            assert result.get(timeout=60) == expected


# What must not travel.


@pytest.mark.parametrize("queueing", ["host locale user"], indirect=True)
def test_nothing_else_of_the_request(queueing):
    """No cookie, no authorization, nothing of the environ is in the message."""
    names = ("Cookie", "Authorization", "Referer", "X_Forwarded_For", "X_Api_Key")
    secrets = dict.fromkeys(names, SECRET)
    request = request_of(queueing, Host="shop.example", **secrets)
    for key in (
        *("QUERY_STRING", "PATH_INFO", "REMOTE_ADDR", "AUTH_TYPE"),
        *("wsgi.anything", "myapp.password"),
    ):
        request.environ[key] = f"/{SECRET}"
    request.defer_task("it")
    request.defer_tasks("it", [()])
    request.defer_canvas(request.task_signature("it"))
    for _ in range(3):
        message = sent(queueing)
        everything = repr((message.headers, message.properties, message.body))
        assert "shop.example" in everything
        assert SECRET not in everything
        assert context_of(message).keys() == {"host", "locale"}
        assert context_of(message)["host"].keys() == HOST_KEYS.keys()
    assert sent(queueing) is None
