"""request.defer_task and its kin, in a web process."""

from __future__ import annotations

import datetime as dt
from inspect import signature
from uuid import UUID

import pytest
from celery import Celery, Task, chain, group
from celery.app.amqp import AMQP
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult, EagerResult
from kombu import Producer
from kombu.exceptions import EncodeError, OperationalError
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks import BeforeDeferTask, PyramidTasksError, defer_task
from pyramid_tasks.configuration.call_options import CALL_OPTIONS
from pyramid_tasks.exceptions import (
    DeferError,
    SettingError,
    TaskNotRegistered,
)
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.typing import CallOptions


def add(request, x, y=1):
    return x + y


def bound(self, request, x):
    return self.name, x


def anything(request, /, *args, **kwargs):
    return args, kwargs


def unregistered(request):
    """A function that is not a task."""


class Service:
    def method(self, request, x):
        return "method", x


service = Service()


def configure_tasks(config):
    config.register_task(add, name="plus")
    config.register_task(lambda request: None, name="shop.restock")
    config.register_task(bound, name="bound", bind=True)
    config.register_task(anything, name="anything")
    config.register_task(anything, name="anything else")
    config.register_task(service.method, name="method")
    config.register_task("exampleapp.add")
    config.commit()


class Slow:
    """An argument that takes longer to write than the task that defers has."""

    def __json__(self):
        raise SoftTimeLimitExceeded


@pytest.fixture
def request_(configure):
    """Return a request of a web process, whose broker is in memory."""
    settings = {"broker_url": "memory://", "result_backend": "cache+memory://"}
    settings["task_default_queue"] = unique()
    config = configure(**{f"celery.{key}": settings[key] for key in settings})
    configure_tasks(config)
    request = Request.blank("/", base_url="http://example.com")
    with prepare(request, registry=config.registry) as env:
        yield env["request"]


@pytest.fixture
def eager_request(eager):
    """Return a request of a web process that runs tasks at once."""
    configure_tasks(eager)
    with prepare(registry=eager.registry) as env:
        yield env["request"]


@pytest.fixture
def receive(request_):
    """Return a function that takes the next message from the broker."""

    def receive(queue=None):
        app = get_tasks(request_.registry).app
        with app.connection_for_read() as connection:
            return connection.default_channel.basic_get(
                queue or app.conf.task_default_queue, no_ack=True
            )

    return receive


# Queueing.


@pytest.mark.parametrize("method", ["defer_task", "delay_task"])
def test_defer_task(request_, receive, method):
    """A deferred task is a message of Celery, whose id the result has."""
    result = getattr(request_, method)("plus", 1, y=2)
    assert isinstance(result, AsyncResult)
    assert not isinstance(result, EagerResult)
    assert result.state == "PENDING"
    assert result.app is get_tasks(request_.registry).app
    message = receive()
    assert message.headers["task"] == "plus"
    assert message.headers["id"] == result.id
    assert message.payload[:2] == [[1], {"y": 2}]
    assert receive() is None


@pytest.mark.parametrize(
    ("args", "sent"),
    [
        (([1], {"y": 2}), [[1], {"y": 2}]),
        (((1, 2), None), [[1, 2], {}]),
        (((), {"x": 1}), [[], {"x": 1}]),
        ((iter([1]), [("y", 2)]), [[1], {"y": 2}]),
        (([1],), [[1], {}]),
    ],
)
def test_defer_task_with_options(request_, receive, args, sent):
    """Arguments are any sequence and any mapping, and may be left out."""
    request_.defer_task_with_options("plus", *args)
    assert receive().payload[:2] == sent


NEW_YEAR = dt.datetime(2040, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"task_id": "mine"}, lambda m: m.headers["id"] == "mine"),
        ({"headers": {"other": "1"}}, lambda m: m.headers["other"] == "1"),
        ({"priority": 3}, lambda m: m.properties["priority"] == 3),
        ({"expiration": 0.5}, lambda m: m.properties["expiration"] == "500"),
        ({"countdown": 60}, lambda m: m.headers["eta"] is not None),
        ({"expires": 60}, lambda m: m.headers["expires"] is not None),
        ({"eta": NEW_YEAR}, lambda m: m.headers["eta"].startswith("2040-01-01")),
        ({"time_limit": 10}, lambda m: m.headers["timelimit"] == [10, None]),
        ({"soft_time_limit": 5}, lambda m: m.headers["timelimit"] == [None, 5]),
        ({"serializer": "yaml"}, lambda m: m.content_type == "application/x-yaml"),
        ({"task_id": UUID(int=5)}, lambda m: m.headers["id"] == str(UUID(int=5))),
    ],
)
def test_options_reach_the_message(request_, receive, options, found):
    """The options are those of Celery's apply_async."""
    queue = unique()
    request_.defer_task_with_options("plus", (1,), queue=queue, **options)
    assert found(receive(queue))
    assert receive() is None


