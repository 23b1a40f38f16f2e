"""request.defer_task and its kin, in a web process."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from celery import Celery
from celery.exceptions import NotRegistered
from celery.result import AsyncResult, EagerResult
from kombu.exceptions import EncodeError, OperationalError
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks import BeforeDeferTask, PyramidTasksError, defer_task
from pyramid_tasks.exceptions import AmbiguousTask, SettingError, TaskNotRegistered
from pyramid_tasks.registry import get_tasks


def add(request, x, y=1):
    return x + y


def bound(self, request, x):
    return self.name, x


def anything(request, /, *args, **kwargs):
    return args, kwargs


def unregistered(request):
    """A function that is no task."""


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


@pytest.fixture
def request_(configure):
    """Return a request of a web process, whose broker is in memory."""
    config = configure(
        **{
            "celery.broker_url": "memory://",
            "celery.result_backend": "cache+memory://",
            "celery.task_default_queue": unique(),
        }
    )
    configure_tasks(config)
    config.commit()
    with prepare(registry=config.registry) as env:
        yield env["request"]


@pytest.fixture
def eager_request(eager):
    """Return a request of a web process that runs tasks at once."""
    configure_tasks(eager)
    eager.commit()
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


def test_defer_task(request_, receive):
    """A deferred task is a message of Celery."""
    result = request_.defer_task("plus", 1, y=2)
    message = receive()
    assert message.headers["task"] == "plus"
    assert message.headers["id"] == result.id
    assert message.payload[:2] == [[1], {"y": 2}]
    assert receive() is None


def test_defer_task_returns_a_result(request_):
    """The result has the id of the task and can be asked for its state."""
    result = request_.defer_task("plus", 1)
    assert isinstance(result, AsyncResult)
    assert not isinstance(result, EagerResult)
    assert result.state == "PENDING"
    assert result.app is get_tasks(request_.registry).app


def test_delay_task(request_, receive):
    """delay_task is the first name of defer_task."""
    result = request_.delay_task("plus", 1, y=2)
    message = receive()
    assert message.headers["id"] == result.id
    assert message.payload[:2] == [[1], {"y": 2}]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([1], {"y": 2}), ((1, 2), None), ((), {"x": 1}), (iter([1]), {}), ([1], ())],
)
def test_defer_task_with_options(request_, receive, args, kwargs):
    """Arguments are any sequence and any mapping."""
    request_.defer_task_with_options("plus", args, kwargs)
    sent_args, sent_kwargs, _ = receive().payload
    assert add(None, *sent_args, **sent_kwargs) in {2, 3}


def test_defer_task_with_options_without_arguments(request_, receive):
    """Arguments may be left out."""
    request_.defer_task_with_options("bound", kwargs={"x": 1})
    assert receive().payload[:2] == [[], {"x": 1}]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"task_id": "mine"}, lambda message: message.headers["id"] == "mine"),
        (
            {"headers": {"environ": {"HTTP_HOST": "x"}}},
            lambda message: message.headers["environ"] == {"HTTP_HOST": "x"},
        ),
        ({"headers": {"other": "1"}}, lambda m: m.headers["other"] == "1"),
        ({"priority": 3}, lambda message: message.properties["priority"] == 3),
        ({"countdown": 60}, lambda message: message.headers["eta"] is not None),
        ({"expires": 60}, lambda message: message.headers["expires"] is not None),
        (
            {"eta": dt.datetime(2040, 1, 1, tzinfo=dt.timezone.utc)},
            lambda message: message.headers["eta"].startswith("2040-01-01"),
        ),
        (
            {"soft_time_limit": 5, "time_limit": 10},
            lambda message: message.headers["timelimit"] == [10, 5],
        ),
        ({"serializer": "yaml"}, lambda m: m.content_type == "application/x-yaml"),
        (
            {"link": "a signature"},
            lambda message: message.payload[2]["callbacks"][0]["task"] == "plus",
        ),
    ],
)
def test_options_reach_the_message(request_, receive, options, found):
    """The options are those of Celery's apply_async."""
    if "link" in options:
        options = {"link": get_tasks(request_.registry).find("plus").s(1)}
    request_.defer_task_with_options("plus", (1,), **options)
    assert found(receive())


