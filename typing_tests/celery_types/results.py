"""With celery-types, a result has the type of what its task returns."""

from __future__ import annotations

from typing import Any, assert_type

from celery import Celery, Task
from celery.result import AsyncResult, GroupResult
from pyramid.request import Request
from tasks import (
    Reports,
    add,
    anything,
    fetch,
    fetch_bound,
    fetch_nothing,
    resize,
    resize_bound,
    send_mail,
)

from pyramid_tasks import defer_task
from pyramid_tasks.typing import RequestWithTasks


def function(request: RequestWithTasks, pyramids: Request) -> None:
    assert_type(defer_task(request, add, 1), AsyncResult[int])
    assert_type(defer_task(request, add, 1).get(timeout=10), int)
    assert_type(defer_task(request, send_mail, "", bcc=""), AsyncResult[bool])
    assert_type(defer_task(pyramids, resize, 17, 640), AsyncResult[str])
    assert_type(defer_task(pyramids, resize_bound, 17), AsyncResult[str])
    assert_type(defer_task(request, "add", 1), AsyncResult[Any])


def method(request: RequestWithTasks, reports: Reports, app: Celery) -> None:
    assert_type(request.defer_task(add, 1), AsyncResult[int])
    assert_type(request.delay_task(send_mail, "", bcc=""), AsyncResult[bool])
    assert_type(request.defer_task(resize, 17, 640), AsyncResult[str])
    assert_type(request.defer_task(resize_bound, 17), AsyncResult[str])
    assert_type(request.defer_task(reports.build, ""), AsyncResult[float])
    assert_type(request.defer_task(anything), AsyncResult[None])
    assert_type(request.defer_task(app.tasks["add"], 1), AsyncResult[Any])


def asynchronous(request: RequestWithTasks, pyramids: Request) -> None:
    assert_type(request.defer_task(fetch, ""), AsyncResult[bytes])
    assert_type(request.delay_task(fetch_bound, url=""), AsyncResult[bytes])
    assert_type(request.defer_task(fetch_nothing), AsyncResult[None])
    assert_type(defer_task(request, fetch, ""), AsyncResult[bytes])
    assert_type(defer_task(pyramids, fetch_bound, ""), AsyncResult[bytes])


def others(request: RequestWithTasks) -> None:
    assert_type(request.defer_task_with_options(add), AsyncResult[Any])
    assert_type(request.get_task_result("id"), AsyncResult[Any])
    assert_type(request.defer_tasks(add, []), GroupResult)
    assert_type(request.current_task, Task[..., Any] | None)


def mistakes(request: RequestWithTasks) -> None:
    # Known as a Celery task, which it is not without celery-types.
    request.defer_task(resize_bound, 17, 640)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    _: AsyncResult[str] = request.defer_task(add, 1)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    request.defer_task(add, 1).get().upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    request.task_signature(add).nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    request.defer_canvas("add")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
