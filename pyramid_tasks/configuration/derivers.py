"""``config.add_task_deriver``, and the derived task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pyramid.config import PHASE1_CONFIG
from pyramid.exceptions import ConfigurationError
from pyramid.util import TopologicalSorter, is_nonstr_iter
from pyramid.viewderivers import INGRESS
from zope.interface import implementer

from ..exceptions import TaskError
from ..interfaces import ITaskDeriverInfo, ITaskDerivers
from ..registry import relate
from .functions import check_callback
from .importable import maybe_dotted
from .load import reporting_directive

if TYPE_CHECKING:
    from types import ModuleType

    from pyramid.config import Configurator
    from pyramid.registry import Introspectable, Registry

TaskFunc = Callable[..., Any]

#: The end of the chain of derivers: the task itself, as ``VIEW`` for view derivers.
TASK = "TASK"


@implementer(ITaskDeriverInfo)
class TaskDeriverInfo:
    """The facts that a deriver gets about the task it wraps."""

    def __init__(
        self,
        registry: Registry,
        package: ModuleType,
        name: str,
        options: dict[str, Any],
        original_func: TaskFunc,
    ) -> None:
        self.registry = registry
        self.package = package
        self.name = name
        self.options = options
        self.original_func = original_func


@reporting_directive
def add_task_deriver(
    config: Configurator,
    deriver: Callable[[TaskFunc, TaskDeriverInfo], TaskFunc] | str,
    name: str | None = None,
    under: str | Iterable[str] | None = None,
    over: str | Iterable[str] | None = None,
) -> None:
    """Wrap every task, as ``config.add_view_deriver`` wraps every view.

    Args:
        deriver: ``deriver(task, info)`` returns a callable to be used in place of
            ``task``; both are called as ``task(request, *args, **kwargs)``. ``info``
            is an :class:`~pyramid_tasks.interfaces.ITaskDeriverInfo`. A dotted name
            is allowed.
        name: The name of the deriver; default, the name of the callable.
        under: This deriver goes closer to the task than these derivers (or
            ``INGRESS``).
        over: This deriver goes further from the task than these derivers (or
            ``TASK``).

    Raises:
        pyramid.exceptions.ConfigurationError: The name or the position is reserved, or
            the deriver cannot be called with ``(task, info)``, is async or has no
            name.
    """
    found: Any = maybe_dotted(config, deriver)
    if not callable(found):
        raise TaskError(f"A task deriver is a function, and not {found!r}.")
    name = name or getattr(found, "__name__", "")
    if not name:
        raise TaskError(f"{found!r} has no name of its own: give one, name='...'.")
    check_callback(f"The task deriver {name}", found, "task", "info")
    under = _as_tuple(under) or (INGRESS,)
    over = _as_tuple(over) or (TASK,)
    if name in {INGRESS, TASK}:
        raise ConfigurationError(f"{name} is a reserved task deriver name")
    if INGRESS in over:
        raise ConfigurationError(f"{name} cannot be over INGRESS")
    if TASK in under:
        raise ConfigurationError(f"{name} cannot be under TASK")

    def register() -> None:
        derivers = config.registry.queryUtility(ITaskDerivers)
        if derivers is None:
            derivers = TopologicalSorter(
                default_before=TASK, default_after=INGRESS, first=INGRESS, last=TASK
            )
            config.registry.registerUtility(derivers, ITaskDerivers)
        derivers.add(name, found, before=over, after=under)

    introspectable = config.introspectable("task derivers", name, name, "task deriver")
    introspectable.update(name=name, deriver=found, under=under, over=over)
    config.action(
        ("task deriver", name),
        register,
        introspectables=(introspectable,),
        order=PHASE1_CONFIG,  # before the tasks, as derivers of views before views
    )


def derive_task(
    task: TaskFunc, info: TaskDeriverInfo, introspectable: Introspectable
) -> TaskFunc:
    """Return ``task`` wrapped by every deriver of the application.

    Args:
        introspectable: The introspectable of the task. The function adds the names of
            the derivers, the outermost first, and relates it to theirs.

    Raises:
        TaskError: A deriver returned something that cannot be called.
    """
    derivers = info.registry.queryUtility(ITaskDerivers)
    chain = [] if derivers is None else derivers.sorted()
    for name, deriver in reversed(chain):
        task = deriver(task, info)
        if not callable(task):
            raise TaskError(
                f"The task deriver {name} returned {task!r} for the task {info.name}. "
                "A deriver returns a function."
            )
    introspectable["derivers"] = [name for name, _ in chain]
    for name, _ in chain:
        relate(introspectable, info.registry, "task derivers", name)
    return task


def _as_tuple(names: str | Iterable[str] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    return tuple(names) if is_nonstr_iter(names) else (str(names),)
