"""The panel of the debug toolbar: what it shows, and what it must not."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import fields

import pytest
from celery import chain, chord, group
from kombu.exceptions import OperationalError
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp as WebTestApp

pytest.importorskip("pyramid_debugtoolbar")
pytest.importorskip("pyramid_tm")

from pyramid_tasks.contrib.debugtoolbar import recording, states
from pyramid_tasks.contrib.debugtoolbar.rows import Row, shortened
from pyramid_tasks.delivery.immediate import ImmediateDelivery
from pyramid_tasks.exceptions import TaskError
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import start_worker

IN_MEMORY = {
    "celery.broker_url": "memory://",
    "celery.result_backend": "cache+memory://",
}
COMMIT = "pyramid_tm pyramid_tasks.contrib.pyramid_tm"


def echo(request, *args, **kwargs):
    return request.current_task.request.id


def add_up(request, ids): ...


def forget(request): ...


class Site:
    """An application with the toolbar and one view."""

    def __init__(self, view, includes="pyramid_tasks", **settings):
        self.results = []

        def keep(request):
            self.results.append(view(request))
            return Response("<body></body>")

        includes = f"pyramid_debugtoolbar {includes}"
        settings = {
            **IN_MEMORY,
            "pyramid.includes": includes,
            "debugtoolbar.includes": "pyramid_tasks.contrib.debugtoolbar",
            "debugtoolbar.intercept_exc": False,
            **settings,
        }
        with Configurator(settings=settings) as config:
            config.register_task(echo, name="echo")
            config.register_task(add_up, name="add_up")
            config.register_task(forget, name="forget", ignore_result=True)
            config.add_route("view", "/")
            config.add_view(keep, route_name="view")
            app = config.make_wsgi_app()
        self.registry = app.registry
        self.testapp = WebTestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})

    def get(self, status=200):
        self.testapp.get("/", status=status)
        return self

    @property
    def panel(self):
        """The panel of the last request, as the toolbar keeps it."""
        (_, toolbar) = self.registry.pdtb_history.last(1)[0]
        return next(panel for panel in toolbar.panels if panel.name == "tasks")

    @property
    def rows(self):
        return self.panel.recorded.rows

    @property
    def url(self):
        return f"/_debug_toolbar/{self.registry.pdtb_history.last(1)[0][0]}"

    @property
    def page(self):
        """What the panel has on the page of the toolbar."""
        _, _, text = self.testapp.get(self.url).text.partition("Deferred Tasks</h3>")
        assert text
        return text.partition("</script>")[0]

    @property
    def states(self):
        return self.testapp.get(f"{self.url}/tasks").json


@pytest.fixture(params=["immediate", "commit"])
def includes(request):
    """What makes an application deliver in either way."""
    return "pyramid_tasks" if request.param == "immediate" else COMMIT


def test_row_of_a_task():
    """The panel shows the call, its id, where it goes, when, and what it knows."""

    def view(request):
        return request.defer_task_with_options(
            echo, ["<b>", 2], {"width": 640}, queue="slow", countdown=60, priority=3
        )

    site = Site(view, **{"pyramid_tasks.context": "locale"}).get()
    (row,) = site.rows
    assert (row.name, row.id) == ("echo", site.results[0].id)
    assert row.args == "'<b>', 2, width=640"
    assert (row.delivery, row.queue) == ("immediate", "slow")
    assert row.options == "countdown=60, priority=3"
    assert row.context == '{"locale": "en"}'
    page = site.page
    assert "&#39;&lt;b&gt;&#39;, 2, width=640" in page
    assert "<b>" not in page
    for text in (row.id, "slow", "countdown=60", "en"):
        assert text in page


def test_line_that_deferred():
    """The line is that of the application, in whatever function it is."""

    def helper(request):
        request.defer_task(echo)  # this line

    place = Site(helper).get().rows[0].place
    assert place.source == "request.defer_task(echo)  # this line"
    assert place.function.endswith("helper")
    assert re.fullmatch(r".*test_debugtoolbar\.py:\d+", place.path)
    assert re.fullmatch(r"\S*test_debugtoolbar\.py>?:\d+", place.line)


def test_all_ways_to_defer(includes):
    """Each method of the request is seen once, by the line that calls it."""

    def view(request):
        request.defer_task(echo)
        request.delay_task(echo)
        request.defer_task_with_options(echo)
        request.defer_tasks(echo, [(1,), (2,)])
        request.defer_canvas(request.task_signature(echo))

    site = Site(view, includes).get()
    sources = [row.place.source for row in site.rows]
    assert [re.search(r"request\.(\w+)", source)[1] for source in sources] == [
        *("defer_task", "delay_task", "defer_task_with_options"),
        *("defer_tasks", "defer_tasks", "defer_canvas"),
    ]
    assert site.panel.nav_subtitle == "6"


def test_queue():
    """The queue is that of the call or a route; also its routing key."""

    def view(request):
        request.defer_task(echo)
        request.defer_task(add_up, [])
        request.defer_task_with_options(echo, queue="slow", routing_key="key")

    route = {"add_up": {"queue": "sums"}}
    site = Site(view, **{"celery.task_routes": route}).get()
    queues = [row.queue for row in site.rows]
    assert queues == ["celery", "sums", "slow (key)"]


def test_nothing_deferred():
    """A request without tasks has an empty tab, as the other panels have."""
    site = Site(lambda request: None).get()
    assert not site.panel.has_content
    assert site.panel.nav_subtitle == ""
    assert site.panel.render_content(None) == "No tasks were deferred in this request."
    tab = 'class="disabled" id="pDebugPanel-tasks"'
    assert tab in site.testapp.get(site.url).text
    assert site.states == {"tasks": [], "problem": "", "done": True}


CANVASES = {
    "chain": lambda s: s("a") | s("b") | s("c"),
    "group": lambda s: group(s("a"), s("b")),
    "chord": lambda s: chord([s("a"), s("b")], s("c")),
    "chain with a group": lambda s: s("a") | group(s("b"), s("c")) | s("d"),
    "chain that ends in a group": lambda s: s("a") | group(s("b"), s("c")),
    "group of chains": lambda s: group(s("a") | s("b"), s("c") | s("d")),
    "chord of chains": lambda s: chord([s("a") | s("b"), s("c")], s("d") | s("e")),
    "chord in a chain": lambda s: chain(
        s("a"), chord([s("b"), s("c")], s("d")), s("e")
    ),
    "group in a group": lambda s: group(s("a"), group(s("b"), s("c"))),
    "group of groups in a chain": lambda s: (
        group(s("a"), s("b")) | group(s("c"), s("d")) | s("e")
    ),
}


@pytest.mark.parametrize("name", CANVASES)
def test_ids_of_a_canvas(name, includes):
    """Each task of a canvas has the id that it has in the worker."""

    def view(request):
        def signature(label):
            return request.task_signature(echo, label=label)

        return request.defer_canvas(CANVASES[name](signature))

    site = Site(view, includes)
    with start_worker(site.registry):
        site.get()
        site.results[0].get(timeout=30)
        found = get_tasks(site.registry).app.AsyncResult
        for row in site.rows:
            assert found(row.id).get(timeout=30) == row.id
    labels = [re.search(r"label='(.)'", row.args)[1] for row in site.rows]
    assert labels == list("abcde"[: len(labels)])


def test_ids_that_the_caller_chose(includes):
    """An id of one's own stays that of the result, whatever ends the canvas."""

    def view(request):
        s = request.task_signature
        ends = (s(echo), s(echo) | s(echo), group(s(echo)), s(echo) | group(s(echo)))
        return [
            request.defer_task_with_options(echo, task_id="0").id,
            *(
                request.defer_canvas(canvas, task_id=str(number)).id
                for number, canvas in enumerate(ends, 1)
            ),
        ]

    assert Site(view, includes).get().results == [["0", "1", "2", "3", "4"]]


