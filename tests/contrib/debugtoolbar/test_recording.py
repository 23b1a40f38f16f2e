"""The tasks that the panel of the debug toolbar shows."""

from __future__ import annotations

import re
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
from celery import chain, chord, group
from kombu.exceptions import EncodeError, OperationalError
from pyramid.config import Configurator

from pyramid_tasks.contrib.debugtoolbar.recording import MAX_ROWS, RecordingDelivery
from pyramid_tasks.contrib.debugtoolbar.rows import shortened
from pyramid_tasks.delivery.immediate import ImmediateDelivery
from pyramid_tasks.exceptions import TaskError
from pyramid_tasks.registry import get_tasks
from pyramid_tasks.testing import start_worker


def defer(request):
    return request.defer_task("echo")


def deliveries(site):
    return [(row.delivery, row.state) for row in site.rows]


def test_row_of_a_task(make_site):
    """The panel shows the call, its id, where it goes, when, and what it knows."""

    def view(request):
        return request.defer_task_with_options(
            "echo", ["<b>", 2], {"width": 640}, queue="slow", countdown=60, priority=3
        )

    site = make_site(view, pyramid_tasks__context="locale").get()
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
    assert site.panel.nav_subtitle_style == ""


def test_line_that_deferred(make_site):
    """The line is one of the application, in whatever function it is."""

    def helper(request):
        request.defer_task("echo")  # this line

    place = make_site(helper).get().rows[0].place
    assert place.source == 'request.defer_task("echo")  # this line'
    assert place.function.endswith("helper")
    assert re.fullmatch(r".*test_recording\.py:\d+", place.path)
    folders = __name__.replace(".", "/")
    assert re.fullmatch(rf"{folders}\.py:\d+", place.line)


def test_all_ways_to_defer(make_site, delivery):
    """Each method of the request is seen once, by the line that calls it."""

    def view(request):
        request.defer_task("echo")
        request.delay_task("echo")
        request.defer_task_with_options("echo")
        request.defer_tasks("echo", [(1,), (2,)])
        request.defer_canvas(request.task_signature("echo"))

    site = make_site(view, delivery).get()
    sources = [row.place.source for row in site.rows]
    assert [re.search(r"request\.(\w+)", source)[1] for source in sources] == [
        *("defer_task", "delay_task", "defer_task_with_options"),
        *("defer_tasks", "defer_tasks", "defer_canvas"),
    ]
    assert site.panel.nav_subtitle == "6"


def test_queue(make_site):
    """The queue is that of the call or of a route; also its routing key."""

    def view(request):
        request.defer_task("echo")
        request.defer_task("add_up", [])
        request.defer_task_with_options("echo", queue="slow", routing_key="key")

    route = {"add_up": {"queue": "sums"}}
    rows = make_site(view, celery__task_routes=route).get().rows
    assert [row.queue for row in rows] == ["celery", "sums", "slow (key)"]


def test_router_by_arguments(make_site):
    """A router sees the arguments that the task was called with."""

    def route(name, args, kwargs, options, task=None):
        return {"queue": f"{args[0]}-{kwargs['width']}"}

    def view(request):
        request.defer_task("echo", "large", width=640)

    (row,) = make_site(view, celery__task_routes=[route]).get().rows
    assert row.queue == "large-640"


def test_router_that_fails(make_site):
    """An error of a router is the application's, and not of the panel's making."""
    route = Mock(side_effect=LookupError)
    (row,) = make_site(defer, "commit", celery__task_routes=[route]).get().rows
    assert (row.name, row.queue) == ("echo", "")


def test_nothing_deferred(make_site):
    """A request without tasks has an empty tab, as the other panels have."""
    site = make_site(lambda request: None).get()
    assert site.panel.nav_subtitle == ""
    tab = 'class="disabled" id="pDebugPanel-tasks"'
    assert tab in site.testapp.get(site.url).text
    assert site.states == {"tasks": [], "problem": "", "done": True}


CANVASES = {
    "chain": lambda a, b, c, d, e: a | b | c,
    "group": lambda a, b, c, d, e: group(a, b),
    "chord": lambda a, b, c, d, e: chord([a, b], c),
    "chain with a group": lambda a, b, c, d, e: a | group(b, c) | d,
    "chain that ends in a group": lambda a, b, c, d, e: a | group(b, c),
    "group of chains": lambda a, b, c, d, e: group(a | b, c | d),
    "chord of chains": lambda a, b, c, d, e: chord([a | b, c], d | e),
    "chord in a chain": lambda a, b, c, d, e: chain(a, chord([b, c], d), e),
    "group in a group": lambda a, b, c, d, e: group(a, group(b, c)),
    "group of groups in a chain": lambda a, b, c, d, e: group(a, b) | group(c, d) | e,
}


