"""Delivery ``immediate``: a task is sent when it is deferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..configuration.deliveries import add_delivery
from ..registry import get_tasks
from .producer import SteadyProducer

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.config import Configurator
    from pyramid.request import Request

    from ..application import PyramidCelery


#: The options of a call, or of a task, that Celery's router starts from.
ROUTING = ("queue", "exchange", "routing_key")


def route(
    app: Celery,
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the options with which Celery's router sends a call of a task.

    Raises:
        Exception: A router of the application raised it.
    """
    task, options = app.tasks.get(name), options or {}
    given = {
        key: value
        for key in ROUTING
        if (value := options.get(key) or getattr(task, key, None))
    }
    route_name = options.get("route_name") or name
    found: dict[str, Any] = app.amqp.router.route(
        given, route_name, args, kwargs or {}, task_type=task
    )
    return found


class ImmediateDelivery:
    """Sends at once. The other deliveries derive from this one."""

    is_transactional = False

    def __init__(self, app: PyramidCelery) -> None:
        self.app = app

    def is_direct(self, _request: Request) -> bool:
        return True

    def deliver(
        self, _request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        app = self.app
        if app.conf.task_always_eager:
            return [each.apply_async() for each in signatures]
        with (
            app.producer_or_acquire() as producer,
            app.sending(SteadyProducer(producer)),
        ):
            return [each.apply_async() for each in signatures]


def includeme(config: Configurator) -> None:
    """Add the delivery ``immediate``."""
    app = get_tasks(config.registry).app
    add_delivery(config, "immediate", ImmediateDelivery(app))