def test_canvas_in_words():
    """A task says what it is part of, and the result of the task before is left out."""

    def view(request):
        s = request.task_signature
        request.defer_canvas(s(echo, 1) | s(echo, 2), queue="slow")
        request.defer_task_with_options(echo, [3], link=s(echo), link_error=s(add_up))

    rows = Site(view).get().rows
    assert [(row.part_of, row.args, row.queue) for row in rows] == [
        ("chain", "1", "slow"),
        ("chain", "\u2026, 2", ""),  # only Celery knows
        ("", "3", "celery"),
        ("callback", "\u2026", "celery"),
        ("callback", "\u2026", "celery"),
    ]
    assert [bool(row.id) for row in rows] == [True, True, True, False, False]


def end(request):
    match request.params["end"]:
        case "abort":
            request.tm.abort()
        case "doom":
            request.tm.doom()
        case "error":
            raise ValueError("broken")


@pytest.mark.parametrize("how", ["abort", "doom", "error"])
def test_transaction_that_aborts(how):
    """What waited for a commit is shown as not sent; what did not wait is not."""

    def view(request):
        signature = request.task_signature
        request.defer_task(echo)
        request.defer_canvas(signature(echo) | signature(echo))
        request.defer_tasks(echo, [(1,), (2,)])
        request.defer_task_with_options(echo, link=signature(echo))
        request.defer_task_with_options(echo, delivery="immediate")
        end(request)

    site = Site(view, COMMIT, **{"debugtoolbar.intercept_exc": True})
    site.testapp.get("/", {"end": how}, status="*")
    found = [(row.delivery, row.state) for row in site.rows]
    assert found == [("commit", "not sent")] * 7 + [("immediate", "")]
    assert site.panel.nav_subtitle_style == "progress-bar-danger"
    states = [task["state"] for task in site.states["tasks"]]
    assert states == ["not sent"] * 7 + ["PENDING"]


