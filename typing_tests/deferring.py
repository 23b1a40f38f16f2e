"""``defer_task``, the function and the method: what passes, and what must not."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery, Task
from pyramid.request import Request
from tasks import (
    AppRequest,
    MailRequest,
    Reports,
    add,
    anything,
    fetch,
    fetch_bound,
    of_the_application,
    request_second,
    resize,
    resize_bound,
    send_mail,
    without_request,
)

from pyramid_tasks import defer_task
from pyramid_tasks.typing import RequestWithTasks


def function(request: RequestWithTasks) -> None:
    defer_task(request, add, 1)
    defer_task(request, add, 1, y=2)
    defer_task(request, add)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, add, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(request, add, 1, 2, 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, add, 1, z=2)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    defer_task(request, add, request, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(add, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(1, add, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def function_bound(request: RequestWithTasks) -> None:
    defer_task(request, send_mail, "someone@example.com", bcc="me@example.com")
    defer_task(request, send_mail, "someone@example.com")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, send_mail, address="someone@example.com", bcc=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(request, send_mail, address=1, bcc="me@example.com")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(request, send_mail, "someone@example.com", "me@example.com")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def function_of_pyramids_request(request: Request) -> None:
    defer_task(request, resize, 17, width=640)
    defer_task(request, resize_bound, 17)
    defer_task(request, resize, 17)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, resize, 17, "640")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(request, resize, 17, 640, 480)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, resize_bound)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    defer_task(request, resize_bound, "17")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def asynchronous(request: RequestWithTasks) -> None:
    request.defer_task(fetch, "http://example.com")
    defer_task(request, fetch_bound, url="http://example.com")
    request.defer_task(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.defer_task(fetch, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    defer_task(request, fetch_bound, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def method(request: RequestWithTasks) -> None:
    request.defer_task(add, 1, y=2)
    request.defer_task(resize, 17, 640)
    request.defer_task(send_mail, "someone@example.com", bcc="")
    request.defer_task(add)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.defer_task(add, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(add, 1, 2, 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.defer_task(resize, 17)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.defer_task(send_mail, "someone@example.com")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.delay_task(add, 1)
    request.delay_task(add, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def method_of_users(request: MailRequest, app_request: AppRequest) -> None:
    request.defer_task(add, 1)
    app_request.defer_task(add, 1)
    app_request.defer_task(of_the_application, 1)
    request.defer_task(add, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    app_request.defer_task(add, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    app_request.defer_task(of_the_application, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def callables(request: RequestWithTasks, reports: Reports) -> None:
    request.defer_task(reports.build, "title")
    request.defer_task(reports, title="title")
    request.defer_task(anything)
    request.defer_task(anything, 1, 2, three="3")
    request.defer_task(lambda _: None)
    request.defer_task(reports.build, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(reports)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    request.defer_task(anything, "1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(without_request, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(without_request, 1, 2)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(request_second)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(request_second, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def known_at_runtime(
    request: RequestWithTasks,
    app: Celery,
    celery_task: Task,
    func: Callable[..., int],
    any_of_them: Callable[..., int] | str,
) -> None:
    request.defer_task("add", 1, y="2")
    request.defer_task(app.tasks["add"], 1, y="2")
    request.defer_task(celery_task, 1, y="2")
    request.defer_task(func, 1, y="2")
    request.defer_task(any_of_them, 1, y="2")
    defer_task(request, "add", 1, y="2")
    defer_task(request, celery_task, 1, y="2")
    request.defer_task(17)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    request.defer_task()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
