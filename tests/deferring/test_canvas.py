"""request.task_signature, defer_canvas and defer_tasks, by each delivery."""

from __future__ import annotations

import json
import socket
import time
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
from celery import Celery, chain, chord, current_app, group
from celery.result import GroupResult
from celery.signals import before_task_publish
from databases import database
from sqlalchemy import create_engine, event
from support import unique

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.delivery import canvas as canvas_module
from pyramid_tasks.exceptions import DeferError, ResultNotReady, TaskNotRegistered


def test_signature(app):
    """A signature is a task of this application, as Celery's own signatures are."""
    with app.request() as request:
        found = request.task_signature("add", 1, y=2)
        assert found.type is app.celery.tasks["add"]
        assert found() == 3
        two = request.task_signature("bound").set(queue="slow", immutable=True)
        assert list((found | two).tasks) == [found, two]
        with pytest.raises(TaskNotRegistered, match=r"no\.such"):
            request.task_signature("no.such")


def test_canvas_is_left_as_it_is(app, delivery):
    """A canvas is copied: it can be deferred again, and its tasks get other ids."""
    with app.request(transaction=False) as request:
        s = request.task_signature
        canvas = group(s("add", n) for n in range(2)) | s("total").set(
            link=[s("add")], link_error=s("total")
        )
        before = json.dumps(canvas)
        link = s("add")
        with request.tm:
            results = [request.defer_canvas(canvas, delivery=delivery) for _ in "12"]
            request.defer_canvas(s("add", 1), delivery=delivery, link=link)
        assert json.dumps(canvas) == before
        assert not link.options
        assert results[0].id != results[1].id
    ids = {message.headers["id"] for message in app.received()}
    assert len(ids) == 5


@pytest.mark.parametrize(
    "argument",
    [
        {"subtask_type": "group"},
        {"subtask_type": ["chain"]},
        {"subtask_type": "chord", "kwargs": {"header": [1]}},
        {"task": "celery.chunks", "kwargs": {}},
    ],
)
def test_argument_that_looks_like_a_canvas(app, delivery, argument):
    """A dictionary among the arguments stays as it is, whatever its keys are."""
    with app.request() as request:
        canvas = request.task_signature("add", argument)
        request.defer_canvas(canvas, delivery=delivery)
    (message,) = app.received()
    assert message.payload[0] == [argument]


def test_chord_that_celery_has_prepared(app, delivery):
    """The header of a chord can be a group, as Celery makes it when it fixes ids."""
    with app.request() as request:
        s = request.task_signature
        canvas = chord([s("add", 1), s("add", 2)], s("total"))
        canvas.freeze()
        assert isinstance(canvas.tasks, group)
        request.defer_canvas(canvas, delivery=delivery)
    assert [message.payload[0] for message in app.received()] == [[1], [2]]


def test_signal_that_uses_the_result_backend(app, delivery):
    """A receiver of Celery's signals about sending can note the state of a task."""

    def note(headers, **_):
        current_app.backend.store_result(headers["id"], None, "SENT")

    before_task_publish.connect(note)
    try:
        with app.request() as request:
            result = request.defer_canvas(
                request.task_signature("add", 1), delivery=delivery
            )
        app.flush()
    finally:
        before_task_publish.disconnect(note)
    assert result.state == "SENT"


CELERY_RESULTS = {
    "chain to a group": lambda add, _: group(add(1) | group(add(1), add(2))),
    "beside a task": lambda add, _: group(add(1) | group(add(1), add(2)), add(3)),
    "chord to a group": lambda add, total: group(
        [chord([add(1)], group(total(), total()))]
    ),
    "chord to a chain": lambda add, total: chord([add(1)] * 2, total() | add(1)),
    "two chords": lambda add, total: chain(
        add(1), group([add(1)] * 2), total(), chord([add(1)], add())
    ),
    "chord with own arguments": lambda add, total: chord(
        [add(), add(1)], total()
    ).clone((5,)),
    "nothing": lambda add, _: chain(add(1), group([]), add(1)),
}


def build(name, s):
    """Return a canvas of the signatures that a function makes."""
    return CELERY_RESULTS[name](partial(s, "add"), partial(s, "total"))


def shape(result):
    """Return how many results a result has, and its parents have."""
    if result is None:
        return None
    each = [shape(each) for each in getattr(result, "results", ())]
    return (isinstance(result, GroupResult), each, shape(result.parent))