def test_transaction_that_ends_in_an_error_which_nobody_shows():
    """What was not sent is known, also where the toolbar leaves errors alone."""

    def view(request):
        request.defer_task(echo)
        raise ValueError("broken")

    site = Site(view, COMMIT)
    with pytest.raises(ValueError, match="broken"):
        site.get()
    assert site.rows[0].state == "not sent"


def test_savepoint():
    """What is rolled back is not sent; the rest is."""

    def view(request):
        request.defer_task(echo, 1)
        savepoint = request.tm.savepoint()
        request.defer_task(echo, 2)
        savepoint.rollback()

    rows = Site(view, COMMIT).get().rows
    assert [row.state for row in rows] == ["", "not sent"]


@pytest.mark.parametrize(("error", "state"), [(None, "PENDING"), (OSError, "not sent")])
def test_outbox(tmp_path, error, state):
    """What is delivered by outbox is shown like the rest, committed or not."""
    zope_sqlalchemy = pytest.importorskip("zope.sqlalchemy")
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from pyramid_tasks.outbox.table import metadata

    def view(request):
        request.dbsession = Session(engine)
        zope_sqlalchemy.register(request.dbsession, transaction_manager=request.tm)
        request.defer_task(echo, 1)
        request.defer_tasks(echo, [(2,)])
        if error:
            raise error

    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    metadata.create_all(engine)
    settings = {"pyramid_tasks.delivery": "outbox", "debugtoolbar.intercept_exc": True}
    site = Site(view, COMMIT, **settings)
    site.testapp.get("/", status="*")
    assert [row.delivery for row in site.rows] == ["outbox"] * 2
    assert [task["state"] for task in site.states["tasks"]] == [state] * 2
    engine.dispose()


def test_outside_of_a_transaction():
    """Where no transaction has begun, tasks are sent at once, and the panel says so."""

    def view(request):
        request.defer_task(echo)
        request.defer_canvas(group(request.task_signature(echo)))

    settings = {"tm.activate_hook": lambda request: False}
    rows = Site(view, COMMIT, **settings).get().rows
    assert [(row.delivery, row.state) for row in rows] == [("immediate", "")] * 2


