"""request.task_signature, defer_canvas and defer_tasks, without a worker."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager, nullcontext

import celery
import pytest
from celery import chain, chord, group, signature
from kombu import Connection
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks import BeforeDeferTask
from pyramid_tasks.exceptions import (
    DeferError,
    ResultNotReady,
    SettingError,
    TaskNotRegistered,
)
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.worker.contexts import HEADER

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
import zope.sqlalchemy
from databases import database
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

from pyramid_tasks.outbox.rows import get_status
from pyramid_tasks.outbox.table import metadata

DUMP = "_dump_pydantic_arguments"
CELERY = tuple(map(int, celery.__version__.split(".")[:2]))


def add(request, x, y=0):
    return x + y


def total(request, numbers):
    return sum(numbers)


def bound(self, request, x):
    return self.name, x


class App:
    """An application with each delivery, and what has arrived at its broker."""

    def __init__(self, engine, configure=None, **settings):
        self.queue = unique()
        settings = {
            "celery.broker_url": "memory://localhost",
            "celery.task_default_queue": self.queue,
            "celery.result_backend": "cache+memory://",
            "tm.manager_hook": "pyramid_tm.explicit_manager",
            "pyramid_tasks.context": "host",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        with Configurator(settings=settings) as config:
            config.include("pyramid_tm")
            config.include("pyramid_tasks.contrib.pyramid_tm")
            config.register_task(add, name="add")
            config.register_task(total, name="total")
            config.register_task(bound, name="bound", bind=True)
            config.add_request_method(
                lambda request: self.dbsession(request, engine),
                "dbsession",
                reify=True,
            )
            if configure:
                configure(config)
        self.registry = config.registry
        self.celery = get_tasks(config.registry).app

    def dbsession(self, request, engine):
        session = Session(engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    @contextmanager
    def request(self, *, transaction=False):
        request = Request.blank("/", base_url="https://example.com")
        with (
            prepare(request, self.registry),
            request.tm if transaction else nullcontext(),
        ):
            yield request

    def received(self, queue=None):
        """Return the messages that are in a queue, and empty it."""
        messages = []
        with Connection("memory://localhost") as connection:
            channel = connection.channel()
            while message := channel.basic_get(queue or self.queue, no_ack=True):
                messages.append(message)
        return messages

    def calls(self, queue=None):
        return [
            (message.headers["task"], tuple(message.payload[0]), message.payload[1])
            for message in self.received(queue)
        ]


@pytest.fixture
def engine(tmp_path):
    """An engine of SQLite, with the table of the outbox."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def app(engine):
    return App(engine)


DELIVERIES = ["immediate", "commit", "outbox"]
HELD = ["commit", "outbox"]


@pytest.mark.parametrize("task", ["function", "add", "dotted", "task"])
def test_signature_is_one_of_this_application(app, task):
    """A signature is made by function, name, dotted name or task, and can be called."""
    named = {
        "function": add,
        "dotted": f"{add.__module__}.add",
        "task": app.celery.tasks["add"],
    }
    with app.request() as request:
        found = request.task_signature(named.get(task, task), 1, y=2)
        assert found.type is app.celery.tasks["add"]
        assert found() == 3
        with pytest.raises(TaskNotRegistered, match=r"no\.such"):
            request.task_signature("no.such")


def test_signature_composes(app):
    """A signature has the methods and operators of Celery's own."""
    with app.request() as request:
        one = request.task_signature(add, 1)
        two = request.task_signature(bound).set(queue="slow", immutable=True)
        assert list((one | two).tasks) == [one, two]
        assert one.link(two) is two
        assert one.on_error(two) is one
        assert one.options == {"link": [two], "link_error": [two]}


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_canvas_is_left_as_it_is(app, delivery):
    """What is deferred is a copy: the canvas can be deferred again, under other ids."""
    with app.request() as request:
        s = request.task_signature
        linked, errback = s(add), s(add)
        canvas = group(
            (s(add, n) for n in range(2)),
        ) | s(total).set(link=[linked], link_error=errback)
        before = json.dumps(canvas)
        link = s(add)
        with request.tm:
            results = [request.defer_canvas(canvas, delivery=delivery) for _ in "12"]
            request.defer_canvas(s(add, 1), delivery=delivery, link=link)
        assert json.dumps(canvas) == before
        assert not link.options
        assert results[0].id != results[1].id
    ids = {message.headers["id"] for message in app.received()}
    assert len(ids) == 5