def test_queue(request_, receive):
    """A task can be sent to another queue."""
    queue = unique()
    request_.defer_task_with_options("plus", (1,), queue=queue)
    assert receive() is None
    assert receive(queue).headers["task"] == "plus"


def test_options_of_the_task(configure):
    """A task's own options are its defaults, such as the serializer."""
    config = configure(
        **{"celery.broker_url": "memory://", "celery.task_default_queue": unique()}
    )
    config.register_task(add, name="it", serializer="yaml")
    app = config.make_celery_app()
    with prepare(registry=config.registry) as env:
        env["request"].defer_task("it", 1)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(app.conf.task_default_queue)
    assert message.content_type == "application/x-yaml"


def test_broker_that_cannot_be_reached(configure):
    """An error of the broker is kombu's own."""
    config = configure(
        **{
            "celery.broker_url": "amqp://localhost:1//",
            "celery.task_publish_retry": False,
            "celery.broker_transport_options": {"max_retries": 1, "interval_start": 0},
        }
    )
    config.register_task(add, name="it")
    config.commit()
    with (
        prepare(registry=config.registry) as env,
        pytest.raises(OperationalError),
    ):
        env["request"].defer_task("it", 1)


@pytest.mark.parametrize("name", ["request", "func_or_name", "self", "task", "args"])
def test_keyword_arguments_of_any_name(request_, receive, name):
    """The names of defer_task's own parameters are left to the task."""
    request_.defer_task("anything", **{name: 1})
    assert receive().payload[:2] == [[], {name: 1}]


@pytest.mark.parametrize("name", ["request", "func_or_name", "self", "task", "args"])
def test_keyword_arguments_of_any_name_arrive(eager_request, name):
    """They reach the task."""
    assert eager_request.defer_task("anything", **{name: 1}).get() == ((), {name: 1})


# Arguments are checked in the web process.


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("exampleapp.add", (1,), {}),
        ("exampleapp.add", (1, 2, 3), {}),
        ("exampleapp.add", (1, 2), {"z": 3}),
        ("exampleapp.add", (1, 2), {"x": 3}),
        ("plus", (), {}),
        ("plus", (), {"y": 1}),
        ("plus", (1,), {"request": None}),
        ("bound", (), {}),
        ("bound", (1, 2), {}),
        ("method", (), {}),
    ],
)
def test_wrong_arguments(request_, receive, name, args, kwargs):
    """Arguments that are not those of the task raise before anything is sent."""
    with pytest.raises(TypeError):
        request_.defer_task(name, *args, **kwargs)
    with pytest.raises(TypeError):
        request_.defer_task_with_options(name, args, kwargs)
    assert receive() is None


def test_argument_that_cannot_be_sent(request_, receive):
    """An argument that is no JSON raises in the web process too."""
    with pytest.raises(EncodeError, match="not JSON serializable"):
        request_.defer_task("plus", object())
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
    """A task is its function, its dotted name or its registered name."""
    request_.defer_task(given, 1, **({} if name != "exampleapp.add" else {"y": 1}))
    assert receive().headers["task"] == name


def test_celery_task(request_, receive):
    """The Celery task itself names itself."""
    request_.defer_task(get_tasks(request_.registry).app.tasks["plus"], 1)
    assert receive().headers["task"] == "plus"


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("plsu", "plus"),
        ("exampleapp.ad", "exampleapp.add"),
        ("xyzzy", None),
        ("restock", "shop.restock"),
        ("", None),
    ],
)
def test_task_that_is_not_registered(request_, receive, given, nearest):
    """A name that is not registered is an error with the nearest that is."""
    with pytest.raises(TaskNotRegistered) as caught:
        request_.defer_task(given)
    error = caught.value
    assert isinstance(error, NotRegistered)
    assert isinstance(error, PyramidTasksError)
    assert isinstance(error, KeyError)
    assert error.task == given
    assert error.nearest == nearest
    assert f"No task {given!r} is registered in this application. " in str(error)

    expected = f"Did you mean {nearest!r}?" if nearest else "config.register_task()"
    assert expected in str(error)
    assert receive() is None


def test_function_that_is_not_registered(request_):
    """A function that is not registered is named by its dotted name."""
    with pytest.raises(TaskNotRegistered) as caught:
        request_.defer_task(unregistered)
    assert caught.value.task is unregistered
    assert f"No task '{__name__}.unregistered' is registered" in str(caught.value)


