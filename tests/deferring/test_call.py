"""The preparation of a call, by each delivery."""

from __future__ import annotations

from unittest.mock import Mock

import celery
import pytest
from celery import chain, chord, group, signature
from celery.exceptions import SoftTimeLimitExceeded
from support import unique

from pyramid_tasks import BeforeDeferTask
from pyramid_tasks.exceptions import DeferError, SettingError, TaskNotRegistered
from pyramid_tasks.worker.contexts import HEADER

CELERY = tuple(map(int, celery.__version__.split(".")[:2]))


def build(s):
    """Return a canvas with one of each; two of its tasks are sent at once."""
    return group(
        chain(
            s("add", 1).set(link=s("add")), group(s("add", 2), s("add", 3)), s("total")
        ),
        chord([s("add", 4) | s("bound")], s("total").on_error(s("total"))),
    )


def embedded(message):
    """Return the signatures of tasks in a message, the nested ones too."""
    found, left = [], [message.payload[2]]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if value.get("task") and value.get("subtask_type") is None:
                found.append(value)
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return found


def test_subscribers_and_context(make_app, delivery):
    """Each task of a canvas has its event, which may change it, and the context."""
    told = []

    def mark(event):
        told.append((event.task_name, event.args, event.request.domain))
        if event.args == (4,):
            event.options["priority"] = 7
            event.args = (5,)

    app = make_app(lambda config: config.add_subscriber(mark, BeforeDeferTask))
    with app.request() as request:
        canvas = build(request.task_signature)
        request.defer_canvas(canvas, delivery=delivery, headers={"of": "the whole"})
    calls = [("add", (number,)) for number in range(1, 5)]
    calls += [("add", ()), ("bound", ()), *[("total", ())] * 3]
    assert sorted(told) == sorted((*call, "example.com") for call in calls)
    first, second = app.received()
    for message in first, second:
        assert "https" in message.headers[HEADER]
        assert message.headers["of"] == "the whole"
        for found in embedded(message):
            assert "https" in found["options"]["headers"][HEADER]
    assert {found["task"] for found in embedded(first)} == {"add", "total"}
    assert second.properties["priority"] == 7
    assert second.payload[0] == [5]


def test_linked_tasks(app, delivery):
    """link and link_error of a call know the context, and are left as given.

    Each is a task or an iterable of tasks, as with Celery.
    """
    with app.request() as request:
        linked = request.task_signature("total")  # which takes one argument, as both do
        options = {"link": linked, "link_error": [linked], "delivery": delivery}
        for name in "link", "link_error":
            only = {name: linked, "delivery": delivery}
            request.defer_task_with_options("add", [1], **only)
        request.defer_tasks(
            "add", [(1,), {"x": 1}], **options | {"link": iter([linked])}
        )
    assert not linked.options
    found = [
        (message.payload[2]["callbacks"] or [], message.payload[2]["errbacks"] or [])
        for message in app.received()
    ]
    counts = [(len(links), len(errors)) for links, errors in found]
    assert counts == [(1, 0), (0, 1), (1, 1), (1, 1)]
    for links, errors in found:
        for each in links + errors:
            assert "https" in each["options"]["headers"][HEADER]


def test_headers_of_the_call_win(app, delivery):
    """A header that the caller gives is sent in the place of the context's."""
    with app.request() as request:
        own = {"headers": {HEADER: "{}"}, "delivery": delivery}
        request.defer_task_with_options("add", [1], **own)
    (message,) = app.received()
    assert message.headers[HEADER] == "{}"


