"""The tasks that were deferred: to look at, and to run."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import reprcall

from .._celery import as_current_app, dump_models
from ..deferring.call import serialize_arguments
from ..delivery.canvas import nodes
from ..events import TaskFailed
from ..exceptions import CaptureError, DeferError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..registry import Tasks
    from ..typing import TaskLike
    from .delivery import Captured, CapturedTask

#: After this many tasks in one run, tasks seem to defer each other for ever.
RUN_LIMIT = 1000


class Deferred:
    """The tasks that were deferred and not sent; :func:`capture` gives them."""

    def __init__(self, tasks: Tasks, captured: list[Captured]) -> None:
        self._tasks = tasks
        self._captured = captured

    def __repr__(self) -> str:
        return f"<Deferred {self.tasks}>"

    @property
    def tasks(self) -> list[CapturedTask]:
        """The tasks that workers would have got by now, in order.

        Each task of a chain, group or chord counts. A task that was deferred in a
        transaction is there when the transaction has committed.
        """
        return _tasks(each for each in self._captured if each.committed)

    @property
    def uncommitted(self) -> list[CapturedTask]:
        """The tasks whose transaction was rolled back, or has not ended."""
        return _tasks(each for each in self._captured if not each.committed)

    def find(
        self, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
    ) -> list[CapturedTask]:
        """Return the calls of a task among :attr:`tasks`.

        Args:
            func_or_name: The task: its function, dotted name, registered name or the
                Celery task.
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call. Without any arguments, all calls
                of the task are found. With arguments, position and name make no
                difference, and defaults may be left out. The arguments are compared as
                a worker gets them: a tuple equals the list that JSON makes of it.

        Raises:
            TaskNotRegistered: The application has no such task.
            AmbiguousTask: The function is registered under several names.
            TypeError: No call of the task can have these arguments.
        """
        name = self._name(func_or_name)
        found = [task for task in self.tasks if task.name == name]
        if not args and not kwargs:
            return found
        self._check_arguments(name, args, kwargs)
        return [task for task in found if self._is_call(task, args, kwargs)]

    def assert_deferred(
        self, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
    ) -> CapturedTask:
        """Fail if a task was not deferred, and return its first call.

        Args:
            func_or_name: The task, as for :meth:`find`.
            args: With ``kwargs``, all arguments of the call; or none, for every call.
            kwargs: See ``args``.

        Raises:
            AssertionError: The task was not deferred so.
            TaskNotRegistered: The application has no such task.
        """
        __tracebackhide__ = True
        if found := self.find(func_or_name, *args, **kwargs):
            return found[0]
        call = self._call(func_or_name, args, kwargs)
        raise AssertionError(f"{call} was not deferred.\n{self._list()}")

    def assert_not_deferred(
        self, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
    ) -> None:
        """Fail if a task was deferred, with these arguments if any are given.

        Args:
            func_or_name: The task, as for :meth:`find`.
            args: With ``kwargs``, all arguments of the call; or none, for every call.
            kwargs: See ``args``.

        Raises:
            AssertionError: The task was deferred so.
            TaskNotRegistered: The application has no such task.
        """
        __tracebackhide__ = True
        if self.find(func_or_name, *args, **kwargs):
            call = self._call(func_or_name, args, kwargs)
            raise AssertionError(f"{call} was deferred.\n{self._list()}")

    def run(self, at_most: int | None = None, *, twice: bool = False) -> list[Any]:
        """Run the deferred tasks, and the tasks that they defer, in order.

        Each task runs in this thread as in a worker: with its own request and, with
        ``pyramid_tasks.contrib.pyramid_tm``, its own transaction. Commit or abort your
        own transaction first. ``countdown``, ``eta`` and ``expires`` have no effect. A
        task that retries runs again at once, as often as its ``max_retries`` allow.

        Args:
            at_most: The number of tasks to run; a chain, group or chord counts as one.
                Default, all.
            twice: Whether to run each task a second time, with the same id, as a broker
                might deliver its message again.

        Returns:
            The value that each of them returned the first time. A chain and a chord
            have the value of their last task, and a group has a list.

        Raises:
            Exception: The error of a task, after its last retry. The task does not run
                again. The tasks after it wait for the next call.
            TaskNotRegistered: The task belongs to another application.
            CaptureError: The tasks defer each other without end.
        """
        results: list[Any] = []
        while at_most is None or len(results) < at_most:
            waiting = (each for each in self._captured if each.committed)
            captured = next((each for each in waiting if not each.started), None)
            if captured is None:
                break
            if at_most is None and len(results) == RUN_LIMIT:
                raise CaptureError(
                    f"{RUN_LIMIT} tasks have run and {captured.tasks} still waits: "
                    "there is a task that defers itself, directly or by another. Say "
                    "how many to run: deferred.run(10)."
                )
            results.append(self._run(captured))
            if twice:
                self._run(captured)
        return results

    def _run(self, captured: Captured) -> Any:
        captured.started = True
        for task in captured.tasks:
            self._tasks.find(task.name)  # which says more than Celery's KeyError
        errors: list[Exception] = []

        def note(event: TaskFailed) -> None:
            errors.append(event.exception)

        app = self._tasks.app
        app.registry.registerHandler(note, [TaskFailed])
        try:
            # As in a worker.
            with as_current_app(app):
                result = captured.signature.apply().get()
        except Exception as error:
            if errors and all(error is not each for each in errors):
                # Celery has made it one that can be pickled.
                raise errors[-1] from errors[-1].__cause__
            raise
        finally:
            app.registry.unregisterHandler(note, [TaskFailed])
        captured.sent = True
        return result

    def clear(self) -> None:
        """Forget the tasks that were deferred so far."""
        self._captured.clear()

    def _name(self, func_or_name: TaskLike) -> str:
        if isinstance(func_or_name, str) and any(
            task.name == func_or_name for task in self.tasks
        ):
            return func_or_name  # the task may belong to another application
        name: str = self._tasks.find(func_or_name).name
        return name

    def _call(
        self, func_or_name: TaskLike, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str:
        name = self._name(func_or_name)
        return reprcall(name, args, kwargs) if args or kwargs else name

    def _check_arguments(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        task = self._tasks.app.tasks.get(name)
        if task is None or not task.typing:
            return
        try:
            # In a chain, not all arguments need to be there.
            inspect.signature(task.run).bind_partial(*args, **kwargs)
        except TypeError as error:
            call = reprcall(name, args, kwargs)
            raise TypeError(f"{call} cannot have been deferred: {error}") from None

    def _is_call(
        self, task: CapturedTask, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        expected = self._bind(task.name, args, kwargs)
        # Which argument takes a model is seen from all of them.
        sent = dump_models(self._tasks.app.tasks.get(task.name), args, kwargs)
        dumped = self._bind(task.name, *sent)
        given = self._bind(task.name, task.args, task.kwargs)
        return expected.keys() == given.keys() and all(
            value == given[key] or self._as_received(task, dumped[key]) == given[key]
            for key, value in expected.items()
        )

    def _bind(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        task = self._tasks.app.tasks.get(name)
        # In a chain, not all arguments need to be there.
        with suppress(TypeError):
            if task is not None:
                signature = inspect.signature(task.run)
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                return bound.arguments
        return {"args": args, **kwargs}

    def _as_received(self, task: CapturedTask, value: Any) -> Any:
        call = {"task": task.name, "args": (value,), "kwargs": {}}
        node = next(nodes({**call, "options": task.options}))
        try:
            serialize_arguments(self._tasks.app, node)
        except DeferError:  # unittest.mock.ANY, for one, is no JSON
            return value
        return node.signature["args"][0]

    def _list(self) -> str:
        lines = ["Deferred:", *(f"  {task}" for task in self.tasks)]
        if not self.tasks:
            lines = ["Nothing was deferred."]
        if uncommitted := self.uncommitted:
            lines.append("Not committed, as rolled back or still in a transaction:")
            lines += [f"  {task}" for task in uncommitted]
        return "\n".join(lines)


def _tasks(captured: Iterable[Captured]) -> list[CapturedTask]:
    return [task for each in captured for task in each.tasks]
