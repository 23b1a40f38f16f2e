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
    return bool(registry.adapters.subscriptions((implementedBy(event_type),), None))


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


class CeleryWorkerProcessInit:
    """A process that runs tasks has started.

    Sent in each child of the prefork pool after the fork, and once in a worker whose
    pool runs tasks in the worker's own process (solo, threads, gevent, eventlet). The
    place to open what must not be shared across a fork.

    Attributes:
        registry: The registry of the application.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


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
