"""An application with the debug toolbar, whose page defers tasks."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.view import view_config

from pyramid_tasks import task

PAGE = "<html><title>Page</title><body>Deferred.</body></html>"

#: What would change the title of a page that does not escape it.
SCRIPT = "<script>document.title = 'changed'</script>"


@task
def echo(request, text, times=1):
    return text * times


@task
def fail(request):
    raise ValueError("out of order")


@task
def count(request, texts):
    return len(texts)


@task
def report(request, task_id): ...


@task
def wait(request):
    return "not in this test"


@view_config(route_name="script")
def script(request):
    request.defer_task(echo, SCRIPT)
    return Response(PAGE)


@view_config(route_name="all")
def defer_all(request):
    """Defer a task of each kind."""
    signature = request.task_signature
    request.defer_task(echo, "a", times=2)
    request.defer_task(fail)
    request.defer_task_with_options(wait, queue="elsewhere")
    later = {"countdown": 3600, "priority": 3}
    request.defer_task_with_options(echo, ["later" * 100], **later, delivery="commit")
    each = [signature(echo, text) for text in "bc"]
    canvas = (signature(echo, "first") | signature(echo)).on_error(signature(report))
    request.defer_canvas(canvas)
    from celery import chord

    request.defer_canvas(chord(each, signature(count)))
    savepoint = request.tm.savepoint()
    request.defer_task(echo, "rolled back")
    savepoint.rollback()
    return Response(PAGE)


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_route("script", "/script")
        config.add_route("all", "/all")
        config.scan()
        return config.make_wsgi_app()
