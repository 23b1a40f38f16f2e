"""A Celery application that for a while reaches nothing outside of this process."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from kombu.transport import memory, virtual

if TYPE_CHECKING:
    from celery import Celery

_VARIABLES = ("CELERY_BROKER_", "CELERY_RESULT_BACKEND")

RESULTS_IN_MEMORY = "cache+memory://"


@contextmanager
def isolated(app: Celery, **settings: Any) -> Iterator[None]:
    """Give an application a broker of its own in memory, and then its own back.

    Args:
        settings: Other settings of Celery, for as long.
    """
    broker = {
        # No URL, of which kombu would take the transport.
        "broker_url": "localhost",
        "broker_read_url": None,
        "broker_write_url": None,
        "broker_transport": _transport(),
        "broker_transport_options": {"polling_interval": 0.01},
        "broker_use_ssl": False,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(app.conf.changes, broker | settings))
        # With Celery, these win over settings.
        names = [name for name in os.environ if name.startswith(_VARIABLES)]
        removed = {name: os.environ.pop(name) for name in names}
        stack.callback(os.environ.update, removed)
        # What Celery has made from its settings, so that it makes it again.
        for thing, name, value in (
            (app, "_pool", None),
            (app.amqp, "_producer_pool", None),
            (app, "_backend_cache", None),
            (app, "_local", threading.local()),
        ):
            stack.enter_context(mock.patch.object(thing, name, value))
        yield


def _transport() -> type[memory.Transport]:
    """Return a transport that shares no queue with other connections to memory."""
    channel: dict[str, Any] = {"events": defaultdict(set), "queues": {}}
    members = {
        "Channel": type("Channel", (memory.Channel,), channel),
        "global_state": virtual.BrokerState(),
    }
    return type("Transport", (_Transport,), members)


class _Transport(memory.Transport):
    def drain_events(
        self, connection: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        # Between two calls a worker sees that it is to stop.
        return super().drain_events(
            connection, timeout=min(timeout or 0.1, 0.1), **kwargs
        )
