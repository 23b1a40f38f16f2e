"""An application with the debug toolbar, whose pages defer tasks."""

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.view import view_config

from pyramid_tasks import task

#: What would change the title of a page that does not escape it.
SCRIPT = "<script>document.title = 'changed'</script>"


@task
def echo(request, text):
    return text


@task
def send_receipt(request, order_id, *, address):
    return {"sent_to": address}


@view_config(route_name="order")
def order(request):
    request.defer_task(send_receipt, 1042, address="ada@example.com")
    return Response("<html><title>Page</title><body>Ordered.</body></html>")


@view_config(route_name="script")
def script(request):
    request.defer_task(echo, SCRIPT)
    return Response("<html><title>Page</title><body>Deferred.</body></html>")


@view_config(route_name="icon")
def icon(request):
    """Answer what every browser asks for."""
    return Response(status=204)


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_route("order", "/order")
        config.add_route("script", "/script")
        config.add_route("icon", "/favicon.ico")
        config.scan(__name__)
        return config.make_wsgi_app()
