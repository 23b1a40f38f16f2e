"""The result backend of an application while it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._celery import new_backend, set_transport_options
from .faults import BrokerDown, is_state
from .transports import limit_sentinels

if TYPE_CHECKING:
    from ..application import PyramidCelery


class QuietBackend:
    """A result backend that does not subscribe to results.

    Celery subscribes to the results of each ``GroupResult`` that it makes, and waits 20
    seconds for a backend that is down. When Celery before 5.7 frees such an object, it
    also ends the subscription of anybody else who waits for the same result.
    """

    def __init__(self, app: PyramidCelery) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app.result_backend, name)

    def add_pending_result(self, result: Any, **_: Any) -> Any:
        """Do nothing."""
        return result

    remove_pending_result = add_pending_result

    def ensure_chords_allowed(self) -> None:
        """Let Celery raise an error if the result backend cannot have chords."""
        if not self._app.conf.task_always_eager:
            self._app.result_backend.ensure_chords_allowed()


class SendingBackend(QuietBackend):
    """A result backend that is told only how many tasks a chord has.

    Celery subscribes to the result of each task that it sends, and a relay would never
    unsubscribe. ``get()`` subscribes as well.

    Args:
        app: The Celery application that sends.
        timeout: The number of seconds to wait for the backend.
    """

    def __init__(self, app: PyramidCelery, timeout: float) -> None:
        super().__init__(app)
        self._timeout = timeout

    def on_task_call(self, _producer: Any, _task_id: str) -> None:
        """Do nothing."""

    def apply_chord(self, *args: Any, **options: Any) -> None:
        """Tell the backend of a chord."""
        self._call("apply_chord", *args, **options)

    def set_chord_size(self, *args: Any) -> None:
        """Tell the backend how many tasks a chord has."""
        self._call("set_chord_size", *args)

    def _call(self, name: str, *args: Any, **options: Any) -> None:
        backend = limited_backend(self._app, self._app.result_backend, self._timeout)
        try:
            getattr(backend, name)(*args, **options)
        except Exception as error:
            is_down = isinstance(error, getattr(backend, "connection_errors", ()))
            if not (is_down or is_state(error)):
                raise
            raise BrokerDown(
                f"the result backend, which chords need: {error}"
            ) from error


def limited_backend(app: PyramidCelery, backend: Any, timeout: float) -> Any:
    """Return a result backend that waits for a limited time, if it is Redis.

    Args:
        app: The Celery application.
        backend: The result backend of the application.
        timeout: The number of seconds that each wait may take.
    """
    if not hasattr(backend, "connparams"):  # not Redis
        return backend
    known = app.limited_backends
    if timeout not in known:
        backend = new_backend(app)
        backend.retry_policy = {"max_retries": 0}
        limit = timeout
        if sentinels := backend.connparams.get("hosts"):
            # As for a broker, they have one half, and the master the other one.
            limit = timeout / 2
            options = app.conf.result_backend_transport_options
            options = limit_sentinels(options, limit / len(sentinels))
            set_transport_options(backend, options)
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name in backend.connparams:  # a UNIX socket has only one
                backend.connparams[name] = limit
        known[timeout] = backend
    return known[timeout]
