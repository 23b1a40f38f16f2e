"""The events of a task: before it, after it, and however else it ends."""

from __future__ import annotations

import celery
import pytest
from celery.exceptions import Ignore, Reject, Retry
from pyramid.request import Request
from pyramid.threadlocal import get_current_registry, get_current_request, manager

from pyramid_tasks import AfterTask, BeforeTask, TaskFailed, TaskRetried

pytestmark = pytest.mark.usefixtures("threadlocals_stay")

EVENTS = (BeforeTask, AfterTask, TaskFailed, TaskRetried)
BEFORE_AND_AFTER = ["BeforeTask", "AfterTask"]


@pytest.fixture
def run(configure):
    """Return a function that runs a task, and gives its result and the events."""

    def run(func, *args, setup=None, subscribers=(), **options):
        seen = []
        config = configure()
        for event_type in EVENTS:
            config.add_subscriber(seen.append, event_type)
        for subscriber, event_type in subscribers:
            config.add_subscriber(subscriber, event_type)
        if setup:
            setup(config)
        config.register_task(func, name="it", **options)
        result = config.make_celery_app().tasks["it"].apply(args)
        return result, seen

    return run


def names(events):
    return [type(event).__name__ for event in events]


def failing(error):
    """Return a task that raises an error."""

    def task(request):
        raise error

    return task


def test_success(run):
    """A task that returns is announced before and told of after, with its result."""
    result, (before, after) = run(lambda request, x: x + 1, 1)
    assert names([before, after]) == BEFORE_AND_AFTER
    assert after.result == result.get() == 2
    assert before.request is after.request
    for event in before, after:
        assert isinstance(event.request, Request)
        assert event.task.name == event.task_name == "it"
        assert (event.args, event.kwargs) == ((1,), {})
    assert {before, after} != {before}  # each is itself, and can be in a set


def test_failure(run):
    """A task that raises has failed, with what it raised."""
    error = ValueError("no")
    result, (before, failed) = run(failing(error))
    assert names([before, failed]) == ["BeforeTask", "TaskFailed"]
    assert failed.exception is error
    assert failed.request is before.request
    assert result.state == "FAILURE"


@pytest.mark.parametrize(
    "how",
    [{}, {"autoretry_for": (OSError,), "retry_kwargs": {"countdown": 0}}],
    ids=["retry()", "autoretry_for"],
)
def test_retry(run, how):
    """A task that runs again is retried, not failed; at the last it has failed."""
    error = OSError("not yet")

    def task(self, request):
        if how:
            raise error
        raise self.retry(exc=error, countdown=0)

    _, events = run(task, bind=True, max_retries=1, **how)
    # In eager mode Celery runs the task again inside its own retry().
    *before, failed, retried = sorted(events, key=lambda event: type(event).__name__)
    assert names(before) == ["BeforeTask"] * 2
    assert names([failed, retried]) == ["TaskFailed", "TaskRetried"]
    assert isinstance(retried.exception, Retry)
    assert retried.exception.exc is error
    assert failed.exception is error
    assert failed.request is not retried.request


@pytest.mark.parametrize("error", [Ignore(), Reject("no")])
def test_neither(run, error):
    """What Celery is told to ignore or to reject has neither failed nor succeeded."""
    _, events = run(failing(error))
    assert names(events) == ["BeforeTask"]


def test_the_end_of_the_worker_is_no_failure(run):
    """What ends the process is not told as a failure of the task."""
    seen = []
    with pytest.raises(SystemExit):
        run(failing(SystemExit()), subscribers=[(seen.append, TaskFailed)])
    assert seen == []


@pytest.mark.parametrize(("fail", "end"), [(False, "AfterTask"), (True, "TaskFailed")])
def test_around_the_derivers(run, fail, end):
    """Each event has the whole, current request; the derivers are between the two."""
    seen = []

    def deriver(task, info):
        def derived(request, *args):
            seen.append("begin")
            try:
                return task(request, *args)
            finally:
                seen.append("end")

        return derived

    def task(request):
        seen.append("task")
        request.add_finished_callback(lambda request: seen.append("finished"))
        if fail:
            raise ValueError

    def note(event):
        request = event.request
        assert get_current_request() is request
        assert get_current_registry() is request.registry
        assert request.context is request.root
        assert request.greet() == "hi"
        assert request.current_task is event.task
        seen.append(type(event).__name__)

    def setup(config):
        config.add_task_deriver(deriver)
        config.add_request_method(lambda request: "hi", "greet")

    run(task, subscribers=[(note, event_type) for event_type in EVENTS], setup=setup)
    assert seen == ["BeforeTask", "begin", "task", "end", end, "finished"]


def broken(event):
    raise RuntimeError("error of a subscriber")


@pytest.mark.parametrize("event_type", [BeforeTask, AfterTask])
def test_error_of_a_subscriber(run, event_type):
    """An error of a subscriber before or after a task makes the task fail."""
    called = []
    result, events = run(
        lambda request: called.append(1), subscribers=[(broken, event_type)]
    )
    assert result.state == "FAILURE"
    assert str(result.result) == "error of a subscriber"
    assert called == ([] if event_type is BeforeTask else [1])
    assert isinstance(events[-1], TaskFailed)
    assert events[-1].exception is result.result