@pytest.mark.parametrize("given", [None, 1, object(), [], {}])
def test_what_is_no_task_at_all(request_, given):
    """Anything else is not registered either."""
    with pytest.raises(TaskNotRegistered):
        request_.defer_task(given)


def test_ambiguous_task(request_, receive):
    """A function with several names needs one, which the error lists."""
    with pytest.raises(AmbiguousTask) as caught:
        request_.defer_task(anything)
    assert isinstance(caught.value, PyramidTasksError)
    assert isinstance(caught.value, LookupError)
    assert caught.value.names == ["anything", "anything else"]
    assert str(caught.value).endswith(
        "registered under several names: 'anything', 'anything else'. Give one."
    )
    assert receive() is None


def test_task_of_another_application(request_, receive):
    """A task of another Celery application is not sent to the wrong broker."""
    other = Celery("other", broker="memory://", set_as_current=False)

    @other.task(name="plus")
    def plus(x): ...

    @other.task(name="foreign")
    def foreign(x): ...

    with pytest.raises(TaskNotRegistered, match="'plus'"):
        request_.defer_task(other.tasks["plus"], 1)
    with pytest.raises(TaskNotRegistered, match="'foreign'"):
        request_.defer_task(other.tasks["foreign"], 1)
    with pytest.raises(TaskNotRegistered):
        request_.defer_task("foreign", 1)
    assert receive() is None


def test_task_of_another_pyramid_application(request_, configure):
    """Nor does one Pyramid application defer the tasks of another."""
    config = configure()
    config.register_task(add, name="plus")
    foreign = config.make_celery_app().tasks["plus"]
    with pytest.raises(TaskNotRegistered):
        request_.defer_task(foreign, 1)


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


def test_eager_checks_arguments(eager_request):
    """Arguments are checked in eager mode too."""
    with pytest.raises(TypeError):
        eager_request.defer_task("plus")


def test_eager_error(eager_request):
    """With task_eager_propagates, the error of the task is raised."""
    with pytest.raises(TypeError, match="unsupported operand"):
        eager_request.defer_task("plus", 1, y=None)


def test_eager_options(eager):
    """The headers and the id reach a task that runs at once."""
    eager.register_task(
        lambda request: (request.host, request.current_task.request.id), name="it"
    )
    eager.commit()
    headers = {"environ": {"HTTP_HOST": "example.com"}}
    with prepare(registry=eager.registry) as env:
        result = env["request"].defer_task_with_options(
            "it", headers=headers, task_id="mine"
        )
    assert result.get() == ("example.com", "mine")


# BeforeDeferTask


@pytest.fixture
def events(request_):
    """Return the events that subscribers were notified of."""
    events = []
    request_.registry.registerHandler(events.append, [BeforeDeferTask])
    return events


def test_event(request_, events):
    """Before a task is queued, subscribers get all there is to know about it."""
    request_.defer_task_with_options("bound", [1], {}, countdown=60)
    (event,) = events
    assert event.request is request_
    assert event.task is get_tasks(request_.registry).app.tasks["bound"]
    assert event.task_name == "bound"
    assert event.args == (1,)
    assert event.kwargs == {}
    assert event.options == {"countdown": 60}


@pytest.mark.parametrize("method", ["defer_task", "delay_task"])
def test_event_of_the_short_form(request_, events, method):
    """The short forms send it as well."""
    getattr(request_, method)(add, 1, y=2)
    (event,) = events
    assert event.task_name == "plus"
    assert event.args == (1,)
    assert event.kwargs == {"y": 2}
    assert event.options == {}


def test_no_event_for_what_is_not_registered(request_, events):
    """There is no event without a task."""
    with pytest.raises(TaskNotRegistered):
        request_.defer_task("nothing")
    assert events == []


def test_options_of_the_event_can_be_changed(configure):
    """What a subscriber does to the options in place, the message shows."""
    queue = unique()

    def add_options(event):
        event.options["queue"] = queue
        event.options.setdefault("headers", {})["environ"] = {
            "HTTP_HOST": event.request.host
        }

    config = configure(**{"celery.broker_url": "memory://"})
    config.register_task(add, name="plus")
    config.add_subscriber(add_options, BeforeDeferTask)
    app = config.make_celery_app()
    request = Request.blank("/", base_url="http://example.com")
    with prepare(request, registry=config.registry) as env:
        env["request"].defer_task("plus", 1)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue)
    assert message.headers["environ"] == {"HTTP_HOST": "example.com:80"}