@pytest.mark.parametrize(
    "options",
    [
        *({"task_id": value} for value in (5, "x" * 256, "x\0")),
        *({"eta": value} for value in (5, "tomorrow")),
        *({"countdown": value} for value in ("5", float("nan"), 2e11, -3e9)),
        *({"expires": value} for value in ("soon", dt.date(2040, 1, 1))),
        {"compression": "gzp"},
        {"serializer": "jsn"},
        {"headers": 5},
        {"queue": 5},
        {"retry_policy": 5},
        {"retry_policy": {"max_retries": "x"}},
        {"priority": "high"},
        {"priority": 256},
        {"expiration": -1},
        {"connection": 5},
        {"time_limit": "x"},
        *({"link": value} for value in (5, {1}, [[{"task": "plus"}]])),
        *({"link_error": value} for value in ("plus", b"x")),
        {"ignore_result": "no"},
    ],
    ids=str,
)
def test_option_that_celery_cannot_use(request_, receive, options):
    """The wrong value of an option is told where the task is deferred."""
    option, canvas = *options, request_.task_signature("plus", 1)
    said = f"^(plus|celery.chain) was deferred with an option .*: {option} "
    with pytest.raises(DeferError, match=said):
        request_.defer_task_with_options("plus", (1,), **options)
    with pytest.raises(DeferError, match=said):
        request_.defer_tasks("plus", [(1,)], **options)
    with pytest.raises(DeferError, match=said):
        request_.defer_canvas(canvas, **options)
    with pytest.raises(DeferError, match=said):
        request_.defer_canvas(chain(canvas, canvas.set(**options)))
    with pytest.raises(DeferError, match=said.replace("chain", "group")):
        request_.defer_canvas(group(request_.task_signature("plus", 1)).set(**options))
    change = lambda event: event.options.update(options)  # noqa: E731
    request_.registry.registerHandler(change, [BeforeDeferTask])
    with pytest.raises(DeferError, match=said):
        request_.defer_task("plus", 1)
    assert receive() is None


def test_headers_of_a_canvas(request_, receive):
    """Where no context travels, the tasks of a group have its headers alone."""
    tasks = group(request_.task_signature("plus", 1))
    request_.defer_canvas(tasks, headers={"mine": "x"})
    assert receive().headers["mine"] == "x"


def test_misspelt_option(request_, receive):
    """An option that nobody reads is told with the nearest, unless a router may."""
    with pytest.raises(DeferError, match="'countdwn', .* Did you mean 'countdown'"):
        request_.defer_task_with_options("plus", (1,), countdwn=60)
    canvas = request_.task_signature("plus", 1).set(que="x")
    with pytest.raises(DeferError, match="Did you mean 'queue'"):
        request_.defer_canvas(canvas)
    assert receive() is None
    request_.defer_task_with_options("plus", (1,), tenant="x")  # near to none
    stamp = {"stamped_headers": ["countdwn"], "countdwn": 60}
    request_.defer_task_with_options("plus", (1,), **stamp)
    app = get_tasks(request_.registry).app
    app.conf.task_routes = [lambda name, args, kwargs, options, task=None: None]
    app.amqp.flush_routes()
    request_.defer_task_with_options("plus", (1,), que="x")
    assert [receive() is not None for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    "defer",
    [
        lambda request: request.defer_task("plus", Slow()),
        lambda request: request.defer_tasks("plus", [(Slow(),)]),
        lambda request: request.defer_canvas(request.task_signature("plus", Slow())),
    ],
)
def test_limit_while_arguments_are_written(request_, defer):
    """The time limit of the task that defers is no fault of what it defers."""
    with pytest.raises(SoftTimeLimitExceeded):
        defer(request_)


def test_options_are_those_of_celery():
    """Each parameter of Celery and kombu that is an option of a call is known."""
    amqp = Celery(broker="memory://", set_as_current=False, fixups=[]).amqp
    sources = (Task.apply_async, Celery.send_task, AMQP.as_task_v2)
    sources += (Producer.publish, amqp.send_task_message)
    found = {name for source in sources for name in signature(source).parameters}
    not_options = {
        *("self", "args", "kwargs", "options", "name", "body", "properties"),
        *("message", "event_dispatcher", "callbacks", "errbacks", "now", "timezone"),
        "create_sent_event",
    }
    assert found - not_options <= CALL_OPTIONS
    assert CallOptions.__optional_keys__ == CALL_OPTIONS


