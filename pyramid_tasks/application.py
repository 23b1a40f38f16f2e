"""The Celery application of a Pyramid application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from billiard.context import get_spawning_popen
from celery import Celery
from celery.signals import after_task_publish, before_task_publish
from celery.utils import uuid
from kombu.exceptions import EncodeError

from ._celery import active_apps, as_current_app, own_backend
from ._kombu import raise_limit

if TYPE_CHECKING:
    from pyramid.registry import Registry


#: A function and its arguments that load an application.
Origin = tuple[Callable[..., "Celery"], tuple[Any, ...]]


class PyramidCelery(Celery):
    """A Celery application that belongs to a Pyramid application.

    Attributes:
        registry: The registry of the Pyramid application.
        origin: A function and its arguments that load the application again, if it was
            loaded from a configuration file. A prefork pool that spawns its children
            needs them (``worker_pool_start_method = spawn``, the default on macOS).
        pickled_as: The name of this object in a pickle that its own process reads.
        limited_backends: Result backends that wait for a limited time, by the limit in
            seconds.
        fork_error: Why this process, which was forked, may share connections with its
            parent.
    """

    origin: Origin | None = None
    fork_error: Exception | None = None

    def __init__(self, registry: Registry, **options: Any) -> None:
        self.registry = registry
        self.limited_backends: dict[float, Any] = {}
        # The producer and the result backend to send through. Not by thread: gunicorn
        # may replace threads by greenlets when the application has been loaded.
        self._sending: ContextVar[tuple[Any, Any]] = ContextVar(
            "sending", default=(None, None)
        )
        self.pickled_as = uuid()
        own = {
            "main": registry.package_name,
            # By name, as imports go downward: the room of the loader is above.
            "loader": "pyramid_tasks.worker.loader:PyramidLoader",
            # Several applications in one process must not see each other's tasks.
            "set_as_current": False,
            # Celery's is for Django, and would import what Django's variable names.
            "fixups": (),
        }
        super().__init__(**{**own, **options})

    def __reduce__(self) -> tuple[Callable[..., Celery], tuple[Any, ...]]:
        # A copy is the same application, as a request and a registry have only one.
        if self.origin is None and get_spawning_popen() is not None:
            raise TypeError(_NO_ORIGIN)
        return _unpickle, (self.pickled_as, self.origin)

    @contextmanager
    def sending(self, producer: Any = None, backend: Any = None) -> Iterator[None]:
        """Send everything inside, from this thread, through one producer.

        Celery hands a producer on to some tasks of a canvas. For the others it takes
        one more producer from the pool, and waits for ever if the pool is empty or the
        broker is down.

        Args:
            producer: A ``kombu.Producer``; by default one of the pool.
            backend: The result backend; by default the application's own.
        """
        token = self._sending.set((producer, backend))
        try:
            yield
        except EncodeError as error:
            raise_limit(error)
            raise
        finally:
            self._sending.reset(token)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context with a producer: the one of :meth:`sending`, if any."""
        producer = producer or self._sending.get()[0]
        context = (
            super().producer_or_acquire() if producer is None else nullcontext(producer)
        )
        if before_task_publish.receivers or after_task_publish.receivers:
            return self._as_current(context)
        return context

    @contextmanager
    def _as_current(self, context: Any) -> Iterator[Any]:
        """Be the current application of Celery, inside a context with a producer.

        A receiver of Celery's signals about sending gets the name of a task, and can
        look the task up in the current application, as OpenTelemetry does.
        """
        with as_current_app(self), context as producer:
            yield producer

    @cached_property
    def Beat(self) -> Any:  # noqa: N802 as Celery has it
        """The program of ``celery beat``."""
        return self.subclass_with_self("pyramid_tasks.worker.beat:CheckedBeat", "Beat")

    @property
    def backend(self) -> Any:
        """The result backend: the one of :meth:`sending`, if any."""
        return self._sending.get()[1] or self.result_backend

    @property
    def result_backend(self) -> Any:
        """The result backend of the settings. A database is asked for its tables."""
        return own_backend(self) or super().backend


_NO_ORIGIN = (
    "This application was not loaded from an ini, so a spawned process cannot load it: "
    "start the worker with --ini, or set worker_pool_start_method = fork"
)


def _unpickle(key: str, origin: Origin | None) -> Celery:
    """Return the application of this process; only a process without it loads it."""
    known = [each for each in active_apps() if isinstance(each, PyramidCelery)]
    for app in known:
        if app.pickled_as == key:
            return app
    # The pickle of another process: beat keeps its schedule in a file.
    alike = [each for each in known if each.origin == origin]
    if len(alike) == 1 or (alike and origin):
        return alike[0]
    if origin is None:
        raise TypeError(_NO_ORIGIN)
    load, args = origin
    loaded = load(*args)
    # Celery does not call on_worker_init() in the spawned beat of ``worker -B``.
    loaded.loader.connect_beat()
    return loaded


def names_broker(app: Celery) -> bool:
    """Whether the configuration says which broker an application sends to."""
    return bool(app.conf.broker_write_url or app.conf.broker_transport)
