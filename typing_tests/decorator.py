"""``@task`` leaves the types of a function as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from tasks import MailRequest, add

from pyramid_tasks import task
from pyramid_tasks.typing import RequestWithTasks


@task(name="other", autoretry_for=(OSError,))
def with_options(request: RequestWithTasks, x: int) -> str:
    return str(x)


def call(request: MailRequest) -> None:
    assert_type(add(request, 1, y=2), int)
    assert_type(with_options(request, 1), str)
    exact: Callable[[RequestWithTasks, int], str] = with_options
    exact = task(with_options)
    exact(request, 1)
    add(request)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add(request, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_options(request, 1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task("name")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    task(1, name="name")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
