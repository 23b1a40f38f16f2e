"""Two tasks under one name."""

from pyramid_tasks import task


@task(name="twice")
def one(request):
    return "one"


@task(name="twice")
def two(request):
    return "two"