def test_ids_of_a_canvas(make_site, delivery):
    """Each task of a canvas has the id that it has in the worker."""

    def view(request):
        tasks = [request.task_signature("echo", label=label) for label in "abcde"]
        return request.defer_canvas(CANVASES[request.params["name"]](*tasks))

    site = make_site(view, delivery)
    with start_worker(site.registry):
        for name in CANVASES:
            site.get(name=name)
            site.results[-1].get(timeout=30)
            for row in site.rows:
                result = site.celery.AsyncResult(row.id)
                assert result.get(timeout=30) == row.id, name
            labels = [re.search(r"label='(.)'", row.args)[1] for row in site.rows]
            assert labels == list("abcde"[: len(labels)]), name


def test_ids_that_the_caller_chose(make_site, delivery):
    """An id of one's own stays that of the result, whatever ends the canvas."""

    def view(request):
        s = request.task_signature("echo")
        canvases = {"a": s, "b": s | s, "c": group(s), "d": s | group(s)}
        ids = [request.defer_canvas(canvases[id_], task_id=id_).id for id_ in canvases]
        return [*ids, request.defer_task_with_options("echo", task_id="e").id]

    assert make_site(view, delivery).get().results == [list("abcde")]


def test_canvas_in_words(make_site):
    """A task says what it is part of, and the result of the task before is left out."""

    def view(request):
        s = request.task_signature
        request.defer_canvas(s("echo", 1) | s("echo", 2), queue="slow")
        request.defer_task_with_options(
            "echo", [3], link=s("echo"), link_error=s("add_up")
        )

    rows = make_site(view).get().rows
    assert [(row.part_of, row.args, row.queue) for row in rows] == [
        ("chain", "1", "slow"),
        ("chain", "\u2026, 2", ""),  # only Celery knows
        ("", "3", "celery"),
        ("callback", "\u2026", "celery"),
        ("callback", "\u2026", "celery"),
    ]
    assert [bool(row.id) for row in rows] == [True, True, True, False, False]


@pytest.mark.parametrize("how", ["abort", "doom", "error", "error of the toolbar"])
def test_transaction_that_aborts(make_site, how):
    """What waited for a commit is shown as not sent; what did not wait is not."""

    def view(request):
        signature = request.task_signature
        request.defer_task("echo")
        request.defer_canvas(signature("echo") | signature("echo"))
        request.defer_tasks("echo", [(1,), (2,)])
        request.defer_task_with_options("echo", link=signature("echo"))
        request.defer_task_with_options("echo", delivery="immediate")
        if "error" in how:
            raise ValueError(how)
        getattr(request.tm, how)()

    site = make_site(view, "commit", debugtoolbar__intercept_exc=how == "error")
    is_raised = how == "error of the toolbar"  # which leaves it to the server
    with pytest.raises(ValueError, match=how) if is_raised else nullcontext():
        site.get()
    assert deliveries(site) == [("commit", "not sent")] * 7 + [("immediate", "")]
    assert site.panel.nav_subtitle_style == "progress-bar-danger"
    states = [task["state"] for task in site.states["tasks"]]
    assert states == ["not sent"] * 7 + ["PENDING"]


def test_savepoint(make_site):
    """What is rolled back is not sent; the rest is."""

    def view(request):
        request.defer_task("echo", 1)
        savepoint = request.tm.savepoint()
        request.defer_task("echo", 2)
        savepoint.rollback()

    site = make_site(view, "commit").get()
    assert deliveries(site) == [("commit", ""), ("commit", "not sent")]


def test_outside_of_a_transaction(make_site):
    """Where no transaction has begun, tasks are sent at once, and the panel says so."""

    def view(request):
        request.defer_task("echo")
        request.defer_canvas(group(request.task_signature("echo")))

    site = make_site(view, "commit", tm__activate_hook=lambda request: False).get()
    assert deliveries(site) == [("immediate", "")] * 2


