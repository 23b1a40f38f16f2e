"""OpenTelemetry's own packages make one trace of a request and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, order=True)
class Span:
    """A span, as far as the tests look at it, in the order of beginning."""

    start: str
    id: str
    parent: str | None
    trace: str
    kind: str
    name: str
    task_id: str | None
    error: str | None
    links: tuple[str, ...]

    @classmethod
    def of(cls, line: dict[str, Any]) -> Span:
        return cls(
            start=line["start_time"],
            id=line["context"]["span_id"],
            parent=line["parent_id"],
            trace=line["context"]["trace_id"],
            kind=line["kind"].removeprefix("SpanKind."),
            name=line["name"],
            task_id=line["attributes"].get("messaging.message.id"),
            error=line["status"].get("description"),
            links=tuple(link["context"]["trace_id"] for link in line["links"]),
        )


def spans(traced: Traced) -> list[Span]:
    return sorted(Span.of(line) for line in traced.written())


def wait_for(
    traced: Traced, condition: Callable[[Span], bool], number: int = 1
) -> list[Span]:
    """Wait for so many spans that meet a condition, and return them."""

    def find() -> list[Span]:
        found = [span for span in spans(traced) if condition(span)]
        return found if len(found) >= number else []

    return wait_until(find, what=lambda: "\n".join(map(str, spans(traced))))


def of_task(traced: Traced, task_id: str, name: str, number: int = 1) -> list[Span]:
    """Wait for the spans of a task with such a name."""
    return wait_for(
        traced,
        lambda span: span.task_id == task_id and span.name.startswith(name),
        number,
    )


def named(traced: Traced, span_id: str | None) -> Span:
    """Wait for the span of an id."""
    return wait_for(traced, lambda span: span.id == span_id)[0]


@pytest.fixture(scope="module")
def broker(redis_broker: dict[str, str]) -> dict[str, str]:
    return redis_broker | {"task_default_queue": unique()}


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory, broker: dict[str, str]
) -> Iterator[Traced]:
    """A web server and a worker that run, with what they wrote down."""
    traced = Traced(tmp_path_factory.mktemp("traced"), MODULE, broker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", OFTEN)
        with traced.worker(), traced.web():
            yield traced


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_one_trace_from_request_to_task(traced: Traced, delivery: str) -> None:
    """The request is the parent of the sending, and that of the run of the task."""
    task_id = traced.defer("host", delivery)
    (ran,) = of_task(traced, task_id, "run/")
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


def test_tasks_of_tasks(traced: Traced) -> None:
    """A task that a task defers in its transaction belongs to the same trace."""
    task_id = traced.defer("defers")
    inner_id = traced.wait_for_result(task_id)["result"]
    (ran,) = of_task(traced, inner_id, "run/")
    sent = named(traced, ran.parent)
    (outer,) = of_task(traced, task_id, "run/")
    assert sent.parent == outer.id
    assert ran.trace == outer.trace
    assert named(traced, named(traced, outer.parent).parent).kind == "SERVER"


def test_error_in_a_task(traced: Traced) -> None:
    """The span of a task that fails has its error."""
    (ran,) = of_task(traced, traced.defer("fail"), "run/")
    assert ran.error == "a task failed"


def test_retry(traced: Traced) -> None:
    """A task that is tried again is one trace, and no error until the last try."""
    first, second = of_task(traced, traced.defer("fail_twice"), "run/", 2)
    assert (first.error, second.error) == (None, "a task failed twice")
    assert named(traced, second.parent).parent == first.id
    assert first.trace == second.trace


def test_error_in_a_view(traced: Traced) -> None:
    """The span of a request whose view raises has its error."""
    traced.fail()
    (failed,) = wait_for(traced, lambda span: span.name == "/fail")
    assert (failed.kind, failed.error) == ("SERVER", "a view failed")


def test_spans_of_a_worker_that_stops(
    tmp_path: Path, broker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child of the pool writes down its spans when it ends."""
    traced = Traced(tmp_path, MODULE, broker | {"task_default_queue": unique()})
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", NEVER)
    with traced.worker() as worker, traced.web():
        task_id = traced.defer("host")
        traced.wait_for_result(task_id)
        assert not traced.written()
        assert worker.stop() == 0
    assert of_task(traced, task_id, "run/")


def test_message_sent_by_a_relay(
    tmp_path: Path, broker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task context carries the trace of the request past the relay.

    The relay has not the request any more: the run of the task is in the trace of the
    relay. What the task itself does is in that of the request.
    """
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", OFTEN)
    traced = Traced(tmp_path, MODULE, broker | {"task_default_queue": unique()})
    away = {"broker_url": f"redis://localhost:{free_port()}/0"}
    with traced.web(traced.write_ini("away.ini", traced.broker | away)):
        task_id = traced.defer("defers", "outbox")
        (request,) = wait_for(traced, lambda span: span.kind == "SERVER")
    # The row belongs to the web process for some seconds more.
    wait_until(lambda: "Sent: 1" in traced.celery("outbox", "run", "--once").stdout)
    with traced.worker():
        (ran,) = of_task(traced, task_id, "run/")
        (own,) = wait_for(traced, lambda span: span.name == "traced.defers")
        (ran_inside,) = wait_for(traced, lambda span: span.name == "run/traced.host")
    sent = named(traced, ran.parent)
    assert (sent.name, sent.parent) == ("apply_async/traced.defers", None)
    assert own.parent == request.id
    assert own.links == (ran.trace,)
    assert named(traced, ran_inside.parent).parent == own.id
    assert request.trace == own.trace == ran_inside.trace != ran.trace
