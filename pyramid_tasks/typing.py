"""Types for the annotations of an application, and of this package.

Celery and Pyramid have no types of their own. With ``celery-types`` installed, results
have the type of what their task returns; all else is checked without it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

    from celery import Task
    from celery.canvas import Signature
    from celery.result import AsyncResult, GroupResult

    class AnyRequest(Protocol):
        """What a request is known by: Pyramid's, or a class or protocol of a user."""

        @property
        def registry(self) -> Any: ...

    # Not Celery's class: without celery-types that is Any, which every function is.
    class AnyTask(Protocol):
        """What a Celery task is known by."""

        @property
        def max_retries(self) -> Any: ...

    TaskLike: TypeAlias = Callable[..., Any] | str | AnyTask

    P = ParamSpec("P")
    R = TypeVar("R")
    # Without bounds the forms of a task with and without bind=True could not be told
    # apart, nor a function that takes no request from one that does.
    RequestT = TypeVar("RequestT", bound=AnyRequest)
    TaskT = TypeVar("TaskT", bound=AnyTask)

    class DeferTask(Protocol):
        """``request.defer_task``; the same overloads as the function has."""

        @overload
        def __call__(
            self,
            func_or_name: Callable[Concatenate[RequestT, P], R],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> AsyncResult[R]: ...
        @overload
        def __call__(
            self,
            func_or_name: Callable[Concatenate[TaskT, RequestT, P], R],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> AsyncResult[R]: ...
        @overload
        def __call__(
            self, func_or_name: str | AnyTask, /, *args: Any, **kwargs: Any
        ) -> AsyncResult[Any]: ...


class RequestWithTasks(Protocol):
    """A request with what this package adds to it, for annotations.

    It can be the base of a protocol that names what else an application uses, or,
    together with Pyramid's request, of a class::

        def view(request: RequestWithTasks): ...

        class MailRequest(RequestWithTasks, Protocol):
            mailer: Mailer

        class AppRequest(RequestWithTasks, Request):
            mailer: Mailer
    """

    # For type checkers alone: a request factory may inherit from this class, and
    # nothing in it may stand before, or in the place of, what Pyramid sets.
    if TYPE_CHECKING:

        @property
        def registry(self) -> Any: ...

        defer_task: DeferTask
        delay_task: DeferTask

        def defer_task_with_options(
            self,
            func_or_name: TaskLike,
            args: Iterable[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            **options: Any,
        ) -> AsyncResult[Any]: ...

        def defer_tasks(
            self,
            func_or_name: TaskLike,
            iterable: Iterable[tuple[Any, ...] | Mapping[str, Any]],
            **options: Any,
        ) -> GroupResult: ...

        def task_signature(
            self, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
        ) -> Signature[Any]: ...

        def defer_canvas(
            self, canvas: Signature[Any], **options: Any
        ) -> AsyncResult[Any] | GroupResult: ...

        def get_task_result(self, task_id: str) -> AsyncResult[Any]: ...

        @property
        def current_task(self) -> Task[..., Any] | None: ...

        @property
        def deferred_by(self) -> Any: ...