@pytest.mark.parametrize("name", CELERY_RESULTS)
def test_result_is_that_of_celery(app, delivery, name):
    """The result of a canvas has the results and the parents that Celery gives it."""
    plain = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    canvas = build(name, lambda task, *args: plain.signature(task, args))
    expected = canvas.apply_async()
    with app.request() as request:
        canvas = build(name, request.task_signature)
        result = request.defer_canvas(canvas, delivery=delivery)
    assert shape(result) == shape(expected)
    app.received()


def test_endless_generator(app, delivery, monkeypatch):
    """A generator is checked before the first task is sent, if it ends in time."""
    monkeypatch.setattr(canvas_module, "MAX_GENERATED", 10)
    with app.request() as request:
        s = request.task_signature
        for size in count(), range(11):
            some = (s("add", number) for number in size)
            with pytest.raises(DeferError, match="may give 10 items"):
                request.defer_canvas(chord(some, s("total")), delivery=delivery)
        header = group(s("add", number) for number in range(10))
        request.defer_canvas(header | s("total"), delivery=delivery)
    assert len(app.received()) == 10


def test_abort(app, transactional):
    """An aborted transaction sends no part of a canvas, and no item."""
    with app.request(transaction=False) as request:
        request.tm.begin()
        s = request.task_signature
        canvas = chord([s("add", 1), s("add", 2)], s("total"))
        request.defer_canvas(canvas, delivery=transactional)
        request.defer_tasks("add", [(1,), (2,)], delivery=transactional)
        request.tm.abort()
    assert app.has_sent_nothing()


def test_results_before_the_commit(app, transactional):
    """Ids are fixed, nothing is sent, and nobody can wait for a result."""
    with app.request(transaction=False) as request:
        s = request.task_signature
        with request.tm:
            both = s("add", 1), s("add", 2)
            canvases = [s("add", 1), chain(both), group(both), chord(both, s("total"))]
            by = {"delivery": transactional}
            results = [request.defer_canvas(canvas, **by) for canvas in canvases]
            results.append(request.defer_tasks("add", [(1,), (2,)], **by))
            waiting = [*results, *results[2], *results[4]]
            waiting += [results[1].parent, results[3].parent]
            for result in waiting:
                assert not result.sent
                assert not result.ready()
                with pytest.raises(ResultNotReady):
                    result.get(timeout=1)
            for wait in results[2].join, results[2].join_native, results[2].iter_native:
                with pytest.raises(ResultNotReady) as caught:
                    wait(timeout=1)
                assert caught.value.task_id == results[2].id
            assert app.received() == []
        assert all(result.sent for result in waiting)
    sent = [message.headers["id"] for message in app.received()]
    assert sent == [
        results[0].id,
        results[1].parent.id,
        *(each.id for each in results[2]),
        *(each.id for each in results[3].parent),
        *(each.id for each in results[4]),
    ]


def test_results_after_the_commit(app, transactional, monkeypatch):
    """The results of a group can be waited for, iterated, and followed by a call."""
    called = []
    with app.request(transaction=False) as request:
        with request.tm:
            result = request.defer_tasks("add", [(1,), (2,)], delivery=transactional)
            result.then(called.append)
        for each in result:
            app.celery.backend.store_result(each.id, 5, "SUCCESS")
    # Celery calls it for backends that push results to whoever waits.
    with monkeypatch.context() as patch:
        patch.setattr(type(app.celery.backend), "is_async", True)
        assert result.ready()
    assert called == [result]
    assert result.get(timeout=5) == result.join(timeout=5) == [5, 5]
    assert result.join_native(timeout=5) == [5, 5]
    assert sorted(id_ for id_, _ in result.iter_native(timeout=5)) == sorted(
        each.id for each in result
    )


def test_chord_without_a_result_backend(make_app, transactional):
    """A chord that could not end is an error where it is deferred."""
    app = make_app(celery__result_backend="disabled://")
    with app.request() as request:
        s = request.task_signature
        some = [s("add", 1)]
        for canvas in chord(some, s("total")), group(some * 2) | s("total"):
            with pytest.raises(NotImplementedError, match=r"[Cc]hord"):
                request.defer_canvas(canvas, delivery=transactional)
    assert app.has_sent_nothing()


def test_options(app, delivery):
    """Options of the whole and of its tasks mean what they mean to Celery."""
    queue, other = unique(), unique()
    with app.request() as request:
        s = request.task_signature
        later = s("add", 2).set(queue=other) | s("add").set(countdown=5)
        options = {"priority": 4, "countdown": 60, "expires": 120}
        request.defer_canvas(group(s("add", 1), later), delivery=delivery, **options)
        canvas = s("add", 3).set(delivery=delivery) | s("total")
        request.defer_canvas(canvas, queue=queue, task_id="mine")
    (message,) = app.received()
    assert message.properties["priority"] == 4
    assert message.headers["eta"] < message.headers["expires"]
    (message,) = app.received(other)
    (later,) = message.payload[2]["chain"]
    assert later["options"]["countdown"] == 5
    (message,) = app.received(queue)
    (last,) = message.payload[2]["chain"]
    assert last["options"]["task_id"] == "mine"


