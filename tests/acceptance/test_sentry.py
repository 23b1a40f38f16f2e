"""Sentry's own integrations report errors once, and make one trace."""

import pytest
from support import unique, wait_until

pytest.importorskip("sentry_sdk")
pytest.importorskip("pyramid_tm")
pytest.importorskip("sqlalchemy")
from tracing import DELIVERIES, Traced

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def traced(tmp_path_factory, redis_broker):
    """A web server and a worker that run, with what they would send to Sentry."""
    broker = redis_broker | {"task_default_queue": unique()}
    folder = tmp_path_factory.mktemp("traced")
    # Sentry ends the trace of a request with the request.
    own = {"pyramid_tasks.outbox_send": "request"}
    traced = Traced(folder, "traced.with_sentry", broker, **own)
    with traced.worker(), traced.web():
        yield traced


def sent(traced, kind, **tags):
    """Return the payloads of a kind that have such tags."""
    return [
        line["payload"]
        for line in traced.written()
        if line["type"] == kind
        and tags.items() <= (line["payload"].get("tags") or {}).items()
    ]


def runs(traced, task_id, number=1):
    """Wait for the transactions of a task; what it reported was sent before."""

    def find():
        found = sent(traced, "transaction", celery_task_id=task_id)
        # Of several processes, whose order is another.
        found.sort(key=lambda payload: payload["start_timestamp"])
        return found if len(found) >= number else []

    return wait_until(find, what=lambda: str(traced.written()))


def errors(traced, task_id):
    return sent(traced, "event", celery_task_id=task_id)


def trace_of(payload):
    return str(payload["contexts"]["trace"]["trace_id"])


def request_of(traced, run):
    """Wait for the transaction that has the span which a run has for its parent."""
    parent = run["contexts"]["trace"]["parent_span_id"]

    def find():
        return [
            found
            for found in sent(traced, "transaction")
            if parent in {span["span_id"] for span in found["spans"]}
        ]

    (request,) = wait_until(find, what=lambda: str(traced.written()))
    return request


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_one_trace_from_request_to_task(traced, delivery):
    """The run of a task has its parent in the request that deferred it."""
    task_id = traced.defer("host", delivery)
    (run,) = runs(traced, task_id)
    request = request_of(traced, run)
    assert run["transaction"] == "traced.host"
    assert request["transaction"] == "defer"
    assert trace_of(run) == trace_of(request)
    assert request["contexts"]["trace"].get("parent_span_id") is None
    # The headers that this package reads arrive, although Sentry adds some.
    host = f"localhost:{traced.port}"
    assert traced.wait_for_result(task_id) == {"state": "SUCCESS", "result": host}


def test_error_in_a_task(traced):
    """It is reported once, with the task and the trace of the request."""
    task_id = traced.defer("fail")
    (run,) = runs(traced, task_id)
    (error,) = errors(traced, task_id)
    assert error["transaction"] == "traced.fail"
    assert error["extra"]["celery-job"]["task_name"] == "traced.fail"
    values = [found["value"] for found in error["exception"]["values"]]
    assert values == ["a task failed"]
    assert trace_of(error) == trace_of(request_of(traced, run))


def test_task_that_is_tried_again(traced):
    """Not the retries are reported, but the error of the last try, in one trace."""
    task_id = traced.defer("fail_twice")
    first, second = runs(traced, task_id, 2)
    (error,) = errors(traced, task_id)
    assert trace_of(error) == trace_of(first) == trace_of(second)
    assert request_of(traced, second) == first


@pytest.mark.parametrize(("task", "number"), [("retry", 2), ("ignore", 1)])
def test_no_error(traced, task, number):
    """``Retry`` and ``Ignore`` are no errors."""
    task_id = traced.defer(task)
    assert len(runs(traced, task_id, number)) == number
    assert not errors(traced, task_id)


def test_error_in_a_view(traced):
    """It is reported once, with its request."""
    traced.fail()  # answered when the server has logged it
    (error,) = [
        found
        for found in sent(traced, "event")
        if found["exception"]["values"][0]["value"] == "a view failed"
    ]
    assert error["transaction"] == "fail"
    assert error["request"]["url"].endswith("/fail")