@pytest.mark.parametrize(
    ("error", "state", "event_type"),
    [(ValueError("no"), "FAILURE", TaskFailed), (Retry("x"), "RETRY", TaskRetried)],
)
def test_error_of_the_task_stands(run, caplog, error, state, event_type):
    """An error of a subscriber is logged: it does not replace the task's own."""
    result, _ = run(failing(error), subscribers=[(broken, event_type)])
    assert result.state == state
    (record,) = (r for r in caplog.records if r.name == "pyramid_tasks.worker.request")
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        f"Not all subscribers of {event_type.__name__} could be told of it[{result.id}]"
    )
    assert record.exc_info[0] is RuntimeError


@pytest.mark.parametrize(
    ("task", "root", "told"),
    [
        (lambda request: request.add_finished_callback(broken), None, BEFORE_AND_AFTER),
        (lambda request: None, failing(LookupError("no root")), []),
    ],
    ids=["finished callback", "root factory"],
)
def test_error_around_a_task(run, task, root, told):
    """A task has failed by its callbacks, and, without having begun, by its root."""
    result, [*events, failed] = run(
        task, setup=lambda config: config.set_root_factory(root)
    )
    assert result.state == "FAILURE"
    assert names(events) == told
    assert isinstance(failed, TaskFailed)
    assert failed.exception is result.result


def test_autoretry_for_an_error_in_the_root_factory(run):
    """Celery retries what fails while the request is made, as it does a task."""
    roots = []

    def root(request):
        roots.append(request)
        if len(roots) == 1:
            raise OSError("not yet")

    _, events = run(
        lambda request: "well at last",
        setup=lambda config: config.set_root_factory(root),
        autoretry_for=(OSError,),
        retry_kwargs={"countdown": 0},
    )
    assert len(roots) == 2
    assert sorted(names(events)) == ["AfterTask", "BeforeTask", "TaskRetried"]


def test_error_in_the_request_factory(run, caplog):
    """Without a request there is no event, but the log says so."""
    error = LookupError("no request")
    result, events = run(
        lambda request: None,
        setup=lambda config: config.set_request_factory(failing(error)),
    )
    assert result.state == "FAILURE"
    assert result.result is error
    assert events == []
    said = f"Not all subscribers of TaskFailed could be told of it[{result.id}]"
    assert said in caplog.text


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="this Celery has no pydantic=True")
def test_arguments_that_pydantic_refuses(run):
    """A task refused for its arguments has failed, with a request as any other."""
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        number: int

    def task(request, model):
        return model.number

    task.__annotations__ = {"model": Model}
    result, (failed,) = run(task, {"number": "none"}, pydantic=True)
    assert result.state == "FAILURE"
    assert isinstance(failed, TaskFailed)
    assert isinstance(failed.exception, pydantic.ValidationError)
    assert failed.request.current_task is failed.task


def test_task_deferred_by_a_subscriber(eager):
    """A subscriber can defer a task with the request it is given."""
    seen = []

    def follow(event):
        if event.task_name == "first":
            event.request.defer_task("second", event.result)

    eager.add_subscriber(follow, AfterTask)
    eager.register_task(lambda request: 1, name="first")
    eager.register_task(lambda request, x: seen.append(x), name="second")
    eager.make_celery_app().tasks["first"].apply()
    assert seen == [1]


def test_subscriber_that_is_added_later(configure):
    """A subscriber that is added after a task has run is told all the same."""
    config = configure()
    config.register_task(lambda request: 1, name="it")
    task = config.make_celery_app().tasks["it"]
    assert task.apply().get() == 1
    seen = []
    config.add_subscriber(seen.append, AfterTask)
    config.commit()
    assert task.apply().get() == 1
    assert names(seen) == ["AfterTask"]


def test_attempts_of_pyramid_retry(configure):
    """Each attempt of pyramid_retry is a request of its own, and the end comes once."""
    pyramid_retry = pytest.importorskip("pyramid_retry")
    config = configure(**{"retry.attempts": 3})
    config.include("pyramid_retry")
    config.include("pyramid_tasks.contrib.pyramid_retry")
    seen, finished = [], []
    for event_type in EVENTS:
        config.add_subscriber(seen.append, event_type)

    def task(request):
        request.add_finished_callback(finished.append)
        manager.push({"request": None, "registry": request.registry})
        if request.environ["retry.attempt"] < 2:
            raise pyramid_retry.RetryableException
        return "done"

    config.register_task(task, name="it")
    assert config.make_celery_app().tasks["it"].apply().get() == "done"
    assert names(seen) == ["BeforeTask"] * 3 + ["AfterTask"]
    requests = [event.request for event in seen[:3]]
    assert len(set(map(id, requests))) == 3
    assert seen[-1].request is requests[-1]
    assert finished == requests