def test_broker_that_is_down(monkeypatch):
    """A task that could not be sent is shown, with the kind of the error."""

    def refuse(*_, **__):
        raise OperationalError("redis://user:secret@host")

    monkeypatch.setattr(ImmediateDelivery, "deliver", refuse)
    settings = {"debugtoolbar.intercept_exc": True}
    site = Site(lambda request: request.defer_task(echo), **settings).get(500)
    assert site.states["tasks"] == [
        {"state": "sending failed", "result": "OperationalError"}
    ]
    assert site.states["done"]
    assert "secret" not in site.page


def test_response_callback():
    """What a response callback defers, after the toolbar, is shown as well."""

    def view(request):
        request.add_response_callback(
            lambda request, response: request.defer_task(echo)
        )

    site = Site(view, COMMIT).get()
    assert [row.name for row in site.rows] == ["echo"]
    assert site.panel.has_content


def test_eager_tasks(includes):
    """A task that ran in the view has its state and result at once."""

    def view(request):
        return request.defer_task_with_options(echo, delivery="immediate")

    site = Site(view, includes, **{"celery.task_always_eager": True}).get()
    id_ = site.results[0].id
    assert site.states == {
        "tasks": [{"state": "SUCCESS", "result": f"'{id_}'"}],
        "problem": "",
        "done": True,
    }


def test_many_tasks():
    """All tasks are counted, and the first hundred shown."""

    def view(request):
        request.defer_tasks(echo, ((number,) for number in range(150)))
        request.defer_canvas(group(request.task_signature(echo) for _ in range(60)))

    site = Site(view).get()
    assert len(site.rows) == recording.MAX_ROWS
    assert site.panel.nav_subtitle == "210"
    assert "And 110 more." in site.page


def test_kept_is_text_only():
    """The toolbar's history has no argument, no result and no request in it."""

    def view(request):
        request.defer_task(echo, {"a": [1]})
        request.defer_canvas(group(request.task_signature(echo)))

    site = Site(view, COMMIT).get()
    recorded = site.panel.recorded
    assert recorded._unsettled is None
    assert vars(site.panel).keys() == {"recorded", "is_active"}
    for row in recorded.rows:
        for field in fields(Row):
            value = getattr(row, field.name)
            texts = [value] if field.name != "place" else vars(value).values()
            assert all(type(text) is str for text in texts)


class Loud:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, ["x" * 1000] * 1000, {"a": {"b": list(range(10_000))}}, Loud()],
    ids=["text", "list", "nested", "without repr"],
)
def test_values_are_shortened(value):
    """The repr of a value is short, and that it has none is no error."""
    assert 0 < len(shortened(value)) <= 500


def test_integer_of_too_many_digits():
    """What Python refuses to write out is named by its type."""
    assert shortened(10**10_000) == "<int>"


def test_many_arguments():
    """A call of many arguments is cut."""

    def view(request):
        request.defer_task(echo, *range(10_000))
        request.defer_task(echo, **{f"name{number}": 1 for number in range(1000)})

    for row in Site(view).get().rows:
        assert len(row.args) <= 500
        assert row.args.endswith("...")


def test_arguments_that_celery_is_to_hide():
    """``argsrepr`` and ``kwargsrepr`` hide here what they hide in Celery's logs."""

    def view(request):
        request.defer_task_with_options(
            *(echo, ["secret"], {"password": "secret"}),
            argsrepr="(...)",
            kwargsrepr="{...}",
        )

    page = Site(view).get().page
    assert "(...), {...}" in page
    assert "secret" not in page


def test_states():
    """States and results come from the result backend, as they come."""

    def view(request):
        request.defer_task(echo)
        request.defer_task(forget)

    site = Site(view)
    with start_worker(site.registry):
        site.get()
        id_ = site.rows[0].id
        get_tasks(site.registry).app.AsyncResult(id_).get(timeout=30)
        assert site.states == {
            "tasks": [
                {"state": "SUCCESS", "result": f"'{id_}'"},
                {"state": "result not kept", "result": ""},
            ],
            "problem": "",
            "done": True,
        }