def test_broker_that_is_down(make_site, monkeypatch):
    """A task that could not be sent is shown, with the kind of the error raised."""
    refuse = Mock(side_effect=OperationalError("redis://user:secret@host"))
    monkeypatch.setattr(ImmediateDelivery, "deliver", refuse)

    def view(request):
        with pytest.raises(OperationalError, match="secret"):
            defer(request)

    site = make_site(view).get()
    assert site.results == [None]
    task = {"state": "sending failed", "result": "OperationalError"}
    assert site.states["tasks"] == [task]
    assert site.states["done"]
    assert "secret" not in site.page


def test_response_callback(make_site):
    """What a response callback defers, after the toolbar, is shown as well."""

    def view(request):
        request.add_response_callback(lambda request, response: defer(request))

    site = make_site(view, "commit").get()
    assert [row.name for row in site.rows] == ["echo"]
    assert site.panel.has_content


def test_many_tasks(make_site):
    """All tasks are counted, and the first hundred shown."""

    def view(request):
        request.defer_tasks("echo", ((number,) for number in range(150)))
        request.defer_canvas(group(request.task_signature("echo") for _ in range(60)))

    site = make_site(view).get()
    assert len(site.rows) == MAX_ROWS
    assert site.panel.nav_subtitle == "210"
    assert "And 110 more." in site.page


def test_kept_is_text_only(make_site):
    """The toolbar's history has no argument, no result and no request in it."""

    def view(request):
        request.defer_task("echo", {"a": [1]})
        request.defer_canvas(group(request.task_signature("echo")))

    panel = make_site(view, "commit").get().panel
    assert panel.recorded._expected is None
    assert vars(panel).keys() == {"recorded", "request_id", "is_active"}
    for row in panel.recorded.rows:
        texts = [*vars(row.place).values()]
        texts += [value for name, value in vars(row).items() if name != "place"]
        assert {type(text) for text in texts} == {str}


class Loud:
    def __repr__(self):
        raise RuntimeError("no repr")


def test_values_are_shortened():
    """The repr of a value is short, and that it has none is no error."""
    long = "x" * 1000
    for value in long, [long] * 1000, {"a": {"b": list(range(10_000))}}, Loud():
        assert 0 < len(shortened(value)) <= 500
    assert shortened(10**10_000) == "<int>"  # Python refuses to write it out


def test_many_arguments(make_site):
    """A call of many arguments is cut after the twentieth."""

    def view(request):
        request.defer_task("echo", *range(20))
        request.defer_task("echo", *range(21))
        request.defer_task("echo", *["x" * 100] * 20)
        request.defer_task("echo", **{f"name{number}": 1 for number in range(1000)})

    whole, *cut = [row.args for row in make_site(view).get().rows]
    assert whole == ", ".join(map(str, range(20)))
    for args in cut:
        assert len(args) <= 500
        assert args.endswith("...")
    assert cut[0] == f"{whole}, ..."


def test_arguments_that_celery_hides(make_site):
    """``argsrepr`` and ``kwargsrepr`` hide here what they hide in Celery's logs."""
    call = ("echo", ["secret"], {"password": "secret"})
    hidden = {"argsrepr": "(...)", "kwargsrepr": "{...}"}

    def view(request):
        request.defer_task_with_options(*call, **hidden)

    page = make_site(view).get().page
    assert "(...), {...}" in page
    assert "secret" not in page


def test_application_without_tasks():
    """An application that does not include the package is told to."""
    settings = {"debugtoolbar.includes": "pyramid_tasks.contrib.debugtoolbar"}
    config = Configurator(settings=settings)
    config.include("pyramid_debugtoolbar")
    with pytest.raises(TaskError, match="does not include pyramid_tasks"):
        config.make_wsgi_app()


def test_process_without_the_panel(make_site):
    """Without the panel, deliveries are what they are; the toolbar may be there."""
    site = make_site(defer, "commit", debugtoolbar__includes="")
    for delivery in get_tasks(site.registry).deliveries.values():
        assert not isinstance(delivery, RecordingDelivery)


def test_request_that_the_toolbar_does_not_see(make_site):
    """A request without the toolbar defers as it would without the panel."""

    def view(request):
        canvas = request.task_signature("echo")
        return defer(request), request.defer_canvas(canvas)

    def unsendable(request):
        with pytest.raises(EncodeError):
            request.defer_task("echo", object())

    environ = {"REMOTE_ADDR": "192.0.2.1"}
    make_site(unsendable).testapp.get("/", extra_environ=environ)
    site = make_site(view)
    site.testapp.get("/", extra_environ=environ)
    assert all(result.id for result in site.results[0])
    assert not site.registry.pdtb_history
