"""The events of this package, for ``config.add_subscriber``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import implementedBy

if TYPE_CHECKING:
    from celery import Task
    from pyramid.registry import Registry
    from pyramid.request import Request


def has_subscribers(registry: Registry, event_type: type) -> bool:
    """Whether anybody subscribes to an event: to make one for nobody takes longer."""
    return registry.has_listeners and bool(
        registry.adapters.subscriptions((implementedBy(event_type),), None)
    )


class BeforeDeferTask:
    """A task is about to be queued.

    Attributes:
        request: The request that defers the task.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
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
        self.request = request
        self.task = task
        self.task_name: str = task.name
        self.args = args
        self.kwargs = kwargs
        self.options = options


class _TaskEvent:
    def __init__(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.request = request
        self.task = task
        self.task_name: str = task.name
        self.args = args
        self.kwargs = kwargs


class BeforeTask(_TaskEvent):
    """A task is about to run: its request is ready, its derivers have not begun.

    Where ``pyramid_retry`` runs a task again, sent for each attempt. An error of a
    subscriber is an error of the task.

    Attributes:
        request: The request of the task.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """


class AfterTask(_TaskEvent):
    """A task has returned and its derivers have ended: its transaction has committed.

    An error of a subscriber is an error of the task, which fails then.

    Attributes:
        request: The request of the task.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
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

    Sent in the process that ran it: not when that process was killed, by a hard time
    limit for example. An error of a subscriber is logged, with the name and the id of
    the task, which has failed with its own.

    Attributes:
        request: The request of the task.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        exception: What it raised.
    """


class TaskRetried(_TaskNotDone):
    """A task will run again, by ``task.retry()`` or ``autoretry_for``.

    An error of a subscriber is logged, with the name and the id of the task.

    Attributes:
        request: The request of the task.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        exception: The `Retry
            <https://docs.celeryq.dev/en/stable/reference/celery.exceptions.html>`_;
            ``exception.exc`` is what the task raised, if it did.
    """


class ProcessEvent:
    """Something that happens to a process of Celery: the base of such events.

    Subscribers run with the registry as a threadlocal, as those of Pyramid's
    ``ApplicationCreated`` do. The error of one is logged with the name of the event;
    what it stops, each event says.

    Attributes:
        registry: The registry of the application.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


class CeleryWorkerInit(ProcessEvent):
    """A worker is about to be built: it has no pool and no connection yet.

    Sent in the worker's own process, once. After an error in a subscriber the worker
    does not start.
    """


class CeleryWorkerReady(ProcessEvent):
    """A worker takes tasks from now on.

    Sent in the worker's own process, once: not again when it reconnects to the broker.
    After an error in a subscriber it goes on.
    """


class CeleryWorkerShutdown(ProcessEvent):
    """A worker has stopped: its tasks have ended, its pool is gone.

    Sent in the worker's own process, whether it was asked to stop at once or to let
    running tasks end first, but not when it was killed, or ended before it tried to
    reach the broker. After an error in a subscriber it stops all the same.
    """


class CeleryWorkerProcessInit(ProcessEvent):
    """A process that runs tasks has started.

    Sent in each child of the prefork pool, forked or spawned, and once in a worker
    whose pool runs tasks in the worker's own process (solo, threads, gevent, eventlet).
    The place to open what must not be shared across a fork.

    A process in which a subscriber fails runs no tasks. A child ends, and the pool
    starts another; if that happens while the worker starts, Celery may end the worker
    instead, as "Could not start worker processes". A worker that is itself the process
    does not start.
    """


class CeleryWorkerProcessShutdown(ProcessEvent):
    """A process that runs tasks will run no more of them.

    Sent where ``CeleryWorkerProcessInit`` was, once its subscribers had all succeeded:
    in a child of the prefork pool before it ends, also when it is replaced
    (``worker_max_tasks_per_child``), and in any other worker when its pool has stopped,
    before ``CeleryWorkerShutdown``. Not sent in a process that is killed, as by the
    hard time limit of a task or the end of its parent. After an error in a subscriber
    the process ends all the same.
    """


class CeleryBeatInit(ProcessEvent):
    """Beat is about to queue what is scheduled.

    Sent in the process of ``celery beat``, and with ``celery worker -B`` in the process
    that the worker starts for it. After an error in a subscriber beat does not start;
    a worker with ``-B`` goes on without it.
    """


class TaskDeliveryFailed:
    """A transaction committed, but a task deferred in it could not be sent.

    Attributes:
        registry: The registry of the application.
        task: The Celery task.
        task_name: The name it is registered under.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        options: The options of ``Task.apply_async``; ``task_id`` is among them.
        exception: What went wrong.
    """

    def __init__(
        self,
        registry: Registry,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        exception: Exception,
    ) -> None:
        self.registry = registry
        self.task = task
        self.task_name: str = task.name
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.exception = exception
