"""``config.register_task``, ``add_periodic_task``, ``make_celery_app``; ``@task``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

import venusian
from pyramid.exceptions import ConfigurationError

from .exceptions import TaskError
from .loading import reporting, reporting_directive
from .registry import ExecutionPolicy, check_arguments, get_tasks, relate
from .schedules import parse_schedule
from .signature import default_name, present_as, signature_less_request
from .taskderivers import TaskDeriverInfo, TaskFunc, derive_task

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.schedules import BaseSchedule
    from pyramid.config import Configurator

    from .context import Capture, Restore

_Func = TypeVar("_Func", bound=Callable[..., Any])


@reporting_directive
def register_task(
    config: Configurator,
    func: Callable[..., Any] | str,
    name: str | None = None,
    **options: Any,
) -> None:
    """Register a function as a task of the application.

    The function takes the request first: ``def add(request, x, y)``; with
    ``bind=True``, the Celery task before it: ``def add(self, request, x, y)``.

    Args:
        func: A function, any other callable, or a dotted name.
        name: The name of the task; default, Celery's: ``<module>.<function>``. A
            callable without a name of its own needs one.
        options: The options of `Celery.task
            <https://docs.celeryq.dev/en/stable/userguide/tasks.html#list-of-options>`_,
            all of them, and those of the application's task derivers.

    Raises:
        TaskError: The callable has no name, or takes no request.
    """
    dotted = func if isinstance(func, str) else None
    original: Callable[..., Any] = config.maybe_dotted(func)
    tasks = get_tasks(config.registry)
    if name is None:
        name = default_name(tasks.app, original)
    bind = options.pop("bind", False)
    signature = signature_less_request(original, name, bind=bind)

    def register() -> None:
        info = TaskDeriverInfo(
            config.registry, config.package, name, {**options, "bind": bind}, original
        )
        innermost = _innermost(original, bind=bind)
        derived = derive_task(innermost, info, introspectable)
        run = _make_run(derived, tasks.runner.attempt, tasks.execution_policy)
        present_as(run, original, signature)
        tasks.add(run, original, name, options)

    introspectable = config.introspectable("tasks", name, name, "task")
    introspectable.update(
        name=name, func=original, dotted=dotted, bind=bind, options=options
    )
    action = reporting(config.action_info)(register)
    config.action(("task", name), action, introspectables=(introspectable,))


@reporting_directive
def add_periodic_task(
    config: Configurator,
    schedule: float | timedelta | BaseSchedule | str,
    func_or_name: Callable[..., Any] | str | Task,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **opts: Any,
) -> None:
    """Have ``celery beat`` queue a task on a schedule.

    Args:
        schedule: Seconds, a timedelta, a Celery schedule such as ``crontab(hour=3)``,
            or a cron expression of five fields.
        func_or_name: The task: its function, dotted name, registered name or the
            Celery task.
        args: Positional arguments of the task, after the request.
        kwargs: Keyword arguments of the task.
        opts: ``name`` is the name of the entry, which two entries for one task with
            the same arguments need; the rest are options of ``Task.apply_async``. See
            `Periodic tasks
            <https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html>`_.

    Raises:
        pyramid.exceptions.ConfigurationError: The schedule cannot be read.
        TaskNotRegistered: The application has no such task, once committed.
    """
    tasks = get_tasks(config.registry)
    if isinstance(schedule, (str, int, float)):
        try:
            schedule = parse_schedule(str(schedule))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    args, kwargs = tuple(args), dict(kwargs or {})
    title = opts.pop("name", None) or _call_repr(func_or_name, args, kwargs)

    def register() -> None:
        # A dotted name may be relative to the package, as in any directive.
        is_relative = isinstance(func_or_name, str) and func_or_name.startswith(".")
        task = tasks.find(
            config.maybe_dotted(func_or_name) if is_relative else func_or_name
        )
        check_arguments(task, args, kwargs)
        relate(introspectable, config.registry, "tasks", task.name)
        tasks.app.add_periodic_task(
            schedule, task.signature(), args, kwargs, name=title, **opts
        )

    introspectable = config.introspectable(
        "periodic tasks", title, title, "periodic task"
    )
    introspectable.update(
        schedule=schedule, task=func_or_name, args=args, kwargs=kwargs, options=opts
    )
    # After the tasks, wherever in the application they are registered.
    action = reporting(config.action_info, TypeError)(register)
    config.action(
        ("periodic task", title), action, introspectables=(introspectable,), order=10
    )


def add_task_context(
    config: Configurator, name: str, capture: Capture | str, restore: Restore | str
) -> None:
    """Have every task know something of the request that deferred it.

    It travels in a header of the message, so it should be small, and whoever can write
    to the broker can make it up. A task that defers a task hands on what came to it.

    Args:
        name: The name of the context.
        capture: ``capture(request)`` is called when a task is deferred, and returns
            what JSON can hold, or ``None`` for nothing. The request is that of a task
            where no request deferred that, as with ``celery beat``.
        restore: ``restore(request, value)`` is called with the request of the task,
            which has its methods and properties, before its root, its derivers and the
            task; not where the message brings no value.

    Both can be dotted names. An error of the one is raised where the task is deferred;
    one of the other is an error of the task.
    """
    functions = config.maybe_dotted(capture), config.maybe_dotted(restore)
    if not all(map(callable, functions)):
        raise ConfigurationError(
            f"The task context {name!r} needs two functions, capture(request) and "
            f"restore(request, value), not {functions[0]!r} and {functions[1]!r}"
        )

    def register() -> None:
        get_tasks(config.registry).contexts.add(name, *functions)

    introspectable = config.introspectable("task contexts", name, name, "task context")
    introspectable.update(name=name, capture=functions[0], restore=functions[1])
    config.action(("task context", name), register, introspectables=(introspectable,))


def make_celery_app(config: Configurator) -> Celery:
    """Commit the configuration and return the Celery application.

    The twin of ``config.make_wsgi_app()``, for a module that ``celery -A`` names.
    """
    config.commit()
    return get_tasks(config.registry).app


@overload
def task(func: _Func, /) -> _Func: ...
@overload
def task(**options: Any) -> Callable[[_Func], _Func]: ...
def task(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Mark a function as a task, for ``config.scan()`` to register.

    Takes the arguments of :func:`~pyramid_tasks.directives.register_task`. The function
    itself is returned as it was and stays callable::

        @task
        def add(request, x, y):
            return x + y

        @task(name="mail", autoretry_for=(OSError,))
        def send_mail(request, address): ...

    Raises:
        TaskError: It decorates a method; tasks are functions.
    """

    def attach(func: _Func, depth: int = 1) -> _Func:
        def register(context: Any, _name: str, func: _Func) -> None:
            config = context.config.with_package(info.module)
            if not hasattr(config, "register_task"):
                raise TaskError(
                    f"{func.__module__}.{func.__qualname__} is a task, but the "
                    "application does not include pyramid_tasks: call "
                    'config.include("pyramid_tasks") before config.scan()'
                )
            config.register_task(func, _info=info.codeinfo, **options)

        # The category that config.scan() looks for.
        info = venusian.attach(func, register, category="pyramid", depth=depth)
        if info.scope == "class":
            raise TaskError(
                f"{func.__qualname__} is a method; only functions can be tasks"
            )
        return func

    return attach if func is None else attach(func, depth=2)


def _innermost(func: Callable[..., Any], *, bind: bool) -> TaskFunc:
    """Return the task as derivers see it, whose first argument is the request."""
    if not bind:
        return func

    def bound(request: Any, /, *args: Any, **kwargs: Any) -> Any:
        return func(request.current_task, request, *args, **kwargs)

    return bound


def _make_run(
    derived: TaskFunc, attempt: Callable[..., Any], policy: ExecutionPolicy | None
) -> Callable[..., Any]:
    """Return what Celery runs: the derived task, with a request."""

    def run(self: Task, /, *args: Any, **kwargs: Any) -> Any:
        return attempt(self, derived, args, kwargs)

    if policy is None:
        return run

    def run_by_policy(self: Task, /, *args: Any, **kwargs: Any) -> Any:
        return policy(lambda environ: attempt(self, derived, args, kwargs, environ))

    return run_by_policy


def _call_repr(
    func_or_name: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    name = getattr(func_or_name, "__qualname__", None) or str(func_or_name)
    given = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return f"{name}({', '.join(given)})"
