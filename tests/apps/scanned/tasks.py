"""Tasks marked in each way there is."""

from pyramid_tasks import task

calls = []


@task
def plain(request, x):
    return ("plain", x)


@task()
def with_parentheses(request, x):
    return ("with_parentheses", x)


@task(name="its own name", rate_limit="10/m")
def named(request, x):
    return ("named", x)


@task(bind=True)
def bound(self, request, x):
    return (self.name, request.current_task is self, x)


@task(name="first")
@task(name="second", max_retries=7)
def stacked(request):
    return "stacked"


@task
def periodic(request):
    return "periodic"


def undecorated(request, x):
    return ("undecorated", x)


def deriver(task, info):
    def derived(request, *args, **kwargs):
        calls.append(info.name)
        return task(request, *args, **kwargs)

    return derived
