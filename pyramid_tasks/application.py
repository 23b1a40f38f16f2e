"""The Celery application of a Pyramid application, and Celery's hooks into a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery, _state, concurrency, signals
from celery.loaders.app import AppLoader

from .events import CeleryWorkerProcessInit

if TYPE_CHECKING:
    from pyramid.registry import Registry


class PyramidCelery(Celery):
    """A Celery application that belongs to a Pyramid application.

    Attributes:
        origin: A function and its arguments that load the application again, where
            there are such: in the children of a prefork pool that spawns instead of
            forking (``worker_pool_start_method = spawn``, the default on macOS).
    """

    origin: tuple[Callable[..., Celery], tuple[Any, ...]] | None = None

    def __reduce__(self) -> tuple[Callable[..., Celery], tuple[Any, ...]]:
        if self.origin is None:
            raise TypeError(
                "This application was not loaded from an ini, so a spawned process "
                "cannot load it: start the worker with --ini, or set "
                "worker_pool_start_method = fork"
            )
        return self.origin

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task, as the current application of Celery.

        The receivers of Celery's signals about sending get the name of a task, and
        look it up there: those of OpenTelemetry, for one.
        """
        current = _state._tls.current_app  # noqa: SLF001 get_current_app() makes one
        self.set_current()
        try:
            return super().send_task(*args, **kwargs)
        finally:
            _state._set_current_app(current)  # noqa: SLF001 set_current() of None


class PyramidLoader(AppLoader):
    """Celery's hooks into a worker, for one application.

    A loader belongs to its Celery application, and Celery calls these hooks in worker
    processes only; a web process connects nothing.
    """

    def __init__(self, app: Celery, registry: Registry) -> None:
        super().__init__(app)
        self.registry = registry

    def on_worker_init(self) -> None:
        # Celery 5.3 takes the methods of two loaders for one, but for their uid.
        uid = f"pyramid_tasks.{id(self)}"
        signals.worker_process_init.connect(self._notify_process_init, dispatch_uid=uid)
        signals.worker_init.connect(self._on_worker_ready_to_build, dispatch_uid=uid)

    def _on_worker_ready_to_build(self, sender: Any, **_: Any) -> None:
        if sender.app is not self.app:  # another worker in this process
            return
        # The prefork and solo pools send worker_process_init themselves; the others
        # run tasks in this process and do not.
        pool = concurrency.get_implementation(sender.pool_cls)
        if not pool.__module__.endswith((".prefork", ".solo")):
            self._notify_process_init()

    def _notify_process_init(self, **_: Any) -> None:
        self.registry.notify(CeleryWorkerProcessInit(self.registry))


def names_broker(app: Celery) -> bool:
    """Whether the configuration says which broker to use."""
    conf = app.conf
    return bool(conf.broker_read_url or conf.broker_write_url or conf.broker_transport)
