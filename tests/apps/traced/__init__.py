"""An application whose requests and tasks are traced.

What traces them is one of its modules, in ``pyramid.includes``.
"""

from celery.exceptions import Ignore
from pyramid.config import Configurator

from pyramid_tasks import CeleryWorkerProcessInit, task


def defer(request):
    """/defer/{task}?delivery=...: a task, deferred in the request's transaction."""
    name = f"traced.{request.matchdict['task']}"
    headers = {"environ": {"HTTP_HOST": request.host}}
    delivery = request.GET["delivery"]
    result = request.defer_task_with_options(name, headers=headers, delivery=delivery)
    return {"id": result.id}


def result(request):
    found = request.get_task_result(request.matchdict["id"])
    return {"state": found.state, "result": str(found.result)}


def fail_view(request):
    raise ValueError("a view failed")


@task
def host(request):
    return request.host


@task
def defers(request):
    """Defer another task, sent when the transaction of this one commits."""
    return request.defer_task(host).id


@task
def fail(request):
    raise ValueError("a task failed")


@task(bind=True, max_retries=1)
def retry(self, request):
    if self.request.retries == 0:
        raise self.retry(countdown=0)


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def fail_twice(request):
    raise ValueError("a task failed twice")


@task
def ignore(request):
    # What makes the state, as an ignored task has none of its own.
    request.current_task.update_state(state="IGNORED")
    raise Ignore


def forget_connections(event):
    event.registry["engine"].dispose(close=False)


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("outboxapp.with_database")
        config.add_subscriber(forget_connections, CeleryWorkerProcessInit)
        config.add_route("defer", "/defer/{task}")
        config.add_view(defer, route_name="defer", renderer="json")
        config.add_route("result", "/result/{id}")
        config.add_view(result, route_name="result", renderer="json")
        config.add_route("fail", "/fail")
        config.add_view(fail_view, route_name="fail")
        config.scan(__name__, ignore=[".with_opentelemetry", ".with_sentry"])
        return config.make_wsgi_app()
