"""Transactions in tasks, and delivery by commit."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import pytest
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRequestFactory, ISecurityPolicy
from pyramid.request import Request
from pyramid.scripting import prepare
from support import unique

from pyramid_tasks import TaskDeliveryFailed
from pyramid_tasks.exceptions import BrokerUnavailable, ResultNotReady

pytest.importorskip("pyramid_tm")
from transaction import TransactionManager

from pyramid_tasks.registry import get_tasks


class Resource:
    """A resource that records what becomes of the transactions it joins."""

    def __init__(self):
        self.outcomes = []

    def join(self, request):
        self.transaction_manager = request.tm
        request.tm.get().join(self)

    def sortKey(self):  # noqa: N802
        return "resource"

    def tpc_begin(self, transaction):
        pass

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
def app():
    """Return a function that makes a registry with transactions in tasks."""

    def app(*tasks, include="pyramid_tasks.contrib.pyramid_tm", order="after", **more):
        settings = {
            "celery.task_always_eager": True,
            "celery.task_eager_propagates": True,
            "tm.manager_hook": "pyramid_tm.explicit_manager",
        } | {key.replace("__", "."): value for key, value in more.items()}
        includes = ["pyramid_tm", include]
        with Configurator(settings=settings) as config:
            for name in includes if order == "after" else reversed(includes):
                config.include(name)
            for task, options in tasks:
                config.register_task(task, **options)
        return config.registry

    return app


@contextmanager
def request_of(registry):
    with prepare(registry=registry) as env:
        yield env["request"]


def join(resource, ending=None):
    """Return a task that joins a resource and ends in some way."""

    def work(request):
        resource.join(request)
        if ending == "doom":
            request.tm.doom()
        elif ending is not None:
            raise ending
        return request.environ["tm.active"], request.environ["tm.manager"] is request.tm

    return work, {"name": "work"}


@pytest.mark.parametrize("order", ["before", "after"])
def test_task_runs_in_a_transaction(app, resource, order):
    """A task commits, whichever of the two packages is included first."""
    with request_of(app(join(resource), order=order)) as request:
        assert request.defer_task("work").get() == (True, True)
    assert resource.outcomes == ["committed"]


@pytest.mark.parametrize(
    "ending",
    [ValueError("x"), Ignore(), Reject("x"), SoftTimeLimitExceeded(), "doom"],
    ids=str,
)
def test_transaction_is_aborted(app, resource, ending):
    """Whatever else than a return ends a task, and a doom, aborts."""
    registry = app(join(resource, ending), celery__task_eager_propagates=False)
    with request_of(registry) as request:
        request.defer_task("work")
    assert resource.outcomes == ["aborted"]


def test_retry_aborts(app, resource):
    """What a task wrote before it retries is not committed."""

    def work(self, request):
        resource.join(request)
        if self.request.retries == 0:
            raise self.retry(countdown=0)

    registry = app(
        (work, {"name": "work", "bind": True}), celery__task_eager_propagates=False
    )
    with request_of(registry) as request:
        request.defer_task("work")
    assert sorted(resource.outcomes) == ["aborted", "committed"]


@pytest.mark.parametrize(("annotate", "user"), [("true", "alice"), ("false", "")])
def test_user_is_noted_as_in_a_view(app, annotate, user):
    """tm.annotate_user puts the user, and the task, on the transaction."""

    class Policy:
        def authenticated_userid(self, request):
            return "alice"

    def work(request):
        transaction = request.tm.get()
        return transaction.user, transaction.description

    registry = app((work, {"name": "work"}), tm__annotate_user=annotate)
    registry.registerUtility(Policy(), ISecurityPolicy)
    with request_of(registry) as request:
        assert tuple(request.defer_task("work").get()) == (user, "work")


def test_task_can_opt_out(app):
    """A task with tm=False begins no transaction."""

    def work(request):
        return "tm.active" in request.environ

    with request_of(app((work, {"name": "work", "tm": False}))) as request:
        assert request.defer_task("work").get() is False


def test_test_harness_keeps_its_transaction(app, resource):
    """An environ with tm.active leaves the transaction to whoever set it."""
    manager = TransactionManager(explicit=True)

    class HarnessRequest(Request):
        def __init__(self, environ):
            super().__init__(environ | {"tm.active": True, "tm.manager": manager})

    registry = app(join(resource))
    registry.registerUtility(HarnessRequest, IRequestFactory)
    with manager, request_of(registry) as request:
        request.defer_task_with_options("work", delivery="immediate")
        assert resource.outcomes == []
    assert resource.outcomes == ["committed"]


@pytest.fixture
def sent():
    return []


def recorder(sent):
    def record(request, x):
        sent.append(x)

    return record, {"name": "record"}


def test_deferred_task_is_sent_at_commit(app, sent):
    """A task is sent when its transaction commits, with the arguments of the moment."""
    with request_of(app(recorder(sent))) as request:
        with request.tm:
            argument = [1]
            result = request.defer_task("record", argument)
            argument.append(2)
            request.defer_task_with_options("record", [3], delivery="immediate")
            assert sent == [3]
            assert result.ready() is False
            with pytest.raises(ResultNotReady, match="sent when the transaction comm"):
                result.get(timeout=1)
        assert sent == [3, [1]]
        assert result.sent


def test_rollback(app, sent):
    """An abort drops all tasks; a rollback to a savepoint, the tasks after it."""
    with request_of(app(recorder(sent))) as request:
        request.tm.begin()
        request.defer_task("record", 0)
        request.tm.abort()
        with request.tm:
            request.defer_task("record", 1)
            savepoint = request.tm.savepoint()
            request.defer_task("record", 2)
            savepoint.rollback()
            request.defer_task("record", 3)
    assert sent == [1, 3]


def test_without_a_transaction_it_is_sent_at_once(app, sent):
    """A script with an explicit manager that was not begun sends at once."""
    with request_of(app(recorder(sent))) as request:
        request.defer_task("record", 1)
        assert sent == [1]


def test_old_name_sends_at_once(app, sent, resource):
    """pyramid_tasks.transaction runs tasks in transactions and sends at once."""
    registry = app(recorder(sent), join(resource), include="pyramid_tasks.transaction")
    with request_of(registry) as request, request.tm:
        request.defer_task("record", 1)
        assert sent == [1]
        request.defer_task("work")
        assert resource.outcomes == ["committed"]


def test_arguments_are_checked_when_deferred(app, sent):
    """A call that could not work fails in the code that made it."""
    with request_of(app(recorder(sent))) as request, request.tm:
        with pytest.raises(TypeError):
            request.defer_task("record")
        with pytest.raises(TypeError, match="not JSON serializable"):
            request.defer_task("record", object())


def test_unreachable_broker_aborts_the_transaction(app, sent, resource):
    """A broker that is down aborts before anything commits, with one clear error."""
    registry = app(
        recorder(sent),
        celery__task_always_eager=False,
        celery__broker_url="redis://:secret@localhost:1/0",
        pyramid_tasks__delivery_timeout="0.5",
    )
    with request_of(registry) as request:
        request.tm.begin()
        resource.join(request)
        request.defer_task("record", 1)
        with pytest.raises(BrokerUnavailable) as caught:
            request.tm.commit()
        request.tm.abort()
    assert "committed" not in resource.outcomes
    assert "secret" not in str(caught.value)
    assert "localhost:1" in str(caught.value)


def test_failure_after_the_commit_is_reported(app, resource, caplog):
    """A task that cannot be sent after the commit is logged and notified of."""
    failures = []
    registry = app(recorder([]))
    registry.registerHandler(failures.append, (TaskDeliveryFailed,))

    def fail(*args, **options):
        raise OSError("no route")

    get_tasks(registry).app.tasks["record"].apply_async = fail
    name = unique()
    with (
        request_of(registry) as request,
        caplog.at_level(logging.ERROR),
        request.tm,
    ):
        resource.join(request)
        request.defer_task_with_options("record", [21], task_id=name)
    assert resource.outcomes == ["committed"]
    assert name in caplog.text
    assert "[21]" in caplog.text
    (failure,) = failures
    assert failure.options["task_id"] == name
    assert isinstance(failure.exception, OSError)


def test_deliveries(app):
    """Tools can list the deliveries; the error for an unknown one does."""
    registry = app(recorder([]), pyramid_tasks__delivery="outbox")
    found = registry.introspector.get_category("task deliveries")
    assert {
        item["introspectable"].title: item["introspectable"]["default"]
        for item in found
    } == {"immediate": False, "commit": False, "outbox": True}
    for item in found:
        assert "pyramid_tasks" in item["introspectable"].action_info.file
    with (
        request_of(registry) as request,
        pytest.raises(
            ConfigurationError, match="deliveries: commit, immediate, outbox"
        ),
    ):
        request.defer_task_with_options("record", [1], delivery="pigeon")