@pytest.mark.parametrize(
    ("state", "result", "shown", "is_final"),
    [
        ("PENDING", None, "", False),
        ("PROGRESS", {"done": 3}, "{'done': 3}", False),
        ("RETRY", OSError("later"), "OSError('later')", False),
        ("FAILURE", ValueError("<b>"), "ValueError('<b>')", True),
        ("SUCCESS", None, "None", True),
        ("SUCCESS", "x" * 10_000, shortened("x" * 10_000), True),
    ],
)
def test_state(state, result, shown, is_final):
    """Each state is shown with what Celery keeps with it, and asked for until final."""
    site = Site(lambda request: request.defer_task(echo)).get()
    backend = get_tasks(site.registry).app.backend
    if state != "PENDING":
        backend.store_result(site.rows[0].id, result, state)
    answer = site.states
    assert answer["done"] is is_final
    assert answer["tasks"] == [{"state": state, "result": shown}]
    backend.store_result(site.rows[0].id, "again", "SUCCESS")
    again = {"state": "SUCCESS", "result": "'again'"}
    assert site.states["tasks"] == (answer["tasks"] if is_final else [again])


def test_states_are_those_of_one_request():
    """The view answers for the tasks of a request in the history, and no others."""
    site = Site(lambda request: request.defer_task(echo)).get()
    first = site.url
    site.get()
    assert len(site.testapp.get(f"{first}/tasks").json["tasks"]) == 1
    task_id = site.rows[0].id
    for unknown in ("0", task_id):
        site.testapp.get(f"/_debug_toolbar/{unknown}/tasks", status=400)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"celery.result_backend": "disabled://"}, "No result backend"),
        ({"celery.result_backend": "rpc://"}, "rpc://"),
        ({"celery.task_always_eager": True}, "eagerly"),
    ],
)
def test_states_that_nobody_knows(settings, problem):
    """The page says why there is no state, and does not ask again."""

    def view(request):
        return request.defer_task(echo)

    answer = Site(view, COMMIT, **settings).get().states
    assert answer["done"]
    assert problem in answer["problem"]
    assert answer["tasks"] == [{"state": "", "result": ""}]


def test_result_backend_that_is_down(monkeypatch):
    """The page says so, without the URL, and asks again."""
    site = Site(lambda request: request.defer_task(echo))
    site.get()
    url = "redis://:secret@localhost:1/0"
    monkeypatch.setattr(get_tasks(site.registry).app.conf, "result_backend", url)
    answer = site.states
    assert not answer["done"]
    assert answer["problem"] == "The result backend cannot be read: ConnectionError."
    assert "secret" not in site.page


def test_result_backend_that_does_not_answer(monkeypatch):
    """The page waits a limited time, and one thread at most waits longer."""
    monkeypatch.setattr(states, "TIMEOUT", 0.05)
    site = Site(lambda request: request.defer_task(echo)).get()
    with socket.create_server(("localhost", 0)) as server:  # which accepts nothing
        url = f"redis://localhost:{server.getsockname()[1]}/0"
        monkeypatch.setattr(get_tasks(site.registry).app.conf, "result_backend", url)
        before = threading.active_count()
        for _ in range(3):
            answer = site.states
            assert not answer["done"]
            assert "not answered within" in answer["problem"]
        assert threading.active_count() <= before + 1


def test_application_without_tasks():
    """An application that does not include the package is told to."""
    settings = {
        "pyramid.includes": "pyramid_debugtoolbar",
        "debugtoolbar.includes": "pyramid_tasks.contrib.debugtoolbar",
    }
    config = Configurator(settings=settings)
    with pytest.raises(TaskError, match="does not include pyramid_tasks"):
        config.make_wsgi_app()


def test_process_without_the_panel():
    """Without the panel, deliveries are what they are; the toolbar may be there."""
    includes = {"debugtoolbar.includes": ""}
    site = Site(lambda request: None, COMMIT, **includes)
    for delivery in get_tasks(site.registry).deliveries.values():
        assert not isinstance(delivery, recording.RecordingDelivery)


def test_request_that_the_toolbar_does_not_see():
    """A request without the toolbar defers as it would without the panel."""
    site = Site(lambda request: request.defer_task(echo))
    site.testapp.get("/", extra_environ={"REMOTE_ADDR": "192.0.2.1"})
    assert site.results[0].id
    assert not site.registry.pdtb_history
