"""Types for the annotations of an application, and of this package.

Celery and Pyramid have no types. If ``celery-types`` is installed, a result has the
type that its task returns. Everything else is checked without it too.
"""

# Not "from __future__ import annotations": a web process would compile each annotation
# of a TypedDict when it starts. The classes of Celery 5.3 take no types, so what names
# their types is text.
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Concatenate, ParamSpec, TypeAlias, TypeVar, Unpack

    from celery import Task
    from celery.canvas import Signature
    from celery.result import AsyncResult, GroupResult

    class AnyRequest(Protocol):
        """An attribute that each request has, of Pyramid or of a user's own class."""

        @property
        def registry(self) -> Any: ...

    # Without celery-types the class of Celery is Any, and every function matches Any.
    class AnyTask(Protocol):
        """An attribute that a Celery task has, and a function has not."""

        @property
        def max_retries(self) -> Any: ...

    TaskLike: TypeAlias = Callable[..., Any] | str | AnyTask

    P = ParamSpec("P")
    R = TypeVar("R")
    # The bounds distinguish a task with bind=True from one without, and a function that
    # takes a request from one that does not.
    RequestT = TypeVar("RequestT", bound=AnyRequest)
    TaskT = TypeVar("TaskT", bound=AnyTask)

    class DeferTask(Protocol):
        """``request.defer_task``, with the overloads of the function."""

        @overload
        def __call__(
            self,
            func_or_name: Callable[Concatenate[RequestT, P], Coroutine[Any, Any, R]],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> "AsyncResult[R]": ...
        @overload
        def __call__(
            self,
            func_or_name: Callable[
                Concatenate[TaskT, RequestT, P], Coroutine[Any, Any, R]
            ],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> "AsyncResult[R]": ...
        @overload
        def __call__(
            self,
            func_or_name: Callable[Concatenate[RequestT, P], R],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> "AsyncResult[R]": ...
        @overload
        def __call__(
            self,
            func_or_name: Callable[Concatenate[TaskT, RequestT, P], R],
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> "AsyncResult[R]": ...
        @overload
        def __call__(
            self, func_or_name: str | AnyTask, /, *args: Any, **kwargs: Any
        ) -> "AsyncResult[Any]": ...


class CallOptions(TypedDict, total=False):
    """The options of Celery's ``Task.apply_async``, and ``delivery``."""

    delivery: str | None
    # When, and for how long.
    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    time_limit: float | None
    soft_time_limit: float | None
    # The call and its neighbours.
    task_id: str | None
    shadow: str | None
    link: Any
    link_error: Any
    ignore_result: bool | None
    add_to_parent: bool
    parent_id: str | None
    root_id: str | None
    group_id: str | None
    group_index: int | None
    chain: Any
    chord: Any
    retries: int
    reply_to: str | None
    replaced_task_nesting: int
    task_type: Any
    argsrepr: str | None
    kwargsrepr: str | None
    # Where to.
    queue: Any
    exchange: Any
    exchange_type: str | None
    routing_key: str | None
    priority: int | None
    delivery_mode: int | str | None
    route_name: str | None
    router: Any
    declare: Sequence[Any] | None
    # How it is sent.
    connection: Any
    producer: Any
    publisher: Any
    result_cls: Any
    retry: bool | None
    retry_policy: Mapping[str, Any] | None
    timeout: float | None
    confirm_timeout: float | None
    mandatory: bool
    immediate: bool
    expiration: float | None
    # The message.
    headers: Mapping[str, Any] | None
    stamped_headers: Sequence[str] | None
    serializer: str | None
    compression: str | None
    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None
    origin: str | None
    message_id: str | None
    app_id: str | None
    user_id: str | None
    cluster_id: str | None
    timestamp: Any


class RequestWithTasks(Protocol):
    """A request with the methods of this package, for annotations.

    A protocol can inherit from it and name other attributes of a request. A class can
    inherit from it and from Pyramid's request::

        def view(request: RequestWithTasks): ...

        class MailRequest(RequestWithTasks, Protocol):
            mailer: Mailer

        class AppRequest(RequestWithTasks, Request):
            mailer: Mailer
    """

    # Only for type checkers: a request factory may inherit from this class, and no
    # attribute of this class may hide one that Pyramid sets.
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
            **options: Unpack[CallOptions],
        ) -> "AsyncResult[Any]": ...

        def defer_tasks(
            self,
            func_or_name: TaskLike,
            iterable: Iterable[tuple[Any, ...] | Mapping[str, Any]],
            **options: Unpack[CallOptions],
        ) -> GroupResult: ...

        def task_signature(
            self, func_or_name: TaskLike, /, *args: Any, **kwargs: Any
        ) -> "Signature[Any]": ...

        def defer_canvas(
            self, canvas: "Signature[Any]", **options: Unpack[CallOptions]
        ) -> "AsyncResult[Any] | GroupResult": ...

        def get_task_result(self, task_id: str) -> "AsyncResult[Any]": ...

        @property
        def current_task(self) -> "Task[..., Any] | None": ...

        @property
        def deferred_by(self) -> Any: ...