def test_options_that_are_empty(make_app, delivery):
    """As in Celery, a countdown of 0 is none, and ``None`` clears a task's option."""

    def configure(config):
        config.register_task(lambda request: None, name="old", expires=60)

    options = {"delivery": delivery, "countdown": 0, "expires": None}
    app = make_app(configure)
    with app.request() as request:
        request.defer_task_with_options("old", **options)
    (message,) = app.received()
    assert (message.headers["eta"], message.headers["expires"]) == (None, None)


def test_ancestors(app, transactional, monkeypatch):
    """As in Celery, a call can name others than the task that defers it."""
    parent = SimpleNamespace(request=SimpleNamespace(root_id="root", id="parent"))
    ids = {"root_id": "other root", "parent_id": "other parent"}
    with app.request() as request, monkeypatch.context() as patch:
        patch.setattr(type(app.celery), "current_worker_task", parent)
        s, by = request.task_signature, {"delivery": transactional}
        request.defer_task_with_options("add", [1], **ids, **by)
        request.defer_canvas(group(s("add", 2), s("add", 3)), **ids, **by)
        request.defer_canvas(group(s("add", 4)), **by)
    headers = [message.headers for message in app.received()]
    found = [(each["root_id"], each["parent_id"]) for each in headers]
    assert found == [("other root", "other parent")] * 3 + [("root", "parent")]


