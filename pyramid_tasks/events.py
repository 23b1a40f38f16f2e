"""The events of this package, for ``config.add_subscriber``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import implementedBy

if TYPE_CHECKING:
    from celery import Task
    from pyramid.registry import Registry
    from pyramid.request import Request


def has_subscribers(registry: Registry, event_type: type) -> bool:
    """Whether an event has subscribers: an event without any need not be made."""
    return registry.has_listeners and bool(  # the first for speed
        registry.adapters.subscriptions((implementedBy(event_type),), None)
    )


class _AboutTask:
    task: Task

    @property
    def task_name(self) -> str:
        name: str = self.task.name
        return name


class _TaskEvent(_AboutTask):
    """The base of the events about a call."""

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.request = request
        self.task = task
        self.args = args
        self.kwargs = kwargs


class BeforeDeferTask(_TaskEvent):
    """A request is about to defer a task.

    Attributes:
        request: The request that defers the task.
        task: The Celery task.
        task_name: The name of the task.
        args: The positional arguments of the task.
        kwargs: The keyword arguments of the task.
        options: The options of `Task.apply_async
            <https://docs.celeryq.dev/en/stable/reference/celery.app.task.html>`_.
            A subscriber may change them in place.
    """

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        super().__init__(request, task, args, kwargs)
        self.options = options


class BeforeTask(_TaskEvent):
    """A task is about to run: its request is ready, its derivers have not begun.

    If ``pyramid_retry`` runs a task again, each attempt has this event. An error of a
    subscriber is an error of the task. A task with an inbox has this event inside its
    transaction, unless the task has run before.

    Attributes:
        request: The request of the task.
        task: The Celery task.
        task_name: The name of the task.
        args: The positional arguments of the task.
        kwargs: The keyword arguments of the task.
    """


class AfterTask(_TaskEvent):
    """A task has returned and its derivers have ended: its transaction has committed.

    An error of a subscriber is an error of the task, and the task then fails. A task
    with an inbox that has run before does not have this event.

    It has the attributes of :class:`BeforeTask` and one more.

    Attributes:
        result: The return value of the task.
    """

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        super().__init__(request, task, args, kwargs)
        self.result = result


class _TaskNotDone(_TaskEvent):
    """The base of the events about a task that raised an error."""

    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        exception: Exception,
    ) -> None:
        super().__init__(request, task, args, kwargs)
        self.exception = exception


class TaskFailed(_TaskNotDone):
    """A task has failed, and does not run again.

    The process that ran the task sends this event. A process that is killed, by a hard
    time limit for example, does not send it. An error of a subscriber is logged with
    the name and the id of the task; the task keeps its own error.

    It has the attributes of :class:`BeforeTask` and one more.

    Attributes:
        exception: The error that the task raised.
    """


class TaskRetried(_TaskNotDone):
    """A task will run again, by ``task.retry()`` or ``autoretry_for``.

    An error of a subscriber is logged with the name and the id of the task.

    It has the attributes of :class:`BeforeTask` and one more.

    Attributes:
        exception: The `Retry
            <https://docs.celeryq.dev/en/stable/reference/celery.exceptions.html>`_;
            ``exception.exc`` is the error that the task raised, or ``None``.
    """


class ProcessEvent:
    """A process of Celery starts, stops or is ready: the base of these events.

    Subscribers run with the registry as a threadlocal, like the subscribers of
    Pyramid's ``ApplicationCreated``. An error of a subscriber is logged with the name
    of the event. Each event says what such an error stops.

    Attributes:
        registry: The registry of the application.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


class CeleryWorkerInit(ProcessEvent):
    """A worker is about to be built: it has no pool and no connection yet.

    Sent once, in the worker's own process. After an error in a subscriber the worker
    does not start.
    """


class CeleryWorkerReady(ProcessEvent):
    """A worker takes tasks from now on.

    Sent once, in the worker's own process, and not again when the worker reconnects to
    the broker. After an error in a subscriber the worker goes on.
    """


class CeleryWorkerShutdown(ProcessEvent):
    """A worker has stopped: its tasks have ended, its pool is gone.

    Sent in the worker's own process, whether the worker was asked to stop at once or to
    let running tasks end first. Not sent if the worker was killed, or ended before it
    tried to reach the broker. After an error in a subscriber the worker stops all the
    same.
    """


class CeleryWorkerProcessInit(ProcessEvent):
    """A process that runs tasks has started.

    Sent in each child of the prefork pool, forked or spawned, and once in a worker
    whose pool runs tasks in the worker's own process (solo, threads, gevent, eventlet).
    Open here what must not be shared across a fork.

    A process in which a subscriber fails runs no tasks. A child ends, and the pool
    starts another; if a child ends while the worker starts, Celery may end the worker
    instead, as "Could not start worker processes". A worker that runs tasks in its own
    process does not start.
    """


class CeleryWorkerProcessShutdown(ProcessEvent):
    """A process that runs tasks will run no more of them.

    Sent in each process whose subscribers of ``CeleryWorkerProcessInit`` all succeeded.
    A child of the prefork pool sends it before it ends, also when the pool replaces the
    child (``worker_max_tasks_per_child``). Any other worker sends it when its pool has
    stopped, before ``CeleryWorkerShutdown``. Not sent in a process that is killed, by
    the hard time limit of a task or the end of its parent for example. After an error
    in a subscriber the process ends all the same.
    """


class CeleryBeatInit(ProcessEvent):
    """Beat is about to queue what is scheduled.

    Sent in the process of ``celery beat``, and with ``celery worker -B`` in the process
    that the worker starts for it. After an error in a subscriber beat does not start;
    a worker with ``-B`` goes on without it.
    """


class TaskDeliveryFailed(_AboutTask):
    """A transaction committed, but a task deferred in it could not be sent.

    Attributes:
        registry: The registry of the application.
        task: The Celery task.
        task_name: The name of the task.
        args: The positional arguments of the task.
        kwargs: The keyword arguments of the task.
        options: The options of ``Task.apply_async``; ``task_id`` is among them.
        exception: The error that prevented sending.
    """

    def __init__(
        self,
        registry: Registry,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        exception: BaseException,
    ) -> None:
        self.registry = registry
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.exception = exception
