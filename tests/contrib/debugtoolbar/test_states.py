"""The states of tasks in the panel, as the page asks for them."""

from __future__ import annotations

import socket
import threading
from operator import methodcaller
from unittest.mock import Mock

import pytest

from pyramid_tasks.contrib.debugtoolbar import states
from pyramid_tasks.contrib.debugtoolbar.rows import shortened


def defer(request):
    return request.defer_task("echo")


LONG = "x" * 10_000
FAILED = {"traceback": 'Traceback:\n  File "myapp.py", line 7\nValueError: <b>no</b>'}


@pytest.mark.parametrize(
    ("state", "result", "shown", "is_final", "more"),
    [
        ("PENDING", None, "", False, {}),
        ("PROGRESS", {"done": 3}, "{'done': 3}", False, {}),
        ("RETRY", OSError("later"), "OSError('later')", False, {}),
        ("FAILURE", ValueError("<b>"), "ValueError('<b>')", True, {}),
        ("FAILURE", ValueError(), "ValueError: <b>no</b>", True, FAILED),
        ("SUCCESS", None, "None", True, {}),
        ("SUCCESS", LONG, shortened(LONG), True, {}),
    ],
)
def test_state(make_site, state, result, shown, is_final, more):
    """Each state is shown with its result, and asked for until it is final.

    A failed task has the last line of its traceback, and all of it to unfold.
    """
    site = make_site(defer).get()
    backend = site.celery.backend
    if state != "PENDING":
        backend.store_result(site.rows[0].id, result, state, **more)
    task = {"state": state, "result": shown, **more}
    assert site.states == {"tasks": [task], "problem": "", "done": is_final}
    backend.store_result(site.rows[0].id, "again", "SUCCESS")
    again = {"state": "SUCCESS", "result": "'again'"}
    assert site.states["tasks"] == [task if is_final else again]


def test_result_that_is_not_kept(make_site):
    """A task whose result is ignored is not asked for, unless its errors are kept."""

    def view(request):
        request.defer_task("add_up", [])
        request.defer_task_with_options("echo", ignore_result=True)
        request.defer_task_with_options("add_up", [[]], ignore_result=False)
        request.defer_task("echo")

    site = make_site(view)
    states = [task["state"] for task in site.get().states["tasks"]]
    assert states == ["result not kept"] * 2 + ["PENDING"] * 2
    site.celery.tasks["add_up"].store_errors_even_if_ignored = True
    assert site.get().states["tasks"][0]["state"] == "PENDING"


def test_eager_tasks(make_site, delivery):
    """A task that ran in the view has its state and result at once."""
    view = methodcaller("defer_task_with_options", "echo", delivery="immediate")
    site = make_site(view, delivery, celery__task_always_eager=True).get()
    task = {"state": "SUCCESS", "result": f"'{site.results[0].id}'"}
    assert site.states == {"tasks": [task], "problem": "", "done": True}


def test_states_are_those_of_one_request(make_site):
    """The view answers for the tasks of a request in the history, and no others.

    The page without a request in its address asks for the states of the last one.
    """
    site = make_site(defer).get()
    first = site.url
    site.get()
    assert f'{site.url}/tasks"' in site.testapp.get("/_debug_toolbar/").text
    answer = site.testapp.get(f"{first}/tasks")
    assert len(answer.json["tasks"]) == 1
    assert "max-age=0" in answer.headers["Cache-Control"]
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
def test_states_that_nobody_knows(make_site, settings, problem):
    """The page says why there is no state, and does not ask again."""
    answer = make_site(defer, "commit", **settings).get().states
    assert answer["done"]
    assert problem in answer["problem"]
    assert answer["tasks"] == [{"state": "", "result": ""}]


def test_result_backend_that_is_down(make_site):
    """The page says so, without the URL, and asks again."""
    site = make_site(defer).get()
    site.celery.conf.result_backend = "redis://:secret@localhost:1/0"
    answer = site.states
    assert not answer["done"]
    assert answer["problem"] == "The result backend cannot be read: ConnectionError."
    assert "secret" not in site.page


def test_no_more_threads(make_site, monkeypatch):
    """The page says that nothing can ask, and asks again when something can."""
    site = make_site(defer).get()
    with monkeypatch.context() as patch:
        error = RuntimeError("can't start new thread")
        thread = Mock(**{"return_value.start.side_effect": error})
        patch.setattr(states, "Thread", thread)
        answer = site.states
    said = "The result backend cannot be asked: can't start new thread."
    assert (answer["problem"], answer["done"]) == (said, False)
    assert site.states["problem"] == ""


def test_result_backend_that_does_not_answer(make_site, monkeypatch):
    """The page waits a limited time, and one thread at most waits longer."""
    assert states.TIMEOUT == 2  # as docs/howto/debugtoolbar.md says
    monkeypatch.setattr(states, "TIMEOUT", 0.05)
    site = make_site(defer).get()
    with socket.create_server(("localhost", 0)) as server:  # which accepts nothing
        port = server.getsockname()[1]
        site.celery.conf.result_backend = f"redis://localhost:{port}/0"
        before = threading.active_count()
        for _ in range(3):
            answer = site.states
            assert not answer["done"]
            assert "not answered within" in answer["problem"]
        assert threading.active_count() <= before + 1
        assert threading.enumerate()[-1].daemon  # the process can end meanwhile
