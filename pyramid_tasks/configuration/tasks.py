"""``config.register_task``, and the decorator ``@task``."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import venusian

from ..exceptions import TaskError
from ..registry import ExecutionPolicy, get_tasks
from ..worker.request import get_runner
from .call_options import check_task_options
from .derivers import TaskDeriverInfo, TaskFunc, derive_task
from .functions import check_kind, is_async
from .importable import maybe_dotted
from .inbox import inbox_options, set_up_inbox
from .load import reporting, reporting_directive
from .signature import default_name, present_as, signature_less_request

if TYPE_CHECKING:
    from celery import Task
    from pyramid.config import Configurator

    from ..worker.request import TaskRunner

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
    ``bind=True``, the Celery task before it: ``def add(self, request, x, y)``. It can
    be an ``async def``.

    Args:
        func: A function, any other callable, or a dotted name.
        name: The name of the task; default, Celery's: ``<module>.<function>``. A
            callable without a name of its own needs one.
        options: All options of `Celery.task
            <https://docs.celeryq.dev/en/stable/userguide/tasks.html#list-of-options>`_,
            and the options of the application's task derivers.

    Raises:
        TaskError: The callable has no name or takes no request, it is a class or a
            generator function, its dotted name leads nowhere, or Celery cannot use the
            value of an option.
    """
    dotted = func if isinstance(func, str) else None
    original: Callable[..., Any] = maybe_dotted(config, func)
    check_kind(original)
    tasks = get_tasks(config.registry)
    if name is None:
        name = default_name(tasks.app, original)
    _check_options(name, options)
    bind = options.pop("bind", False)
    if is_async(original):
        # Here, as it imports asyncio.
        config.include("pyramid_tasks.worker.coroutines")
    signature = signature_less_request(original, name, bind=bind)

    def register() -> None:
        options.update(inbox_options(config.registry, name, options))
        info = TaskDeriverInfo(
            config.registry, config.package, name, {**options, "bind": bind}, original
        )
        innermost = _innermost(original, bind=bind)
        derived = derive_task(innermost, info, introspectable)
        runner = get_runner(config.registry)
        run = _make_run(derived, runner.attempt, tasks.execution_policy, bind=bind)
        evaluate = bool(options.get("pydantic"))
        present_as(run, original, signature, evaluate=evaluate)
        task = tasks.add(run, original, name, {**options, "bind": bind})
        set_up_inbox(task, options)
        # Celery has put autoretry_for around the function. The request goes around
        # both, so that subscribers of a retry get it.
        seen = MethodType(run, task) if bind else run
        task.is_async = is_async(original)
        task.run = task.__wrapped__ = _with_request(runner, task, original, seen)

    introspectable = config.introspectable("tasks", name, name, "task")
    introspectable.update(
        name=name, func=original, dotted=dotted, bind=bind, options=options
    )
    action = reporting(config.action_info)(register)
    config.action(("task", name), action, introspectables=(introspectable,))


@overload
def task(func: _Func, /) -> _Func: ...
@overload
def task(**options: Any) -> Callable[[_Func], _Func]: ...
def task(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Mark a function as a task, for ``config.scan()`` to register.

    It takes the arguments of
    :func:`~pyramid_tasks.configuration.tasks.register_task`. It returns the function
    itself, which stays callable::

        @task
        def add(request, x, y):
            return x + y

        @task(name="mail", autoretry_for=(OSError,))
        def send_mail(request, address): ...

    Raises:
        TaskError: It is no function, or a method. Only functions can be tasks.
    """

    def attach(func: _Func, depth: int = 1) -> _Func:
        if not callable(func):
            place = traceback.extract_stack(limit=depth + 1)[0]
            written = f"name={func!r}" if isinstance(func, str) else "..."
            raise TaskError(
                f"{place.filename}:{place.lineno}: @task is given "
                f"{func!r}, which is no function: write @task or @task({written}) "
                "above the def of a function."
            )

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


def _check_options(name: str, options: dict[str, Any]) -> None:
    if not isinstance(name, str) or not name:
        raise TaskError(f"name = {name!r} is not the name of a task: write text.")
    try:
        check_task_options(options)
    except ValueError as error:
        raise TaskError(f"The task {name}: {error}") from None


def _innermost(func: Callable[..., Any], *, bind: bool) -> TaskFunc:
    """Return the task as derivers see it: its first argument is the request."""

    def bound(request: Any, /, *args: Any, **kwargs: Any) -> Any:
        return func(request.current_task, request, *args, **kwargs)

    innermost = bound if bind else func
    if is_async(func):
        from ..worker.coroutines import awaiting

        return awaiting(innermost)
    return innermost


def _make_run(
    derived: TaskFunc,
    attempt: Callable[..., Any],
    policy: ExecutionPolicy | None,
    *,
    bind: bool,
) -> Callable[..., Any]:
    """Return the function that is the task for Celery: it makes a request."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if policy is None:
            return attempt(derived, args, kwargs)
        return policy(lambda environ: attempt(derived, args, kwargs, environ))

    def bound_run(_self: Task, /, *args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    return bound_run if bind else run


def _with_request(
    runner: TaskRunner, task: Task, func: TaskFunc, seen: Callable[..., Any]
) -> Callable[..., Any]:
    """Return ``task.run``, with a request around it, that looks as ``seen`` does."""
    inner = task.run

    def run(*args: Any, **kwargs: Any) -> Any:
        return runner.run(task, inner, *args, **kwargs)

    update_wrapper(run, seen)
    run.__signature__ = inspect.signature(seen)  # type: ignore[attr-defined]
    run.__wrapped__ = func  # type: ignore[attr-defined]  # where the source is
    return run
