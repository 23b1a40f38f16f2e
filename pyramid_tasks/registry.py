"""The registry of a Pyramid application keeps its Celery application and its tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from celery import Task

from .exceptions import (
    AmbiguousTask,
    SettingError,
    TaskError,
    TaskNotRegistered,
    near_names,
)

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.registry import Introspectable, Registry
    from pyramid.request import Request

    from .application import PyramidCelery
    from .settings import Settings

#: The key of the registry that has the :class:`Tasks`.
KEY = "pyramid_tasks"

#: ``capture(request)`` returns a value that JSON can hold, or ``None`` for nothing.
Capture = Callable[["Request"], Any]
#: ``restore(request, value)`` gives the value to the request of the task.
Restore = Callable[["Request", Any], None]
#: The two functions of each task context, by its name.
Contexts = dict[str, tuple[Capture, Restore]]

#: ``policy(attempt)`` runs a task by calling ``attempt(environ)``, once or more often.
#: Each attempt has a request of its own. It is the twin of Pyramid's execution policy.
ExecutionPolicy = Callable[[Callable[[dict[str, Any]], Any]], Any]


class Delivery(Protocol):
    """A way to the broker.

    Attributes:
        app: The Celery application that sends.
        is_transactional: Whether it waits for the transaction of the request.
    """

    app: PyramidCelery
    is_transactional: bool

    def is_direct(self, request: Request) -> bool:
        """Whether this would only call ``Task.apply_async`` for a single task.

        Celery then checks and serializes the arguments as it sends the task.
        """

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        """Deliver tasks, chains, groups and chords that have been prepared.

        Args:
            request: The request that defers them. Its transaction decides when they go.
            signatures: The tasks and canvases, in their order.
        """


def get_tasks(registry: Registry) -> Tasks:
    """Return the tasks of the application that a registry belongs to.

    Raises:
        TaskError: The application does not include this package.
        TypeError: The argument is not a registry.
    """
    try:
        tasks: Tasks = registry[KEY]
    except KeyError:
        raise TaskError(
            "The application does not include pyramid_tasks: call "
            'config.include("pyramid_tasks")'
        ) from None
    except TypeError:
        hint = "pass app.registry or config.registry"
        raise TypeError(f"{registry!r} is no registry; {hint}") from None
    return tasks


class Tasks:
    """The Celery application of a Pyramid application, and the tasks in it.

    Attributes:
        app: The Celery application.
        contexts: The task contexts.
        section_settings: The Celery settings that the ini has outside the application:
            the keys of ``[celery:NAME]``, schedules and routes.
        section: The file and the section that they are from, for messages.
        is_worker: Whether the application is loaded for a worker, or another command of
            Celery, and not for a web process.
        deliveries: The deliveries that the application can choose, by name.
        delivery: The name of the default delivery.
        execution_policy: Runs a task, once or more often; ``None`` runs it once.
    """

    def __init__(self, app: PyramidCelery) -> None:
        self.app = app
        self.contexts: Contexts = {}
        self.section_settings: Settings = {}
        self.section: str | None = None
        self.is_worker = False
        self.deliveries: dict[str, Delivery] = {}
        self.delivery = "immediate"
        self.execution_policy: ExecutionPolicy | None = None
        # The names of the tasks that are made of a function, by the function and by
        # its dotted names.
        self._names: defaultdict[Hashable, dict[str, None]] = defaultdict(dict)
        # The results of find() since the last task was added.
        self._found: dict[object, Task] = {}

    def add(
        self,
        run: Callable[..., Any],
        func: Callable[..., Any],
        name: str,
        options: dict[str, Any],
    ) -> Task:
        """Make a Celery task, and return it.

        Args:
            run: The function that Celery runs.
            func: The function of the application. :meth:`find` knows the task by it.
            name: The name of the task.
            options: The options of ``Celery.task``.
        """
        if name in self.app.tasks:
            # In Pyramid a later commit wins. Celery would keep the first task.
            self.app.tasks.unregister(name)
            for names in self._names.values():
                names.pop(name, None)
        # By default, Celery makes the task later, and shares it with every application
        # in the process.
        options = {**options, "shared": False, "lazy": False}
        self._found.clear()
        task = self.app.task(run, name=name, **options)
        self._names[_identity(func)][name] = None
        qualname = getattr(func, "__qualname__", None)
        if qualname is not None:
            for separator in ".", ":":
                self._names[f"{func.__module__}{separator}{qualname}"][name] = None
        return task

    def find(self, task: object) -> Task:
        """Return the Celery task of a task, a function, or the name of either.

        Raises:
            TaskNotRegistered: The application has no such task.
            AmbiguousTask: The function is registered under several names.
        """
        try:
            return self._found[task]
        except (KeyError, TypeError):  # a callable object can be unhashable
            pass  # _find() then raises its error without this one
        found = self._find(task)
        if isinstance(task, Hashable):
            self._found[task] = found
        return found

    def _find(self, task: object) -> Task:
        if isinstance(task, Task):
            name = task.name
            if self.app.tasks.get(name) is task:
                return task
            raise TaskNotRegistered(name, self._nearest(name))
        if isinstance(task, str) and task in self.app.tasks:
            return self.app.tasks[task]
        names = list(self._names.get(_identity(task), ()))
        if len(names) > 1:
            raise AmbiguousTask(task, names)
        if names:
            return self.app.tasks[names[0]]
        raise TaskNotRegistered(task, self._nearest(task))

    def get_delivery(self, name: str | None = None) -> Delivery:
        """Return a delivery by its name, by default the delivery of the application.

        Raises:
            SettingError: No delivery has that name.
        """
        try:
            return self.deliveries[name or self.delivery]
        except (KeyError, TypeError):  # a list has no hash
            known = ", ".join(sorted(self.deliveries))
            hint = ""
            if "commit" not in self.deliveries:
                hint = " Include pyramid_tasks.contrib.pyramid_tm for the others."
            raise SettingError(
                "delivery" if name else "pyramid_tasks.delivery",
                f"= {name or self.delivery} is not one of the known deliveries: "
                f"{known}.{hint}",
            ) from None

    def _nearest(self, task: object) -> str | None:
        name = task if isinstance(task, str) else getattr(task, "__qualname__", "")
        # Users leave out the module as often as they misspell a name.
        matches = [known for known in self.app.tasks if known.endswith(f".{name}")]
        matches += near_names(name, self.app.tasks)
        return matches[0] if matches else None


def tasks_with_inbox(app: Celery) -> Iterator[Task]:
    """Yield the tasks of an application that have an inbox."""
    return (task for task in app.tasks.values() if getattr(task, "inbox", False))


def _identity(func: object) -> Hashable:
    try:
        hash(func)
    except TypeError:  # a callable object can be unhashable
        return id(func)
    return func


def check_arguments(task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check the arguments of a call, as ``Task.apply_async`` does.

    Raises:
        TypeError: The task does not take these arguments.
    """
    if task.typing and hasattr(task, "__header__"):
        task.__header__(*args, **kwargs)


def relate(
    introspectable: Introspectable, registry: Registry, category: str, name: str
) -> None:
    """Relate an introspectable to another one, if that exists.

    It does not where a part of the application has introspection switched off.

    Args:
        introspectable: The introspectable that gets the relation.
        registry: The registry of the application.
        category: The category of the other introspectable.
        name: The discriminator of the other introspectable.
    """
    if registry.introspector.get(category, name) is not None:
        introspectable.relate(category, name)
