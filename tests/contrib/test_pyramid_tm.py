"""Transactions in tasks, and delivery by commit."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from celery import Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRequestFactory, ISecurityPolicy
from pyramid.request import Request
from pyramid.scripting import prepare

from pyramid_tasks import TaskDeliveryFailed
from pyramid_tasks.exceptions import BrokerUnavailable, ResultNotReady, TaskError

pytest.importorskip("pyramid_tm")
from transaction import TransactionManager

from pyramid_tasks.registry import get_tasks

INCLUDES = ["pyramid_tm", "pyramid_tasks.contrib.pyramid_tm"]


class Resource:
    """A resource that records what becomes of the transactions it joins."""

    def __init__(self):
        self.outcomes = []

    def join(self, request):
        self.transaction_manager = request.tm
        request.tm.get().join(self)

    def sortKey(self):  # noqa: N802
        return "resource"

    def tpc_begin(self, transaction): ...

    commit = tpc_vote = tpc_begin

    def tpc_finish(self, transaction):
        self.outcomes.append("committed")

    def abort(self, transaction):
        self.outcomes.append("aborted")

    tpc_abort = abort


@pytest.fixture
def resource():
    return Resource()


@pytest.fixture
def sent():
    return []


@pytest.fixture
def app(sent):
    """Return a function that gives a request of an application with transactions.

    What its task ``record`` is given is in the list ``sent``.
    """

    @contextmanager
    def app(work=None, includes=INCLUDES, options=None, **more):
        settings = {
            "celery.task_always_eager": True,
            "celery.task_eager_propagates": True,
            "tm.manager_hook": "pyramid_tm.explicit_manager",
        } | {key.replace("__", "."): value for key, value in more.items()}
        with Configurator(settings=settings) as config:
            for name in includes:
                config.include(name)
            config.register_task(lambda request, x: sent.append(x), name="record")
            if work:
                config.register_task(work, name="work", **(options or {}))
        with prepare(registry=config.registry) as env:
            yield env["request"]

    return app


def join(resource, ending=None):
    """Return a task that joins a resource and ends in some way."""

    def work(request):
        resource.join(request)
        if ending == "doom":
            request.tm.doom()
        elif ending == "unfinished":
            return (each for each in "ab")
        elif ending is not None:
            raise ending
        return request.environ["tm.active"], request.environ["tm.manager"] is request.tm

    return work


@pytest.mark.parametrize(
    "name", ["pyramid_tasks.contrib.pyramid_tm", "pyramid_tasks.transaction"]
)
def test_no_transaction_manager(configure, name):
    """Without one, the application does not start, whoever was to add it."""
    config = configure(**{"pyramid.includes": name})
    with pytest.raises(TaskError, match=r'no tm\. .* config\.include\("pyramid_tm"\)'):
        config.commit()
    for factory in lambda environ: None, type("R", (Request,), {"tm": None}):
        config = configure(**{"pyramid.includes": name})
        config.set_request_factory(factory)
        config.commit()
    config = configure(**{"pyramid.includes": name})
    config.add_request_method(lambda request: None, "tm")
    config.commit()
    with testing.testConfig(settings={"celery.broker_url": "memory://"}) as config:
        config.include(name)


@pytest.mark.parametrize("includes", [INCLUDES, INCLUDES[::-1]])
def test_task_runs_in_a_transaction(app, resource, includes):
    """A task commits, whichever of the two packages is included first."""
    with app(join(resource), includes) as request:
        assert request.defer_task("work").get() == (True, True)
    assert resource.outcomes == ["committed"]


@pytest.mark.parametrize(
    "ending",
    [
        *(ValueError("x"), Ignore(), Reject("x"), SoftTimeLimitExceeded()),
        *("doom", "unfinished"),
    ],
    ids=str,
)
def test_transaction_is_aborted(app, resource, ending):
    """Whatever else than a return ends a task, and a doom, aborts."""
    with app(join(resource, ending), celery__task_eager_propagates=False) as request:
        request.defer_task("work")
    assert resource.outcomes == ["aborted"]


def test_inbox_without_sqlalchemy(app, monkeypatch):
    """The error names the task, and what is to be installed."""
    monkeypatch.setitem(sys.modules, "pyramid_tasks.outbox.inbox", None)
    words = "'work' has an inbox, which needs SQLAlchemy: install pyramid-tasks.outbox"
    with (
        pytest.raises(ConfigurationError, match=words),
        app(lambda request: None, options={"inbox": True}),
    ):
        pass


def test_retry_aborts(app, resource):
    """What a task wrote before it retries is not committed."""

    def work(self, request):
        resource.join(request)
        if self.request.retries == 0:
            raise self.retry(countdown=0)

    settings = {"celery.task_eager_propagates": False}
    with app(work, options={"bind": True}, **settings) as request:
        request.defer_task("work")
    assert sorted(resource.outcomes) == ["aborted", "committed"]


@pytest.mark.parametrize(("annotate", "user"), [("true", "alice"), ("false", "")])
def test_user_is_noted_as_in_a_view(app, annotate, user):
    """tm.annotate_user puts the user, and the task, on the transaction."""
    policy = SimpleNamespace(authenticated_userid=lambda request: "alice")

    def work(request):
        transaction = request.tm.get()
        return transaction.user, transaction.description

    with app(work, tm__annotate_user=annotate) as request:
        request.registry.registerUtility(policy, ISecurityPolicy)
        assert tuple(request.defer_task("work").get()) == (user, "work")


def test_argument_of_any_name(app):
    """A parameter may have the name that the deriver gives to its own."""
    with app(lambda _, request: request) as request:
        found = request.defer_task_with_options("work", kwargs={"request": 1})
        assert found.get() == 1


class Alone(Task):
    """The class of tasks that have no transaction."""

    tm = False


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tm": False}, False),
        ({"base": Alone}, False),
        ({"base": Alone, "tm": True}, True),
    ],
)
def test_task_can_opt_out(app, options, expected):
    """A task with tm=False, of its own or of its class, begins no transaction."""
    work = lambda request: "tm.active" in request.environ  # noqa: E731
    with app(work, options=options) as request:
        assert request.defer_task("work").get() is expected


def test_annotation_cannot_opt_out(app):
    """An annotation that would take the transaction of a task is refused."""
    annotations = {"celery__task_annotations": {"work": {"tm": False}}}
    with app(lambda request: None, options={"tm": False}, **annotations):
        pass
    with (
        pytest.raises(ConfigurationError, match="'work' gets tm = False from task_ann"),
        app(lambda request: None, **annotations),
    ):
        pass


def test_test_harness_keeps_its_transaction(app, resource):
    """An environ with tm.active leaves the transaction to whoever set it."""
    manager = TransactionManager(explicit=True)

    def request_factory(environ):
        return Request(environ | {"tm.active": True, "tm.manager": manager})

    with manager, app(join(resource)) as request:
        request.registry.registerUtility(request_factory, IRequestFactory)
        request.defer_task_with_options("work", delivery="immediate")
        assert resource.outcomes == []
    assert resource.outcomes == ["committed"]


def test_deferred_task_is_sent_at_commit(app, sent):
    """A task is sent when its transaction commits, with the arguments of the moment.

    Where no transaction has begun, as in a script, it is sent at once.
    """
    with app() as request:
        request.defer_task("record", 1)
        assert sent == [1]
        with request.tm:
            argument = [1]
            result = request.defer_task("record", argument)
            argument.append(2)
            request.defer_task_with_options("record", [3], delivery="immediate")
            assert sent == [1, 3]
            assert result.ready() is False
            with pytest.raises(ResultNotReady, match="sent when the transaction comm"):
                result.get(timeout=1)
        assert sent == [1, 3, [1]]
        assert result.sent


def test_old_name_sends_at_once(app, sent, resource):
    """pyramid_tasks.transaction runs tasks in transactions and sends at once."""
    includes = ["pyramid_tm", "pyramid_tasks.transaction"]
    with app(join(resource), includes) as request, request.tm:
        request.defer_task("record", 1)
        assert sent == [1]
        request.defer_task("work")
        assert resource.outcomes == ["committed"]


def test_unreachable_broker_aborts_the_transaction(app, resource):
    """A broker that is down aborts before anything commits, with one clear error."""
    settings = {
        "celery.task_always_eager": False,
        "celery.broker_url": "redis://:secret@localhost:1/0",
        "pyramid_tasks.delivery_timeout": "0.5",
    }
    with app(**settings) as request:
        request.tm.begin()
        resource.join(request)
        request.defer_task("record", 1)
        with pytest.raises(BrokerUnavailable, match="localhost:1") as caught:
            request.tm.commit()
        request.tm.abort()
    assert "committed" not in resource.outcomes
    assert "secret" not in str(caught.value)


def test_failure_after_the_commit_is_reported(app, resource, caplog):
    """A task that cannot be sent after the commit is logged and notified of."""
    failures = []
    with app() as request, caplog.at_level(logging.ERROR), request.tm:
        request.registry.registerHandler(failures.append, (TaskDeliveryFailed,))
        record = get_tasks(request.registry).app.tasks["record"]
        record.apply_async = Mock(side_effect=OSError("no route"))
        resource.join(request)
        request.defer_task_with_options("record", [21], task_id="its-id")
    assert resource.outcomes == ["committed"]
    assert "its-id" in caplog.text
    assert "[21]" in caplog.text
    (failure,) = failures
    assert failure.options["task_id"] == "its-id"
    assert isinstance(failure.exception, OSError)


def test_deliveries(app):
    """Tools can list the deliveries; the error for an unknown one does."""
    with app(pyramid_tasks__delivery="outbox") as request:
        category = request.registry.introspector.get_category("task deliveries")
        found = [item["introspectable"] for item in category]
        defaults = {each["name"]: each["default"] for each in found}
        assert defaults == {"immediate": False, "commit": False, "outbox": True}
        assert all("pyramid_tasks" in each.action_info.file for each in found)
        said = "deliveries: commit, immediate, outbox"
        with pytest.raises(ConfigurationError, match=said):
            request.defer_task_with_options("record", [1], delivery="pigeon")