def test_arguments_of_the_event_can_be_changed(configure):
    """Keyword arguments changed in place are sent."""
    queue = unique()
    config = configure(
        **{"celery.broker_url": "memory://", "celery.task_default_queue": queue}
    )
    config.register_task(add, name="plus")
    config.add_subscriber(lambda event: event.kwargs.update(y=5), BeforeDeferTask)
    app = config.make_celery_app()
    with prepare(registry=config.registry) as env:
        env["request"].defer_task("plus", 1)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue)
    assert message.payload[:2] == [[1], {"y": 5}]


def test_subscriber_that_raises(configure):
    """A subscriber can refuse a task: its error is raised and nothing is sent."""
    queue = unique()
    config = configure(
        **{"celery.broker_url": "memory://", "celery.task_default_queue": queue}
    )

    def refuse(event):
        raise PermissionError(event.task_name)

    config.register_task(add, name="plus")
    config.add_subscriber(refuse, BeforeDeferTask)
    app = config.make_celery_app()
    with (
        prepare(registry=config.registry) as env,
        pytest.raises(PermissionError, match="plus"),
    ):
        env["request"].defer_task("plus", 1)
    with app.connection_for_read() as connection:
        assert connection.default_channel.basic_get(queue) is None


# Results and the running task.


def test_get_task_result(request_):
    """A result is found by its id, in the backend of the application."""
    app = get_tasks(request_.registry).app
    result = request_.get_task_result("some id")
    assert isinstance(result, AsyncResult)
    assert result.id == "some id"
    assert result.state == "PENDING"
    app.backend.store_result("some id", {"a": 1}, "SUCCESS")
    assert request_.get_task_result("some id").get() == {"a": 1}


def test_get_task_result_of_a_deferred_task(request_):
    """The id of a deferred task leads back to it."""
    result = request_.defer_task("plus", 1)
    assert request_.get_task_result(result.id) == result


def test_current_task_in_a_view(configure):
    """There is no running task in a view."""
    config = configure()
    config.add_view(lambda request: Response(repr(request.current_task)))
    response = Request.blank("/").get_response(config.make_wsgi_app())
    assert response.text == "None"


@pytest.mark.parametrize("bind", [False, True])
def test_current_task_in_a_task(eager, bind):
    """In a task it is the Celery task, with the message as its request."""
    seen = []

    def look(*args):
        (request,) = args[-1:]
        task = request.current_task
        seen.append((task.name, task.request.id, task.request.retries))

    eager.register_task(look, name="it", bind=bind)
    eager.commit()
    with prepare(registry=eager.registry) as env:
        result = env["request"].defer_task("it")
        assert env["request"].current_task is None
    assert seen == [("it", result.id, 0)]


def test_view_defers(configure):
    """The methods are there in a view."""
    queue = unique()
    config = configure(
        **{"celery.broker_url": "memory://", "celery.task_default_queue": queue}
    )
    config.register_task(add, name="plus")
    config.add_view(lambda request: Response(request.defer_task("plus", 1).id))
    app = config.make_celery_app()
    text = Request.blank("/").get_response(config.make_wsgi_app()).text
    assert re.fullmatch("[0-9a-f-]{36}", text)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue)
    assert message.headers["id"] == text


@pytest.mark.parametrize(
    "defer",
    [
        lambda request: defer_task(request, "add", 1),
        lambda request: defer_task(request, add, 1, y=2),
    ],
)
def test_application_without_tasks(defer):
    """The function says what is missing where the application has no tasks."""
    with (
        prepare(registry=Configurator().registry) as env,
        pytest.raises(PyramidTasksError, match="does not include pyramid_tasks"),
    ):
        defer(env["request"])


def test_unknown_delivery(request_):
    """A delivery that is not there is named as it was given: in the call."""
    with pytest.raises(SettingError, match="^delivery = outbx is none of those known"):
        request_.defer_task_with_options("plus", delivery="outbx")
