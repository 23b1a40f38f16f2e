"""Where the Celery application and its tasks are kept on the Pyramid registry."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable
from difflib import get_close_matches
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

from celery import Task
from pyramid.config import PHASE0_CONFIG
from pyramid.config.actions import action_method

from .application import PyramidCelery, PyramidLoader, names_broker
from .context import TaskContexts
from .delivery import Delivery
from .exceptions import AmbiguousTask, SettingError, TaskError, TaskNotRegistered
from .loading import current_load, reporting
from .settings import (
    Settings,
    extract_celery_settings,
    merge_settings,
    warn_of_unknown_settings,
)
from .worker import TaskRunner

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.registry import Introspectable, Registry

logger = logging.getLogger(__name__)

_KEY = "pyramid_tasks"

#: ``policy(attempt)`` runs a task by calling ``attempt(environ)``, once or more often;
#: each attempt has a request of its own. As Pyramid's execution policy for views.
ExecutionPolicy = Callable[[Callable[[dict[str, Any]], Any]], Any]


def get_tasks(registry: Registry) -> Tasks:
    """Return the tasks of the application that a registry belongs to.

    Raises:
        TaskError: It has none.
    """
    try:
        tasks: Tasks = registry[_KEY]
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
        contexts: What its tasks know of the requests that deferred them.
        runner: What runs its tasks.
        section_settings: What the ini says of this process beside the settings of
            the application: the keys of ``[celery:NAME]``, schedules and routes.
        deliveries: The ways a task can be delivered, by name.
        delivery: The name of the one to use by default.
        execution_policy: What runs a task, if it is more than once.
    """

    def __init__(self, app: PyramidCelery, registry: Registry) -> None:
        self.app = app
        self.contexts = TaskContexts()
        self.runner = TaskRunner(registry, self.contexts)
        self.section_settings: Settings = {}
        self.deliveries: dict[str, Delivery] = {}
        self.delivery = "immediate"
        self.execution_policy: ExecutionPolicy | None = None
        # The names a function, or its dotted name, is registered under, in order.
        self._names: defaultdict[Hashable, dict[str, None]] = defaultdict(dict)
        # What was found for what, since the last one was added.
        self._found: dict[object, Task] = {}

    def add(
        self,
        run: Callable[..., Any],
        func: Callable[..., Any],
        name: str,
        options: dict[str, Any],
    ) -> None:
        """Make a Celery task.

        Args:
            run: What Celery runs, bound to the task.
            func: The function it was made from, by which it can be found.
            name: The name of the task.
            options: The options of ``Celery.task``.
        """
        if name in self.app.tasks:
            # Committed before: a later registration wins, as in all of Pyramid,
            # where Celery would keep the first.
            self.app.tasks.unregister(name)
            for names in self._names.values():
                names.pop(name, None)
        # Celery would share the task with every application in the process, and make
        # it later.
        options = {**options, "shared": False, "lazy": False}
        self._found.clear()
        task = self.app.task(run, name=name, bind=True, **options)
        # Around what Celery makes of it: the request outlives autoretry_for, so that
        # subscribers learn of a retry, with the request.
        task.run = update_wrapper(partial(self.runner.run, task, task.run), task.run)
        self._names[_identity(func)][name] = None
        qualname = getattr(func, "__qualname__", None)
        if qualname is not None:
            for separator in ".", ":":
                self._names[f"{func.__module__}{separator}{qualname}"][name] = None

    def find(self, task: object) -> Task:
        """Return the Celery task that a task, a function or a name stands for.

        Raises:
            TaskNotRegistered: There is none.
            AmbiguousTask: It is a function with several names.
        """
        try:
            return self._found[task]
        except (KeyError, TypeError):  # a callable object can be unhashable
            pass  # so that what follows raises without this error
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
        """Return the delivery of a name, or that of the application.

        Raises:
            SettingError: There is no delivery of that name.
        """
        try:
            return self.deliveries[name or self.delivery]
        except KeyError:
            known = ", ".join(sorted(self.deliveries))
            hint = ""
            if "commit" not in self.deliveries:
                hint = " Include pyramid_tasks.contrib.pyramid_tm for the others."
            raise SettingError(
                "delivery" if name else "pyramid_tasks.delivery",
                f"= {name or self.delivery} is none of those known: {known}.{hint}",
            ) from None

    def _nearest(self, task: object) -> str | None:
        name = task if isinstance(task, str) else getattr(task, "__qualname__", "")
        # The name of the function alone is as likely a slip as a misspelt one.
        matches = [known for known in self.app.tasks if known.endswith(f".{name}")]
        matches += get_close_matches(name, self.app.tasks, n=1)
        return matches[0] if matches else None


def _identity(func: object) -> Hashable:
    try:
        hash(func)
    except TypeError:  # a callable object can be unhashable
        return id(func)
    return func


def check_arguments(task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check a call against the signature of a task, as ``Task.apply_async`` does.

    Raises:
        TypeError: The task cannot be called so.
    """
    if task.typing and hasattr(task, "__header__"):
        task.__header__(*args, **kwargs)


def relate(
    introspectable: Introspectable, registry: Registry, category: str, name: str
) -> None:
    """Relate an introspectable to another, if there is that other.

    There is none where a part of the application has introspection switched off.
    """
    if registry.introspector.get(category, name) is not None:
        introspectable.relate(category, name)


@action_method
def add_delivery(config: Configurator, name: str, delivery: Delivery) -> None:
    """Make a way known in which a task can be delivered."""
    tasks = get_tasks(config.registry)
    tasks.deliveries[name] = delivery
    introspectable = config.introspectable(
        "task deliveries", name, name, "task delivery"
    )
    introspectable.update(name=name, delivery=delivery)

    def register() -> None:
        # Known when the settings have been read, and all has been included.
        introspectable["default"] = tasks.delivery == name

    config.action(("task delivery", name), register, introspectables=(introspectable,))


def includeme(config: Configurator) -> None:
    """Put a Celery application on the registry, configured when that is committed."""
    registry = config.registry
    app = PyramidCelery(
        registry.package_name,
        loader=partial(PyramidLoader, registry=registry),
        # Several applications in one process must not see each other's tasks.
        set_as_current=False,
    )
    registry[_KEY] = tasks = Tasks(app, registry)
    add_delivery(config, "immediate", Delivery(app))
    load = current_load()
    if load:
        tasks.section_settings = load.settings
        load.created.append((app, registry))

    def configure() -> None:
        settings = config.get_settings()
        tasks.delivery = settings.get("pyramid_tasks.delivery", tasks.delivery)
        warn_of_unknown_settings(settings)
        own = extract_celery_settings(settings)
        app.config_from_object(merge_settings(own, tasks.section_settings), force=True)
        if not (load or names_broker(app) or app.conf.task_always_eager):
            logger.warning(
                "celery.broker_url is not set: tasks go to Celery's default, amqp://"
            )

    # Before anything else is registered, as Celery binds its tasks to the settings.
    config.action((_KEY, "settings"), configure, order=PHASE0_CONFIG)
    if not config.autocommit:  # where nothing is known of what is included later
        config.action((_KEY, "delivery"), reporting()(tasks.get_delivery))