def test_broker_that_cannot_be_reached(configure):
    """An error of the broker is kombu's own."""
    settings = {
        "celery.broker_url": "amqp://localhost:1//",
        "celery.task_publish_retry": False,
        "celery.broker_transport_options": {"max_retries": 1, "interval_start": 0},
    }
    config = configure(**settings)
    config.register_task(add, name="it")
    config.commit()
    with prepare(registry=config.registry) as env, pytest.raises(OperationalError):
        env["request"].defer_task("it", 1)


@pytest.mark.parametrize(
    "name", ["request", "func_or_name", "self", "task", "args", "kwargs"]
)
def test_keyword_arguments_of_any_name(eager_request, name):
    """The task gets keyword arguments with the names of defer_task's parameters."""
    assert eager_request.defer_task("anything", **{name: 1}).get() == ((), {name: 1})


# Arguments are checked in the web process.


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("exampleapp.add", (1,), {}),
        ("exampleapp.add", (1, 2, 3), {}),
        ("exampleapp.add", (1, 2), {"z": 3}),
        ("exampleapp.add", (1, 2), {"x": 3}),
        ("plus", (1,), {"request": None}),
        *(("bound", (), {}), ("bound", (1, 2), {}), ("method", (), {})),
    ],
)
def test_wrong_arguments(request_, eager_request, receive, name, args, kwargs):
    """Arguments that the task does not take raise, and nothing is sent or run."""
    for request in request_, eager_request:
        with pytest.raises(TypeError):
            request.defer_task(name, *args, **kwargs)
    assert receive() is None


def test_argument_that_cannot_be_sent(request_, receive):
    """An argument that JSON cannot hold raises in the web process too.

    So does a header of a linked task.
    """
    with pytest.raises(EncodeError, match="not JSON serializable"):
        request_.defer_task("plus", object())
    link = request_.task_signature("plus", 1).set(headers={"x": object()})
    with pytest.raises(EncodeError, match="not JSON serializable"):
        request_.defer_task_with_options("plus", (1,), link=link)
    assert receive() is None


# Naming a task.


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (add, "plus"),
        ("plus", "plus"),
        (f"{__name__}.add", "plus"),
        (f"{__name__}:add", "plus"),
        (service.method, "method"),
        (f"{__name__}.Service.method", "method"),
        ("exampleapp.add", "exampleapp.add"),
        ("exampleapp:add", "exampleapp.add"),
        ("anything else", "anything else"),
    ],
)
def test_ways_to_name_a_task(request_, receive, given, name):
    """A task is named by its function, dotted name, registered name, or itself."""
    task = get_tasks(request_.registry).app.tasks[name]
    for each in given, task:
        request_.defer_task(each, 1, **({} if name != "exampleapp.add" else {"y": 1}))
        assert receive().headers["task"] == name


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("plsu", "plus"),
        ("exampleapp.ad", "exampleapp.add"),
        ("xyzzy", None),
        ("restock", "shop.restock"),
        *((given, None) for given in ("", unregistered)),
    ],
)
def test_task_that_is_not_registered(request_, receive, given, nearest):
    """A task that is not registered is an error with the nearest name that is."""
    events = []
    request_.registry.registerHandler(events.append, [BeforeDeferTask])
    with pytest.raises(TaskNotRegistered) as caught:
        request_.defer_task(given)
    assert caught.value.task == given
    assert caught.value.nearest == nearest
    name = f"{__name__}.unregistered" if given is unregistered else given
    assert f"No task {name!r} is registered in this application. " in str(caught.value)
    remedy = f"Did you mean {nearest!r}?" if nearest else "config.register_task()"
    assert remedy in str(caught.value)
    assert receive() is None
    assert events == []


def test_result_of_a_call_is_no_task(request_, receive):
    """Somebody who calls a task, and defers what it returns, is told so."""

    async def add():
        """Return nothing."""

    coroutine = add()
    for given in None, 1, [], coroutine:
        with pytest.raises(TaskNotRegistered) as caught:
            request_.defer_task(given)
        assert str(caught.value) == (
            f"{given!r} is no task. Give a function, not the result of its call."
        )
    coroutine.close()
    assert receive() is None


