"""An application whose task says what the message could have changed."""

from pyramid.config import Configurator
from pyramid.threadlocal import manager

from pyramid_tasks.worker.contexts import HEADER


def look(request):
    """Do with the request what an application does with it, and tell its parts."""
    assert request.host_url.startswith(("http://", "https://"))
    assert request.localizer.locale_name == request.locale_name
    return {
        key: value
        for key, value in request.environ.items()
        if isinstance(value, str) and key != HEADER
    } | {
        "locale": request.locale_name,
        "user": request.deferred_by,
        "depth": len(manager.stack),
    }


def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.register_task(look, name="look")
    return config.make_wsgi_app()
