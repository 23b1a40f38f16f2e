"""Tasks in every form that their arguments are known of."""

from __future__ import annotations

from typing import Any, Protocol

from celery import Task
from pyramid.request import Request

from pyramid_tasks import task
from pyramid_tasks.typing import RequestWithTasks


class MailRequest(RequestWithTasks, Protocol):
    """A request that has what the application adds, too."""

    mailer: str


class AppRequest(RequestWithTasks, Request):
    """The same as a class."""

    mailer: str


@task
def add(request: RequestWithTasks, x: int, y: int = 1) -> int:
    return x + y


@task(bind=True, rate_limit="10/m")
def send_mail(self: Task, request: MailRequest, address: str, *, bcc: str) -> bool:
    return bool(request.mailer == address == bcc == self.name)


@task(name="resize")
def resize(request: Request, image: int, width: int) -> str:
    return f"{request.path}{image}{width}"


@task(bind=True)
def resize_bound(self: Task, request: Request, image: int) -> str:
    return f"{self.name}{request.path}{image}"


@task
async def fetch(request: RequestWithTasks, url: str) -> bytes:
    return url.encode()


@task(bind=True)
async def fetch_bound(self: Task, request: Request, url: str) -> bytes:
    return url.encode()


async def fetch_nothing(request: RequestWithTasks) -> None: ...


# Without the slash, mypy refuses **kwargs: "request" could be among them.
def anything(request: Any, /, *args: int, **kwargs: str) -> None: ...


def of_the_application(request: AppRequest, x: int) -> None: ...


def without_request(x: int, y: int) -> None: ...


def request_second(x: int, request: RequestWithTasks) -> None: ...


class Reports:
    """Tasks can be methods of an object, and objects."""

    def build(self, request: RequestWithTasks, title: str) -> float:
        return len(title)

    def __call__(self, request: RequestWithTasks, title: str) -> float:
        return len(title)