def test_task_of_another_application(request_, receive, configure):
    """A task of another application is not sent to the wrong broker."""
    other = Celery("other", broker="memory://", set_as_current=False)

    @other.task(name="foreign")
    def foreign(x): ...

    config = configure()
    config.register_task(add, name="plus")
    plus = config.make_celery_app().tasks["plus"]
    for task in other.tasks["foreign"], "foreign", plus:
        with pytest.raises(TaskNotRegistered):
            request_.defer_task(task, 1)
    assert receive() is None


@pytest.mark.parametrize("given", ["add", add])
def test_application_without_tasks(given):
    """The function says what an application without tasks has to include."""
    with (
        prepare(registry=Configurator().registry) as env,
        pytest.raises(PyramidTasksError, match="does not include pyramid_tasks"),
    ):
        defer_task(env["request"], given, 1)


def test_unknown_delivery(request_):
    """An unknown delivery is named as the call gave it."""
    said = "^delivery = outbx is not one of the known .*: immediate. Include pyramid_ta"
    with pytest.raises(SettingError, match=said):
        request_.defer_task_with_options("plus", delivery="outbx")


# Eager mode.


@pytest.mark.parametrize(
    ("given", "args", "result"),
    [("plus", (1, 2), 3), (add, (1,), 2), ("bound", (1,), ("bound", 1))],
)
def test_eager(eager_request, given, args, result):
    """In eager mode a task runs at once, and the result is there."""
    found = eager_request.defer_task(given, *args)
    assert isinstance(found, EagerResult)
    assert found.get() == result


def test_eager_error(eager_request):
    """With task_eager_propagates, the error of the task is raised."""
    with pytest.raises(TypeError, match="unsupported operand"):
        eager_request.defer_task("plus", 1, y=None)


@pytest.mark.parametrize("bind", [False, True])
def test_current_task(eager, bind):
    """In a task, with the headers and the id of its call, it is the Celery task."""

    def look(*args):
        host, task = args[-1].host, args[-1].current_task
        return host, task.name, task.request.id, task.request.retries

    eager.register_task(look, name="it", bind=bind)
    eager.commit()
    options = {"headers": {"environ": {"HTTP_HOST": "a.example"}}, "task_id": "mine"}
    with prepare(registry=eager.registry) as env:
        result = env["request"].defer_task_with_options("it", **options)
        assert env["request"].current_task is None
    assert result.get() == ("a.example", "it", "mine", 0)


# BeforeDeferTask


@pytest.mark.parametrize("method", ["defer_task", "delay_task"])
def test_event(request_, method):
    """Before a task is queued, subscribers get the call with its options."""
    events = []
    request_.registry.registerHandler(events.append, [BeforeDeferTask])
    getattr(request_, method)(add, 1, y=2)
    request_.defer_task_with_options("bound", [1], {}, countdown=60)
    short, long = events
    assert (short.task_name, short.args, short.kwargs) == ("plus", (1,), {"y": 2})
    assert short.options == {}
    assert long.request is request_
    assert long.task is get_tasks(request_.registry).app.tasks["bound"]
    assert (long.task_name, long.args, long.kwargs) == ("bound", (1,), {})
    assert long.options == {"countdown": 60}


def test_event_can_be_changed(request_, receive):
    """The message has the options and arguments that a subscriber leaves."""
    queue = unique()

    def change(event):
        event.options["queue"] = queue
        headers = event.options.setdefault("headers", {})
        headers["environ"] = {"HTTP_HOST": event.request.host}
        event.args = (2,)
        event.kwargs.update(y=5)

    request_.registry.registerHandler(change, [BeforeDeferTask])
    request_.defer_task("plus", 1)
    message = receive(queue)
    assert message.headers["environ"] == {"HTTP_HOST": "example.com:80"}
    assert message.payload[:2] == [[2], {"y": 5}]


def test_subscriber_that_raises(request_, receive):
    """A subscriber can refuse a task: its error is raised and nothing is sent."""

    def refuse(event):
        raise PermissionError(event.task_name)

    request_.registry.registerHandler(refuse, [BeforeDeferTask])
    with pytest.raises(PermissionError, match="plus"):
        request_.defer_task("plus", 1)
    assert receive() is None


# Results.


def test_get_task_result(request_):
    """The id of a deferred task leads back to its result."""
    result = request_.defer_task("plus", 1)
    found = request_.get_task_result(result.id)
    assert found == result
    found.app.backend.store_result(result.id, {"a": 1}, "SUCCESS")
    assert found.get() == {"a": 1}