def test_priority_of_the_parent(make_app, delivery):
    """As in Celery, a task hands its priority down where nobody names another one."""

    def parent(request):
        s, by = request.task_signature, {"delivery": delivery}
        request.defer_task_with_options("add", [1], **by)
        request.defer_canvas(s("add", 2) | s("add"), **by)
        request.defer_canvas(group(s("add", 3), s("add", 4).set(priority=1)), **by)
        request.defer_task_with_options("add", [5], priority=2, **by)
        request.defer_task_with_options("own", **by)
        request.defer_task_with_options("routed", **by)
        request.defer_task_with_options("add", [6], parent_id="x", root_id="y", **by)

    def configure(config):
        config.register_task(parent, name="parent")
        config.register_task(lambda request: None, name="own", priority=3)
        config.register_task(lambda request: None, name="routed")

    routes = {"routed": {"priority": 4}}
    settings = {"task_inherit_parent_priority": True, "task_routes": routes}
    app = make_app(configure, **{f"celery__{key}": settings[key] for key in settings})
    for given, inherited in (7, 7), (None, 0):
        app.celery.tasks["parent"].apply(priority=given)
        found = [message.properties["priority"] for message in app.received()]
        assert sorted(found) == sorted([*[inherited] * 3, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("send", ["thread", "request", "relay"])
def test_children_of_the_parent(make_app, delivery, send):
    """As in Celery, a task knows what it has deferred, unless it aborts."""
    found = []

    def parent(request, doom):
        s, by = request.task_signature, {"delivery": delivery}
        one = request.defer_task_with_options("add", [1], **by)
        request.defer_task_with_options("add", [1], add_to_parent=False, **by)
        whole = request.defer_canvas(s("add", 1) | s("add", 1), **by)
        request.defer_canvas(group(s("add", 1), s("add", 1)), **by)
        found.append((one.id, whole.parent.id, request.current_task.request))
        if doom:
            request.tm.doom()

    options = {"celery__result_backend": "cache+memory://"}
    options["pyramid_tasks__outbox_send"] = send
    app = make_app(lambda config: config.register_task(parent, name="it"), **options)
    app.celery.tasks["it"].apply([False])
    ((one, first, context),) = found
    assert [each.id for each in context.children[:2]] == [one, first]
    (_, several) = context.children[2].as_tuple()
    assert len(context.children) == 3
    assert len(several) == 2
    app.celery.tasks["it"].apply([True])
    children = found[1][2].children
    assert bool(children) == (delivery == "immediate")


def test_defer_tasks(app, delivery):
    """Each item is a call: a tuple or a dictionary. There may be none."""
    with app.request() as request:
        items = iter([(1, 2), {"x": 3, "y": 4}, (5,)])
        result = request.defer_tasks("add", items, delivery=delivery, priority=3)
        assert len(request.defer_tasks("add", [], delivery=delivery)) == 0
    assert (result.sent, result.dropped) == (True, False)
    messages = app.received()
    ids = [each.id for each in result]
    assert [message.headers["id"] for message in messages] == ids
    assert {message.properties["priority"] for message in messages} == {3}
    sent = [[[1, 2], {}], [[], {"x": 3, "y": 4}], [[5], {}]]
    assert [message.payload[:2] for message in messages] == sent


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_defer_tasks_is_one_insert(tmp_path, make_app, kind):
    """1,000 tasks by outbox are one INSERT, which SQLAlchemy cannot do for SQLite."""
    with database(kind, tmp_path) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        statements = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(_conn, _cursor, statement, *_):
            statements.append(statement.split()[0])

        with make_app(engine=engine).request(transaction=False) as request:
            request.tm.begin()
            request.defer_tasks("add", ((n,) for n in range(1000)), delivery="outbox")
            request.dbsession.flush()
            assert statements.count("INSERT") == 1
            request.tm.abort()
        engine.dispose()


@pytest.mark.parametrize("delivery", ["immediate", "commit"])
def test_one_producer(app, monkeypatch, delivery):
    """A canvas, and many tasks, take one producer from the pool at a time."""
    taken = []
    pool = app.celery.producer_pool
    acquire = pool.acquire

    def count(*args, **options):
        assert not taken, "a second one is taken while the first is in use"
        taken.append(1)
        producer = acquire(*args, **options)
        release = producer.release
        producer.release = lambda: (taken.clear(), release())
        return producer

    monkeypatch.setattr(pool, "acquire", count)
    with app.request() as request:
        s = request.task_signature
        canvas = group(s("add", 1) | s("bound"), chord([s("add", 4)], s("total")))
        request.defer_canvas(canvas, delivery=delivery)
        request.defer_tasks("add", [(1,), (2,)], delivery=delivery)
    assert len(app.received()) == 4


def test_eager(make_app, delivery):
    """With task_always_eager all of it runs at once, or at the commit."""
    runs = []

    def run(request, x):
        runs.append(x)
        return x

    app = make_app(
        lambda config: config.register_task(run, name="run"),
        celery__task_always_eager=True,
        celery__result_backend="disabled://",
    )
    with app.request(transaction=False) as request:
        s = request.task_signature
        with request.tm:
            for canvas in (
                s("add", 1, 2) | s("run"),
                group(s("run", 1), s("run", 2)),
                chord([s("add", 1, 2), s("add", 3, 4)], s("total") | s("run")),
                s("add", 1, 2)
                | group(s("add", 1), s("add", 2))
                | s("total")
                | s("run"),
            ):
                result = request.defer_canvas(canvas, delivery=delivery)
                if delivery == "immediate":
                    assert result.get() is not None
            request.defer_tasks("run", [(8,)], delivery=delivery)
            assert bool(runs) == (delivery == "immediate")
    assert runs == [3, 1, 2, 10, 9, 8]


CANVASES = {
    "chord": lambda s: chord([s("add", 1) | s("add", 1), s("add", 2)], s("total")),
    "group of chains": lambda s: group([s("add", n) | s("add", 1) for n in range(5)]),
    "group": lambda s: group(s("add", n) for n in range(5)),
    "chain": lambda s: s("add", 1) | s("add", 1),
}


@pytest.mark.parametrize("what", ["broker", "result_backend"])
@pytest.mark.parametrize("how", ["down", "silent"])
@pytest.mark.parametrize("name", CANVASES)
def test_outbox_does_not_wait(make_app, caplog, what, how, name):
    """A broker, or a result backend, that is down keeps a request only so long."""
    with socket.create_server(("localhost", 0), backlog=100) as silent:
        port = 1 if how == "down" else silent.getsockname()[1]
        url = f"redis://localhost:{port}/0"
        setting = "broker_url" if what == "broker" else what
        app = make_app(**{f"celery.{setting}": url}, pyramid_tasks__delivery_timeout=1)
        start = time.monotonic()
        with app.request() as request:
            canvas = CANVASES[name](request.task_signature)
            result = request.defer_canvas(canvas, delivery="outbox")
        # As long as one subscription would wait for a backend that is down.
        assert time.monotonic() - start < 15
    assert result.sent
    waits = what == "broker" or name == "chord"
    assert app.waiting() == waits
    assert ("left to the relay" in caplog.text) == waits
    assert ("the result backend" in caplog.text) == (waits and what != "broker")
