"""Delivery ``immediate``: a deferred task is sent at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..configuration.deliveries import add_delivery
from ..registry import get_tasks

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.config import Configurator
    from pyramid.request import Request

    from ..application import PyramidCelery


#: The options of a call, and of a task, that say where it is sent.
ROUTING = ("queue", "exchange", "routing_key")


def route(
    app: Celery,
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return where a call of a task is sent: the options that Celery's router gives it.

    Raises:
        Exception: What a router of the application raises.
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
    """Sends at once; the base of the other deliveries.

    Attributes:
        is_transactional: Whether it waits for the transaction of the request.
    """

    is_transactional = False

    def __init__(self, app: PyramidCelery) -> None:
        self.app = app

    def is_direct(self, _request: Request) -> bool:
        """Whether one task can be sent by ``Task.apply_async``, the shortest way."""
        return True

    def deliver(
        self, _request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        """Send tasks, chains, groups and chords, with the options they have."""
        return send(self.app, signatures)


def send(
    app: PyramidCelery, signatures: Sequence[Signature], backend: Any = None
) -> list[ResultBase]:
    """Send through one producer, with another result backend if one is given."""
    if app.conf.task_always_eager:
        return [each.apply_async() for each in signatures]
    with app.producer_or_acquire() as producer, app.sending(producer, backend):
        return [each.apply_async() for each in signatures]


def includeme(config: Configurator) -> None:
    """Make the delivery known."""
    app = get_tasks(config.registry).app
    add_delivery(config, "immediate", ImmediateDelivery(app))
