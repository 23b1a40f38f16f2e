"""Chains, groups and chords, sent to real workers in every way there is."""

import json
from collections import Counter
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from billiard.exceptions import WorkerLostError
from celery import chain, chord, group
from celery.exceptions import ChordError
from pyramid.paster import get_app
from pyramid.request import Request
from pyramid.scripting import prepare
from support import (
    QUICK,
    as_ini,
    free_port,
    need_service,
    start_worker,
    unique,
    wait_until,
)

pytest.importorskip("pyramid_tm")
pytest.importorskip("zope.sqlalchemy")
from conftest import _delete_keys, _delete_queue, rabbitmq_settings, redis_settings
from databases import database
from redis import Redis
from sqlalchemy import text

from pyramid_tasks.contrib.outbox_table import metadata
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.relay import Relay

pytestmark = pytest.mark.acceptance

TIMEOUT = 60

URL = "https://shop.example.com:8443/eu"


def canvases(s):
    """Return canvases and their results, of a function that makes signatures."""
    add, bound_add, double, retry_once, total, hear = (
        partial(s, name)
        for name in ("add", "bound_add", "double", "retry_once", "total", "hear")
    )
    pairs = [(number, number) for number in range(5)]
    return {
        "signature": (add(1, 2), 3),
        "set": (add(1, 2).set(countdown=0.1, priority=3), 3),
        "bound": (bound_add(1, 2), 3),
        "chain": (add(1, 2) | double() | double().set(expires=60), 12),
        "immutable": (add(1, 2) | hear("me").set(immutable=True), "heard me"),
        "chain of bound tasks": (bound_add(1, 2) | bound_add(4), 7),
        "group": (group(add(1, 2), add(3, 4)), [3, 7]),
        "group from a generator": (group(double(n) for n in range(3)), [0, 2, 4]),
        "empty group": (group([]), []),
        "group of chains": (
            group(add(1, 2) | double(), add(3, 4) | double() | double()),
            [6, 28],
        ),
        "group of groups": (
            group(group(double(1), group(double(2), double(3))), double(4)),
            [2, 4, 6, 8],
        ),
        "chord of groups": (
            group([group(double(1), double(2)), double(3)]) | hear(),
            "heard [2, 4, 6]",
        ),
        "chord": (chord([add(1, 2), add(3, 4)], total()), 10),
        "chord of one": (chord([add(1, 2)], total()), 3),
        "chord with arguments": (chord([double(), add(1)], total()).clone((5,)), 16),
        "chain with an empty group": (chain(add(1, 2), group([]), double()), 6),
        "group of a chain to a group": (
            group(add(1, 2) | group(add(1), add(2))),
            [4, 5],
        ),
        "empty chord": (chord([], total()), 0),
        "chain of group into chord": (add(1, 2) | group(add(1), add(2)) | total(), 9),
        "chord of chains": (
            chord([add(1, 2) | double(), add(3, 4) | double()], total()),
            20,
        ),
        "chord in the middle": (
            chain(add(1, 2), chord([add(1), add(2)], total()), double(), double()),
            36,
        ),
        "chord of chords": (
            chord(
                [
                    chord([double(1), double(2)], total()),
                    chord([double(3), double(4)], total()),
                ],
                total(),
            ),
            20,
        ),
        "two chords": (
            chain(group(double(1), double(2)), total(), group(add(1), add(2)), total()),
            15,
        ),
        "body is a chain": (chord([double(1), double(2)], total() | double()), 12),
        "body is a group": (
            chord([double(1), double(2)], group(total(), total() | double())),
            [6, 12],
        ),
        "chunks": (add().type.chunks(pairs, 2), [[0, 2], [4, 6], [8]]),
        "chunks, and a task": (
            add().type.chunks(pairs[:4], 2) | s("total_of_lists"),
            12,
        ),
        "chunks in a group": (
            group(add().type.chunks(pairs[1:3], 1), add(1, 2)),
            [[2], [4], 3],
        ),
        "map": (double().type.map([1, 2]), [2, 4]),
        "xmap": (double().type.map(range(3)), [0, 2, 4]),
        "starmap": (add().type.starmap([(1, 2), (3, 4)]), [3, 7]),
        "retry in the middle": (add(1, 2) | retry_once() | double(), 6),
        "retry in a chord": (chord([retry_once(1), retry_once(2)], total()), 3),
    }


