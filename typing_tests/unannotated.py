"""Tasks without annotations can be deferred like any other."""

from pyramid_tasks import defer_task, task
from pyramid_tasks.typing import RequestWithTasks


@task
def add(request, x, y=1):
    return x + y


@task(bind=True)
def add_bound(self, request, x, y=1):
    return x + y


def defer(request: RequestWithTasks) -> None:
    defer_task(request, add, 1)
    defer_task(request, add, "1", y=2)
    defer_task(request, add_bound, 1)
    request.defer_task(add, 1)
    request.defer_task(add_bound, 1, y=2)


def view(request):
    defer_task(request, add, 1)
    request.defer_task(add, 1)
