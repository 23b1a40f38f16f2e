"""``RequestWithTasks``: what this package adds to a request."""

from __future__ import annotations

from collections.abc import Callable

from celery import chain
from pyramid.request import Request
from tasks import AppRequest, MailRequest, add

from pyramid_tasks.typing import RequestWithTasks


def uses(request: RequestWithTasks) -> None:
    request.registry.settings["mail.host"]
    request.defer_task_with_options(add, [1], {"y": 2}, countdown=60)
    request.defer_task_with_options("add", (1,), queue="mail")
    request.defer_tasks(add, [(1, 2), (3, 4)])
    request.defer_tasks(add, ({"x": n} for n in range(3)), queue="mail")
    request.defer_canvas(request.task_signature(add, 1), countdown=60)
    request.defer_canvas(chain(request.task_signature("add", 1, y=2)))
    request.get_task_result("id").get()
    if request.current_task is not None:
        request.current_task.update_state(state="PROGRESS")
    _ = request.deferred_by


def misuses(request: RequestWithTasks) -> None:
    request.defer_taks(add, 1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    request.defer_task_with_options(add, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.defer_task_with_options(add, (1,), [2])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.defer_task_with_options(17)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.defer_task_with_options(add, (1,), countdwn=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    request.defer_task_with_options(add, (1,), countdown="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.defer_tasks(add)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    request.defer_tasks(add, [1, 2])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    request.task_signature()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    request.get_task_result(17)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.current_task = None  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    request.deferred_by = None  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def view(request: RequestWithTasks) -> None: ...


def mail_view(request: MailRequest) -> None:
    _ = request.mailer, request.current_task
    view(request)


def app_view(request: AppRequest) -> None:
    _ = request.mailer, request.current_task
    # Of Pyramid's request, whose attributes are not known.
    _ = request.matchdict, request.dbsession
    view(request)
    mail_view(request)


def pyramids_view(request: Request) -> None: ...


# Where a view must take a request of a certain kind.
_views: list[Callable[[AppRequest], None]] = [view, mail_view, app_view, pyramids_view]
_plain: list[Callable[[RequestWithTasks], None]] = [view]
_mailing: list[Callable[[RequestWithTasks], None]] = [mail_view]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
