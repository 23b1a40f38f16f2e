"""What one task costs, less its message: Celery's trace of a task that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.app.trace import build_tracer
from celery.worker.request import Request
from pyramid.scripting import prepare

from .applications import (
    configure,
    nothing_async,
    nothing_with_request,
    plain_celery,
    pyramid_part,
)
from .brokers import Broker
from .measuring import OURS, PLAIN, Effort, rows, take_turns, timed
from .report import Section

if TYPE_CHECKING:
    from celery import Celery

NOTE = """\
Microseconds of processor time from Celery's worker handing over a message to the end of
a task that does nothing, in one process, for an application with 6 request methods and
4 properties. `prepare` is what an application does by hand: plain Celery, and in the
task `with pyramid.scripting.prepare(registry=registry) as env`, for the same
application without this package. `async def` is a task of this package that is a
coroutine function."""


def run(effort: Effort) -> list[Section]:
    """Measure it."""
    settings = Broker("memory://").settings()
    application = pyramid_part({})
    application.commit()
    by_hand = plain_celery(settings | {"task_default_queue": "by_hand"})

    def prepare_by_hand() -> None:
        with prepare(registry=application.registry) as env:
            nothing_with_request(env["request"])

    by_hand.task(prepare_by_hand, name="prepare_by_hand", shared=False)
    with_async = configure(settings | {"task_default_queue": "async"})
    with_async.register_task(nothing_async, name="nothing async")
    number = effort.pick(3000, 50)
    found = take_turns(
        "trace",
        {
            PLAIN: timed(tracer(plain_celery(settings), "nothing"), number),
            OURS: timed(
                tracer(configure(settings).make_celery_app(), "nothing"), number
            ),
            "async def": timed(
                tracer(with_async.make_celery_app(), "nothing async"), number
            ),
            "prepare by hand": timed(tracer(by_hand, "prepare_by_hand"), number),
        },
        effort.turns(50),
    )
    title = "Running one task, in process"
    return [Section(title, "trace", NOTE, list(rows(found, "µs", "µs")))]


def tracer(app: Celery, name: str) -> Callable[[], Any]:
    """Return a function that runs a task as a worker does, of a message it got."""
    task = app.tasks[name]
    task.apply_async()
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue](connection.default_channel)
        message = queue.get(no_ack=True)
    request = Request(message, app=app, hostname="benchmark", task=task)
    trace = build_tracer(name, task, app.loader, "benchmark", app=app)
    task_id, message_headers = request.id, request.request_dict

    def run() -> None:
        # A dictionary for each, as for each message.
        trace(task_id, (), {}, message_headers.copy())

    return run