UNKNOWN = (TaskNotRegistered, r"no\.such")
TOO_FEW = (TypeError, "missing 1 required")
NOT_ONE = (TypeError, "takes 1 positional")
TOO_MANY = (TypeError, "takes from 1 to 2")
WRONG = {
    "unknown": (lambda s: signature("no.such"), *UNKNOWN),
    "unknown, later": (lambda s: s("add", 1) | signature("no.such"), *UNKNOWN),
    "unknown, linked": (lambda s: s("add", 1).on_error(signature("no.such")), *UNKNOWN),
    "too few": (lambda s: s("add"), *TOO_FEW),
    "too many, with the result before": (
        lambda s: s("add", 1) | s("add", 1, 2),
        *TOO_MANY,
    ),
    "too few, without it": (
        lambda s: s("add", 1) | s("add").set(immutable=True),
        *TOO_FEW,
    ),
    "too many in a chord": (lambda s: chord([s("add", 1)], s("total", 1)), *NOT_ONE),
    "too many for a link": (
        lambda s: s("add", 1).set(link=[s("total", 1)]),
        *NOT_ONE,
    ),
    "keyword": (lambda s: s("add", 1) | s("total", no=1), TypeError, "keyword"),
    "too few, behind an empty group": (
        # As chain() before Celery 5.7 makes a chord of the two.
        lambda s: type(s("add") | s("add"))(group([]), s("add")),
        *TOO_FEW,
    ),
    "too many for the arguments of a chord": (
        lambda s: chord([s("add", 1, 2)], s("total")).clone((5,)),
        *TOO_MANY,
    ),
    "no JSON for a chord": (
        lambda s: chord([s("add", 1)], s("total")).clone((object(),)),
        *(DeferError, "celery.chord cannot be sent as json: .*object"),
    ),
    "too many for a link_error": (
        lambda s: s("add", 1).on_error(s("total", 1)),
        *NOT_ONE,
    ),
    "too few for a link_error": (
        lambda s: s("add", 1).on_error(s("add")),
        *(TypeError, "takes from 1 to 2 positional arguments but 3"),
    ),
    "map": (lambda s: s("add").type.map([[1], []]) | s("total", 1), *NOT_ONE),
    "starmap": (lambda s: s("add").type.starmap([(1, 2), (1, 2, 3)]), *TOO_MANY),
    "no JSON": (
        lambda s: s("add", 1) | s("add", object()),
        *(DeferError, "add cannot be sent as json: .*object"),
    ),
    "unknown delivery": (
        lambda s: s("add", 1).set(delivery="no"),
        *(SettingError, "no is not one of"),
    ),
    "two deliveries": (
        lambda s: s("add", 1).set(delivery="commit") | s("add").set(delivery="outbox"),
        *(DeferError, "one delivery, not several: commit, outbox"),
    ),
    "a function": (lambda s: build, DeferError, "is not a canvas"),
    "a list": (lambda s: [s("add", 1)], DeferError, "is not a canvas"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_canvas(app, name, delivery):
    """A canvas that could not run is an error where it is deferred; 0 are sent."""
    build, error, words = WRONG[name]
    with app.request() as request:
        canvas = build(request.task_signature)
        if isinstance(canvas, dict):
            canvas = group(request.task_signature("add", 1), canvas)
        with pytest.raises(error, match=words):
            request.defer_canvas(canvas, delivery=delivery)
    assert app.has_sent_nothing()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (2, r"Item 1 for add must be a tuple .* \(2,\)"),
        ("2", r"Item 1 for add must be a tuple .* \('2',\)"),
        ([2], "Item 1 for add must be a tuple"),
        ((), "Item 1 for add: .* missing 1 required"),
        ((1, 2, 3), "Item 1 for add: .* takes from 1 to 2"),
        ({"z": 1}, "Item 1 for add: .* unexpected keyword|missing 1"),
        ((object(),), "Item 1 for add: .*cannot be sent as json"),
    ],
)
def test_wrong_item(app, delivery, item, words):
    """An item of defer_tasks that could not run is an error that says which one."""
    with app.request() as request, pytest.raises(DeferError, match=words):
        request.defer_tasks("add", [(1,), item], delivery=delivery)
    assert app.has_sent_nothing()


def test_wrong_call(app, transactional):
    """A single call is checked before the commit too, and also without a result."""
    with app.request() as request:
        # Python writes no integer with so many digits.
        for args in (), (object(),), (1, object()), (10**5000,):
            words = "cannot be sent as json" if args else "missing 1"
            with pytest.raises(TypeError, match=words):
                request.defer_task_with_options("add", args, delivery=transactional)
    assert app.has_sent_nothing()