class Web:
    """A web process: the application, as the test's own process loads it."""

    def __init__(self, ini):
        self.registry = get_app(str(ini)).registry
        self.notes = self.registry.settings["canvas.notes"]

    @contextmanager
    def request(self):
        request = Request.blank("/", base_url=URL)
        with prepare(request, self.registry):
            yield request

    @contextmanager
    def transaction(self):
        with self.request() as request, request.tm:
            yield request

    def result(self, task_id):
        with self.request() as request:
            return request.get_task_result(task_id).get(timeout=TIMEOUT)

    def runs(self, count):
        """Return the runs since the last time, once there are that many."""
        client = Redis()
        wait_until(
            lambda: client.llen(self.notes) >= count,
            what=lambda: f"{count} runs in {client.lrange(self.notes, 0, -1)}",
        )
        found = [json.loads(each) for each in client.lrange(self.notes, 0, -1)]
        client.delete(self.notes)
        return found


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def system(request, tmp_path_factory):
    """A worker, and two web processes; for one of them the broker is down."""
    need_service("Redis", 6379, "redis-server --daemonize yes")
    broker = redis_settings() if request.param == "redis" else rabbitmq_settings()
    if request.param == "rabbitmq":
        need_service("RabbitMQ", 5672, "rabbitmq-server -detached")
    folder = tmp_path_factory.mktemp("canvas")
    notes = unique("canvas")
    with database("postgresql", folder) as url:

        def write(name, **more):
            path = folder / name
            path.write_text(
                f"[app:main]\nuse = call:canvasapp:main\ncanvas.notes = {notes}\n"
                f"sqlalchemy.url = {url}\npyramid_tasks.context = host\n"
                f"tm.manager_hook = pyramid_tm.explicit_manager\n"
                f"{as_ini(broker | more)}\n"
                "[celery:main]\nworker_concurrency = 2\n"
            )
            return path

        ini = write("config.ini")
        scheme = broker["broker_url"].partition(":")[0]
        down = write("down.ini", broker_url=f"{scheme}://localhost:{free_port()}//")
        web, cut_off = Web(ini), Web(down)
        metadata.create_all(web.registry["engine"])
        with start_worker(ini, *QUICK, cwd=folder) as worker:
            yield SimpleNamespace(web=web, cut_off=cut_off, worker=worker)
        for each in web, cut_off:
            each.registry["engine"].dispose()
    Redis().delete(notes)
    if request.param == "rabbitmq":
        _delete_queue(broker["broker_url"], broker["task_default_queue"])
    _delete_keys(broker["result_backend_transport_options.global_keyprefix"])


def relay(system):
    """Send what is left in the outbox."""
    for web in system.web, system.cut_off:
        assert get_outbox(web.registry).sender.flush(TIMEOUT)
    registry = system.web.registry
    with registry["engine"].begin() as connection:
        connection.execute(text("UPDATE pyramid_tasks_outbox SET not_before = 0"))
    Relay(registry, registry["engine"]).run_once()
    with registry["engine"].connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pyramid_tasks_outbox")) == 0


@pytest.fixture(params=["immediate", "commit", "outbox", "relay"])
def deferring(request, system):
    """Return a context to defer something in, by one way of delivery."""
    web = system.cut_off if request.param == "relay" else system.web
    Redis().delete(web.notes)

    @contextmanager
    def deferring():
        with web.transaction() as http:
            yield http, "outbox" if request.param == "relay" else request.param
        if request.param == "relay":
            relay(system)

    return deferring


@pytest.fixture
def defer(deferring):
    """Return a function that defers a canvas, and returns the result."""

    def defer(build):
        with deferring() as (http, delivery):
            return http.defer_canvas(build(signer(http)), delivery=delivery)

    return defer


def signer(http):
    """Return a function that makes the signature of a task."""
    return lambda name, *args: http.task_signature(f"canvasapp.{name}", *args)


def test_results(deferring):
    """The result of each is what it should be, on each broker, by each delivery."""
    with deferring() as (http, delivery):
        table = canvases(signer(http))
        results = {
            name: http.defer_canvas(canvas, delivery=delivery)
            for name, (canvas, _) in table.items()
        }
    found = {name: result.get(timeout=TIMEOUT) for name, result in results.items()}
    assert found == {name: expected for name, (_, expected) in table.items()}