def build(s):
    """A canvas with one of each; what is sent at once are two tasks."""
    return group(
        chain(s(add, 1).set(link=s(add)), group(s(add, 2), s(add, 3)), s(total)),
        chord([s(add, 4) | s(bound)], s(total).on_error(s(add))),
    )


def everything(message):
    """Return the signatures in a message, those nested in them too."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            if value.get("task") and value.get("subtask_type") is None:
                found.append(value)
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(message.payload[2])
    return found


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_subscribers_and_context(engine, delivery):
    """Subscribers are told of each task, may change it, and each knows the context."""
    told = []

    def mark(event):
        told.append((event.task_name, event.args, event.request.domain))
        event.options["headers"]["mark"] = event.task_name
        if event.args == (4,):
            event.options["priority"] = 7

    app = App(engine, lambda config: config.add_subscriber(mark, BeforeDeferTask))
    with app.request(transaction=True) as request:
        canvas = build(request.task_signature)
        request.defer_canvas(canvas, delivery=delivery, headers={"of": "the whole"})
    assert sorted(told) == sorted(
        (name, args, "example.com")
        for name, args in [
            *(("add", (number,)) for number in range(1, 5)),
            ("add", ()),
            ("add", ()),
            ("bound", ()),
            ("total", ()),
            ("total", ()),
        ]
    )
    first, second = app.received()
    for message in first, second:
        assert "https" in message.headers[HEADER]
        assert message.headers["of"] == "the whole"
        for found in everything(message):
            assert "https" in found["options"]["headers"][HEADER]
    names = {found["task"] for found in everything(first)}
    assert names == {"add", "total"}
    assert second.properties["priority"] == 7


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_links_of_one_call(app, delivery):
    """link and link_error of calls that are no canvas know the context as well."""
    with app.request(transaction=True) as request:
        linked = request.task_signature(add)
        options = {"link": linked, "link_error": [linked], "delivery": delivery}
        request.defer_task_with_options(add, [1], **options)
        request.defer_tasks(add, [(1,), {"x": 1}], **options)
    assert not linked.options
    messages = app.received()
    assert len(messages) == 3
    for message in messages:
        embed = message.payload[2]
        (link,), (error,) = embed["callbacks"], embed["errbacks"]
        for found in link, error:
            assert "https" in found["options"]["headers"][HEADER]


@pytest.mark.parametrize("delivery", HELD)
@pytest.mark.parametrize("how", ["abort", "error", "doom", "savepoint"])
def test_all_or_nothing(app, engine, delivery, how):
    """An aborted transaction, and a savepoint rolled back, send none of it."""
    with app.request() as request:
        request.tm.begin()
        savepoint = request.tm.savepoint()
        request.defer_canvas(build(request.task_signature), delivery=delivery)
        request.defer_tasks(add, [(1,), (2,)], delivery=delivery)
        if how == "savepoint" and delivery == "commit":
            savepoint.rollback()
            request.tm.commit()
        elif how == "doom":
            request.tm.doom()
            request.tm.abort()
        else:
            request.tm.abort()
    assert app.received() == []
    assert get_status(engine).waiting == 0


@pytest.mark.parametrize("delivery", HELD)
def test_results_before_the_commit(app, delivery):
    """Ids are fixed, nothing is sent, and no result can be waited for."""
    with app.request() as request:
        s = request.task_signature
        with request.tm:
            results = [
                request.defer_canvas(s(add, 1), delivery=delivery),
                request.defer_canvas(s(add, 1) | s(add, 2), delivery=delivery),
                request.defer_canvas(group(s(add, 1), s(add, 2)), delivery=delivery),
                request.defer_canvas(chord([s(add, 1)], s(total)), delivery=delivery),
                request.defer_tasks(add, [(1,), (2,)], delivery=delivery),
            ]
            waiting = [*results, *results[2], *results[4]]
            waiting += [results[1].parent, results[3].parent]
            for result in waiting:
                assert not result.sent
                assert not result.ready()
                with pytest.raises(ResultNotReady):
                    result.get(timeout=1)
            with pytest.raises(ResultNotReady):
                results[2].join(timeout=1)
            with pytest.raises(ResultNotReady):
                results[2].iter_native(timeout=1)
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


UNKNOWN = (TaskNotRegistered, r"no\.such")
WRONG = {
    "unknown": (lambda s: signature("no.such"), *UNKNOWN),
    "unknown, later": (lambda s: s(add, 1) | signature("no.such"), *UNKNOWN),
    "unknown, linked": (
        lambda s: s(add, 1).on_error(signature("no.such")),
        *UNKNOWN,
    ),
    "too few": (lambda s: s(add), TypeError, "missing 1 required"),
    "too many, with the result before": (
        lambda s: s(add, 1) | s(add, 1, 2),
        TypeError,
        "takes from 2 to 3",
    ),
    "too many in a chord": (
        lambda s: chord([s(add, 1)], s(total, 1)),
        TypeError,
        "takes 2 positional",
    ),
    "too many for a link": (
        lambda s: s(add, 1).set(link=[s(total, 1)]),
        TypeError,
        "takes 2 positional",
    ),
    "keyword": (lambda s: s(add, 1) | s(total, no=1), TypeError, "keyword"),
    "map": (
        lambda s: s(add).type.starmap([(1, 2), (1, 2, 3)]),
        TypeError,
        "takes from",
    ),
    "unknown delivery": (
        lambda s: s(add, 1).set(delivery="no"),
        SettingError,
        "no is none of",
    ),
    "two deliveries": (
        lambda s: s(add, 1).set(delivery="commit") | s(add, 1).set(delivery="outbox"),
        DeferError,
        "one delivery, not several: commit, outbox",
    ),
    "a function": (lambda s: add, DeferError, "is no canvas"),
    "a list": (lambda s: [s(add, 1)], DeferError, "is no canvas"),
}


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_canvas(app, engine, name, delivery):
    """What could not run is an error where it is deferred, and nothing is sent."""
    build, error, words = WRONG[name]
    with app.request(transaction=True) as request:
        canvas = build(request.task_signature)
        if isinstance(canvas, dict):
            canvas = group(request.task_signature(add, 1), canvas)
        with pytest.raises(error, match=words):
            request.defer_canvas(canvas, delivery=delivery)
    assert app.received() == []
    assert get_status(engine).waiting == 0


@pytest.mark.parametrize("delivery", ["immediate", *HELD])
def test_what_json_cannot_hold(app, delivery):
    """An argument that cannot travel is a TypeError that names the task, sends none."""
    with app.request(transaction=True) as request:
        s = request.task_signature
        with pytest.raises(TypeError, match="add cannot be sent as json: .*object"):
            request.defer_canvas(s(add, 1) | s(add, object()), delivery=delivery)
        with pytest.raises(DeferError, match="^Item 1 for .*cannot be sent as json"):
            request.defer_tasks(add, [(1,), (object(),)], delivery=delivery)
    assert app.received() == []


def test_what_the_outbox_cannot_hold(app):
    """An option that cannot be stored is a TypeError."""
    with app.request(transaction=True) as request:
        canvas = request.task_signature(add, 1).set(router=object()) | add_one(request)
        with pytest.raises(TypeError, match="outbox, which stores JSON"):
            request.defer_canvas(canvas, delivery="outbox")


def add_one(request):
    return request.task_signature(add, 1)


@pytest.mark.parametrize("delivery", HELD)
def test_chord_without_a_result_backend(engine, delivery):
    """A chord that could not end is an error where it is deferred."""
    app = App(engine, celery__result_backend="disabled://")
    with app.request(transaction=True) as request:
        s = request.task_signature
        for canvas in chord([s(add, 1)], s(total)), group([s(add, 1)] * 2) | s(total):
            with pytest.raises(NotImplementedError, match=r"[Cc]hord"):
                request.defer_canvas(canvas, delivery=delivery)
    assert app.received() == []


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_options(app, delivery):
    """Options of the whole and of its tasks are those that Celery gives them."""
    queue, other = unique(), unique()
    with app.request(transaction=True) as request:
        s = request.task_signature
        request.defer_canvas(
            group(s(add, 1), s(add, 2).set(queue=other) | s(add).set(countdown=5)),
            delivery=delivery,
            priority=4,
            countdown=60,
            expires=120,
        )
        request.defer_canvas(
            s(add, 3).set(delivery=delivery) | s(total), queue=queue, task_id="mine"
        )
    (message,) = app.received()
    assert message.properties["priority"] == 4
    assert message.headers["eta"] < message.headers["expires"]
    (message,) = app.received(other)
    (later,) = message.payload[2]["chain"]
    assert later["options"]["countdown"] == 5
    (message,) = app.received(queue)
    (last,) = message.payload[2]["chain"]
    assert last["options"]["task_id"] == "mine"


def test_delivery_of_a_task_is_that_of_the_whole(app):
    """What a signature, or a subscriber, says of the delivery counts for all."""
    with app.request(transaction=True) as request:
        s = request.task_signature
        canvas = group(s(add, 1), s(add, 2).set(delivery="immediate"))
        request.defer_canvas(canvas, delivery="commit")
        assert len(app.received()) == 2
        request.defer_canvas(group(s(add, 1)).set(delivery="immediate"))
        assert len(app.received()) == 1


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_maps_and_chunks(app, delivery):
    """map, starmap and chunks are routed as the task that they call."""
    queue = unique()
    app.celery.conf.task_routes = {"add": {"queue": queue}}
    with app.request(transaction=True) as request:
        task = request.task_signature(add).type
        request.defer_canvas(task.map(iter([1, 2])), delivery=delivery)
        request.defer_canvas(task.starmap([(1, 2)]), delivery=delivery)
        chunks = task.chunks(((n, n) for n in range(3)), 2)
        request.defer_canvas(chunks, delivery=delivery)
    names = [name for name, _, _ in app.calls(queue)]
    assert names == ["celery.map", *["celery.starmap"] * 3]


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_defer_tasks(app, delivery):
    """Each item is a call: a tuple, or a dictionary; any iterable, also none at all."""
    with app.request(transaction=True) as request:
        items = iter([(1, 2), {"x": 3, "y": 4}, (5,)])
        result = request.defer_tasks(add, items, delivery=delivery, priority=3)
        empty = request.defer_tasks(add, [], delivery=delivery)
    assert len(result) == 3
    assert len(empty) == 0
    messages = app.received()
    assert [message.headers["id"] for message in messages] == [
        each.id for each in result
    ]
    assert {message.properties["priority"] for message in messages} == {3}
    assert [message.payload[:2] for message in messages] == [
        [[1, 2], {}],
        [[], {"x": 3, "y": 4}],
        [[5], {}],
    ]


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize(
    ("item", "words"),
    [
        (2, r"Item 1 for add must be a tuple .* \(2,\)"),
        ("2", r"Item 1 for add must be a tuple .* \('2',\)"),
        ([2], "Item 1 for add must be a tuple"),
        ((), "Item 1 for add: .* missing 1 required"),
        ((1, 2, 3), "Item 1 for add: .* takes from 2 to 3"),
        ({"z": 1}, "Item 1 for add: .* unexpected keyword|missing 1"),
    ],
)
def test_defer_tasks_with_a_wrong_item(app, engine, delivery, item, words):
    """An item that could not run is an error that says which, and nothing is sent."""
    with (
        app.request(transaction=True) as request,
        pytest.raises(DeferError, match=words),
    ):
        request.defer_tasks(add, [(1,), item], delivery=delivery)
    assert app.received() == []
    assert get_status(engine).waiting == 0


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_defer_tasks_is_one_insert(tmp_path, kind):
    """1,000 tasks by outbox are one INSERT; SQLAlchemy has no such for SQLite."""
    with database(kind, tmp_path) as url:
        engine = create_engine(url)
        metadata.create_all(engine)
        statements = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(_conn, _cursor, statement, *_):
            statements.append(statement.split()[0])

        app = App(engine)
        with app.request() as request:
            request.tm.begin()
            request.defer_tasks(add, ((n,) for n in range(1000)), delivery="outbox")
            request.dbsession.flush()
            assert statements.count("INSERT") == 1
            request.tm.abort()
        engine.dispose()


@pytest.mark.parametrize("delivery", ["immediate", "commit"])
def test_one_producer(app, monkeypatch, delivery):
    """A canvas, and many tasks, take one producer from the pool, never one more."""
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
    with app.request(transaction=True) as request:
        request.defer_canvas(build(request.task_signature), delivery=delivery)
        request.defer_tasks(add, [(1,), (2,)], delivery=delivery)
    assert len(app.received()) == 4


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_serializer_of_a_task(engine, delivery):
    """A task is sent with the serializer that it was registered with."""

    def configure(config):
        config.register_task(add, name="by yaml", serializer="yaml")

    app = App(engine, configure)
    with app.request(transaction=True) as request:
        s = request.task_signature
        canvas = group(s("by yaml", 1), s("add", 1))
        request.defer_canvas(canvas, delivery=delivery)
    content = [message.content_type for message in app.received()]
    assert content == ["application/x-yaml", "application/json"]


@pytest.mark.skipif(CELERY < (5, 5), reason="Celery has pydantic=True since 5.5")
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_pydantic(engine, delivery):
    """Models are sent as dictionaries, also to the later tasks of a chain."""
    from pydantic_plain import Order, charge

    def later(request, result, order: Order): ...

    def configure(config):
        config.scan("pydantic_plain")
        config.register_task(later, name="later", pydantic=True)

    later.__annotations__["order"] = Order
    app = App(engine, configure)
    if not hasattr(app.celery.tasks["pydantic_plain.charge"], DUMP):
        pytest.skip("Celery sends models as dictionaries since 5.7")
    order = Order(number=2)
    with app.request(transaction=True) as request:
        s = request.task_signature
        canvas = s(charge, order) | s("later", order)
        request.defer_canvas(canvas, delivery=delivery)
        request.defer_tasks(charge, [(order,)], delivery=delivery)
    dumped = {"number": 2, "items": []}
    first, second = app.received()
    assert first.payload[0] == second.payload[0] == [dumped]
    assert first.payload[2]["chain"][0]["args"] == [dumped]


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_eager(engine, delivery):
    """With task_always_eager all of it runs at once, or at the commit."""
    runs = []

    def configure(config):
        config.register_task(lambda request, x: runs.append(x) or x, name="run")

    app = App(
        engine,
        configure,
        celery__task_always_eager=True,
        celery__result_backend="disabled://",
    )
    with app.request() as request:
        s = request.task_signature
        with request.tm:
            for canvas in (
                s(add, 1, 2) | s("run"),
                group(s("run", 1), s("run", 2)),
                chord([s(add, 1, 2), s(add, 3, 4)], s(total) | s("run")),
                chain(s(add, 1, 2), group(s(add, 1), s(add, 2)), s(total), s("run")),
            ):
                result = request.defer_canvas(canvas, delivery=delivery)
                if delivery == "immediate":
                    assert result.get() is not None
            request.defer_tasks("run", [(8,)], delivery=delivery)
            assert bool(runs) == (delivery == "immediate")
    assert runs == [3, 1, 2, 10, 9, 8]


@contextmanager
def silent_server():
    """Give the port of a server that accepts connections and never answers."""
    with socket.create_server(("localhost", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("what", ["broker", "result_backend"])
@pytest.mark.parametrize("how", ["down", "silent"])
@pytest.mark.parametrize("canvas", ["chord", "group of chains", "group", "chain"])
def test_outbox_does_not_wait(engine, caplog, what, how, canvas):
    """A broker, or a result backend, that is down keeps a request only so long."""
    pytest.importorskip("redis")
    with silent_server() as port:
        url = f"redis://localhost:{1 if how == 'down' else port}/0"
        setting = "broker_url" if what == "broker" else what
        app = App(
            engine, **{f"celery.{setting}": url}, pyramid_tasks__delivery_timeout=1
        )
        start = time.monotonic()
        with app.request(transaction=True) as request:
            s = request.task_signature
            canvas = {
                "chord": lambda: chord([s(add, 1) | s(add, 1), s(add, 2)], s(total)),
                "group of chains": lambda: group(
                    [s(add, n) | s(add, 1) for n in range(5)]
                ),
                "group": lambda: group(s(add, n) for n in range(5)),
                "chain": lambda: s(add, 1) | s(add, 1),
            }[canvas]()
            result = request.defer_canvas(canvas, delivery="outbox")
        # As long as one subscription would wait for a backend that is down.
        assert time.monotonic() - start < 15
    assert result.sent
    waits = what == "broker" or isinstance(canvas, chord)
    assert get_status(engine).waiting == waits
    assert ("left to the relay" in caplog.text) == waits
    assert ("the result backend" in caplog.text) == (waits and what != "broker")
