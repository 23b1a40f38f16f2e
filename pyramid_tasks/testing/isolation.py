"""A Celery application that for a while reaches nothing outside this process."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from kombu.transport import memory, virtual

from .._celery import without_caches

if TYPE_CHECKING:
    from celery import Celery

_VARIABLES = ("CELERY_BROKER_", "CELERY_RESULT_BACKEND")

RESULTS_IN_MEMORY = "cache+memory://"


@contextmanager
def isolated(app: Celery, **settings: Any) -> Iterator[None]:
    """Give an application a broker in memory, and afterwards its own broker back.

    Args:
        settings: Other settings of Celery, for the same time.
    """
    broker = {
        # No URL, of which kombu would take the transport.
        "broker_url": "localhost",
        "broker_read_url": None,
        "broker_write_url": None,
        "broker_transport": _transport(),
        "broker_transport_options": {"polling_interval": 0.01},
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(app.conf.changes, broker | settings))
        # With Celery, these win over settings.
        names = [name for name in os.environ if name.startswith(_VARIABLES)]
        removed = {name: os.environ.pop(name) for name in names}
        stack.callback(os.environ.update, removed)
        stack.enter_context(without_caches(app))
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