def test_ids_and_context(defer, system):
    """Each task runs once, under the id it had before the commit, with the context."""

    def build(s):
        after = s("add", 1).on_error(s("hear"))
        canvas = chain(
            s("add", 1, 2).set(link=s("hear")),
            group(s("add", 1), after),
            s("total").set(link=[s("double") | s("double")]),
        )
        return group(canvas, s("double", 4))

    result = defer(build)
    assert result.get(timeout=TIMEOUT) == [8, 8]
    # add, its link, two in the chord, its body, two linked to that; and one more.
    runs = system.web.runs(8)
    names = Counter(run["name"].removeprefix("canvasapp.") for run in runs)
    assert names == {"add": 3, "hear": 1, "total": 1, "double": 3}
    assert len({run["id"] for run in runs}) == 8
    assert {run["url"] for run in runs} == {URL}
    ids = {run["name"]: run["id"] for run in runs}
    last, other = result.results
    assert last.id == ids["canvasapp.total"]
    assert other.id in {run["id"] for run in runs}
    header = last.parent
    first = header.parent
    assert first.get(timeout=TIMEOUT) == 3
    assert [each.get(timeout=TIMEOUT) for each in header] == [4, 4]
    assert {first.id, *(each.id for each in header)} <= {run["id"] for run in runs}


def test_error_in_the_middle(defer, system):
    """What comes after an error does not run; a link_error gets the id or the error."""
    result = defer(
        lambda s: chain(
            s("add", 1, 2),
            s("fail").on_error(s("hear")).on_error(s("explain")),
            s("double").set(queue="no"),
        )
    )
    with pytest.raises(ValueError, match="as it should"):
        result.get(timeout=TIMEOUT)
    runs = {run["name"]: run for run in system.web.runs(4)}
    explained = runs.pop("explain")
    assert explained.pop("error") == "as it should"
    assert explained == {**runs["canvasapp.fail"], "name": "explain"}
    assert set(runs) == {f"canvasapp.{name}" for name in ("add", "fail", "hear")}
    assert {run["url"] for run in runs.values()} == {URL}
    said = system.web.result(runs["canvasapp.hear"]["id"])
    assert said == f"heard {runs['canvasapp.fail']['id']}"


def test_error_of_the_worker(defer, system):
    """A link_error knows the context, also if the worker calls it itself."""
    result = defer(lambda s: s("kill_worker").on_error(s("explain")))
    with pytest.raises(WorkerLostError):
        result.get(timeout=TIMEOUT)
    _, explained = system.web.runs(2)
    assert explained["id"] == result.id
    assert explained["url"] == URL


def test_error_in_a_chord(defer, system):
    """The body of a chord does not run when a task of it fails; its link_error does."""
    result = defer(
        lambda s: chord([s("double", 1), s("fail")], s("total").on_error(s("hear")))
    )
    with pytest.raises((ChordError, ValueError), match="as it should"):
        result.get(timeout=TIMEOUT)
    runs = system.web.runs(3)
    names = [f"canvasapp.{name}" for name in ("double", "fail", "hear")]
    assert sorted(run["name"] for run in runs) == names
    assert {run["url"] for run in runs} == {URL}


@pytest.mark.parametrize(
    ("task", "items", "expected"),
    [
        ("double", [], []),
        ("double", [(1,)], [2]),
        ("double", [(number,) for number in range(100)], [*range(0, 200, 2)]),
        ("add", [(1, 2), {"x": 3, "y": 4}, (5, 6)], [3, 7, 11]),
    ],
    ids=["none", "one", "many", "dictionary"],
)
def test_defer_tasks(deferring, system, task, items, expected):
    """Many calls of one task, from a generator, have their results in order."""
    with deferring() as (http, delivery):
        options = {"delivery": delivery, "expires": 60}
        result = http.defer_tasks(f"canvasapp.{task}", iter(items), **options)
    relay(system)  # what a web process could not send in the time it has
    assert result.get(timeout=TIMEOUT) == expected
    runs = system.web.runs(len(items))
    assert {run["id"] for run in runs} == {each.id for each in result}
    assert {run["url"] for run in runs} <= {URL}
