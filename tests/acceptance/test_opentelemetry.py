"""OpenTelemetry's own packages make one trace of a request and its tasks."""

from types import SimpleNamespace

import pytest
from support import free_port, unique, wait_until

pytest.importorskip("opentelemetry.instrumentation.celery")
pytest.importorskip("opentelemetry.instrumentation.pyramid")
pytest.importorskip("pyramid_tm")
pytest.importorskip("sqlalchemy")
from tracing import DELIVERIES, Traced

pytestmark = pytest.mark.acceptance

MODULE = "traced.with_opentelemetry"
#: How often spans are written down, in milliseconds, and so seldom as never.
OFTEN, NEVER = "20", "3600000"


def spans(traced):
    """Return the spans in the order of beginning, as far as tests look at them."""
    return [
        SimpleNamespace(
            id=line["context"]["span_id"],
            parent=line["parent_id"],
            trace=line["context"]["trace_id"],
            kind=line["kind"].removeprefix("SpanKind."),
            name=line["name"],
            task_id=line["attributes"].get("messaging.message.id"),
            error=line["status"].get("description"),
            links=[link["context"]["trace_id"] for link in line["links"]],
        )
        for line in sorted(traced.written(), key=lambda line: line["start_time"])
    ]


def wait_for(traced, condition, number=1):
    """Wait for so many spans that meet a condition, and return them."""

    def find():
        found = [span for span in spans(traced) if condition(span)]
        return found if len(found) >= number else []

    return wait_until(find, what=lambda: "\n".join(map(str, spans(traced))))


def runs(traced, task_id, number=1):
    """Wait for the spans of the runs of a task."""

    def is_run(span):
        return span.task_id == task_id and span.name.startswith("run/")

    return wait_for(traced, is_run, number)


def named(traced, span_id):
    """Wait for the span of an id."""
    return wait_for(traced, lambda span: span.id == span_id)[0]


@pytest.fixture(scope="module")
def traced(tmp_path_factory, redis_broker):
    """A web server and a worker that run, with what they wrote down."""
    broker = redis_broker | {"task_default_queue": unique()}
    traced = Traced(tmp_path_factory.mktemp("traced"), MODULE, broker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", OFTEN)
        with traced.worker(), traced.web():
            yield traced


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_one_trace_from_request_to_task(traced, delivery):
    """The request is the parent of the sending, and that of the run of the task."""
    task_id = traced.defer("host", delivery)
    (ran,) = runs(traced, task_id)
    sent = named(traced, ran.parent)
    request = named(traced, sent.parent)
    assert (ran.kind, ran.name) == ("CONSUMER", "run/traced.host")
    assert (sent.kind, sent.name) == ("PRODUCER", "apply_async/traced.host")
    assert (request.kind, request.name) == ("SERVER", "/defer/{task}")
    assert sent.task_id == task_id
    assert request.parent is None
    assert ran.trace == sent.trace == request.trace
    # Once each, in this trace and in others.
    names = [found.name for found in spans(traced) if found.trace == ran.trace]
    assert sorted(names) == sorted([ran.name, sent.name, request.name])


def test_tasks_of_tasks(traced):
    """A task that a task defers in its transaction belongs to the same trace."""
    task_id = traced.defer("defers")
    inner_id = traced.wait_for_result(task_id)["result"]
    (ran,) = runs(traced, inner_id)
    sent = named(traced, ran.parent)
    (outer,) = runs(traced, task_id)
    assert sent.parent == outer.id
    assert ran.trace == outer.trace
    assert named(traced, named(traced, outer.parent).parent).kind == "SERVER"


def test_error_in_a_task(traced):
    """The span of a task that fails has its error."""
    (ran,) = runs(traced, traced.defer("fail"))
    assert ran.error == "a task failed"


def test_retry(traced):
    """A task that is tried again is one trace, and no error until the last try."""
    first, second = runs(traced, traced.defer("fail_twice"), 2)
    assert (first.error, second.error) == (None, "a task failed twice")
    assert named(traced, second.parent).parent == first.id
    assert first.trace == second.trace


def test_error_in_a_view(traced):
    """The span of a request whose view raises has its error."""
    traced.fail()
    (failed,) = wait_for(traced, lambda span: span.name == "/fail")
    assert (failed.kind, failed.error) == ("SERVER", "a view failed")


def test_spans_of_a_worker_that_stops(tmp_path, redis_queue, monkeypatch):
    """A child of the pool writes down its spans when it ends."""
    traced = Traced(tmp_path, MODULE, redis_queue)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", NEVER)
    with traced.worker() as worker, traced.web():
        task_id = traced.defer("host")
        traced.wait_for_result(task_id)
        assert not traced.written()
        assert worker.stop() == 0
    assert runs(traced, task_id)


def test_message_sent_by_a_relay(tmp_path, redis_queue, monkeypatch):
    """A task context carries the trace of the request past the relay.

    The relay has not the request any more: the run of the task is in the trace of the
    relay. What the task itself does is in that of the request.
    """
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", OFTEN)
    traced = Traced(tmp_path, MODULE, redis_queue)
    away = {"broker_url": f"redis://localhost:{free_port()}/0"}
    with traced.web(traced.write_ini("away.ini", traced.broker | away)):
        task_id = traced.defer("defers", "outbox")
        (request,) = wait_for(traced, lambda span: span.kind == "SERVER")
    # The row belongs to the web process for some seconds more.
    wait_until(lambda: "Sent: 1" in traced.celery("outbox", "run", "--once").stdout)
    with traced.worker():
        (ran,) = runs(traced, task_id)
        (own,) = wait_for(traced, lambda span: span.name == "traced.defers")
        (ran_inside,) = wait_for(traced, lambda span: span.name == "run/traced.host")
    sent = named(traced, ran.parent)
    assert (sent.name, sent.parent) == ("apply_async/traced.defers", None)
    assert own.parent == request.id
    assert own.links == [ran.trace]
    assert named(traced, ran_inside.parent).parent == own.id
    assert request.trace == own.trace == ran_inside.trace != ran.trace