def test_limit_of_the_task_that_defers(app, monkeypatch):
    """Its time can be over in a call, which is no fault of the arguments."""
    over = Mock(side_effect=SoftTimeLimitExceeded("over"))
    monkeypatch.setattr("pyramid_tasks.deferring.call.dumps", over)
    with app.request() as request, pytest.raises(SoftTimeLimitExceeded):
        request.defer_task("total", [1])


def test_arguments_are_those_of_the_moment(app, transactional):
    """A change of an argument after the call does not change the message."""
    argument = [1]
    with app.request() as request:
        s = request.task_signature
        request.defer_task_with_options("total", [argument], delivery=transactional)
        request.defer_canvas(s("total", argument), delivery=transactional)
        argument.append(2)
    assert [message.payload[0] for message in app.received()] == [[[1]], [[1]]]


def test_delivery_of_a_task_counts_for_the_whole(app):
    """The delivery that a signature names is the delivery of its canvas."""
    with app.request() as request:
        s = request.task_signature
        canvas = group(s("add", 1), s("add", 2).set(delivery="immediate"))
        request.defer_canvas(canvas, delivery="commit")
        assert len(app.received()) == 2
        request.defer_canvas(group(s("add", 1)).set(delivery="immediate"))
        assert len(app.received()) == 1


def test_serializer(app, delivery):
    """The serializer is the call's, or else the task's, or else the application's."""
    keyed = {1: 2}  # which JSON makes {"1": 2}
    with app.request() as request:
        s = request.task_signature
        by_json = s("by yaml", keyed).set(serializer="json")
        canvas = group(s("by yaml", keyed), s("add", keyed), by_json)
        request.defer_canvas(canvas, delivery=delivery)
        request.defer_task_with_options("by yaml", [keyed], delivery=delivery)
    messages = app.received()
    yaml, json = "application/x-yaml", "application/json"
    assert [each.content_type for each in messages] == [yaml, json, json, yaml]
    if delivery != "outbox":  # which keeps all of it as JSON
        for each in messages:
            each.accept = {yaml, json}
        sent = [each.payload[0][0] for each in messages]
        assert sent == [keyed, {"1": 2}, {"1": 2}, keyed]


@pytest.mark.skipif(CELERY < (5, 5), reason="Celery has pydantic=True since 5.5")
def test_pydantic(make_app, delivery):
    """Models are sent as dictionaries, also to the later tasks of a chain."""
    from pydantic_plain import Order, charge

    def later(request, result, order: Order): ...

    def configure(config):
        config.scan("pydantic_plain")
        config.register_task(later, name="later", pydantic=True)

    later.__annotations__["order"] = Order
    app = make_app(configure)
    if not hasattr(app.celery.tasks["later"], "_dump_pydantic_arguments"):
        pytest.skip("Celery sends models as dictionaries since 5.7")
    order = Order(number=2)
    with app.request() as request:
        s = request.task_signature
        request.defer_canvas(s(charge, order) | s("later", order), delivery=delivery)
        request.defer_tasks(charge, [(order,)], delivery=delivery)
        request.defer_task_with_options(charge, [order], delivery=delivery)
    dumped = {"number": 2, "items": []}
    messages = app.received()
    assert [message.payload[0] for message in messages] == [[dumped]] * 3
    assert messages[0].payload[2]["chain"][0]["args"] == [dumped]


def test_maps_and_chunks(app, delivery):
    """map, starmap and chunks are routed as the task that they call."""
    queue = unique()
    app.celery.conf.task_routes = {"add": {"queue": queue}}
    with app.request() as request:
        task = request.task_signature("add").type
        request.defer_canvas(task.map(iter([1, 2])), delivery=delivery)
        request.defer_canvas(task.starmap([(1, 2)]), delivery=delivery)
        chunks = task.chunks(((n, n) for n in range(3)), 2)
        request.defer_canvas(chunks.set(priority=3), delivery=delivery)
    messages = app.received(queue)
    names = [message.headers["task"] for message in messages]
    assert names == ["celery.map", *["celery.starmap"] * 3]
    assert messages[-1].properties["priority"] == 3
