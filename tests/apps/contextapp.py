"""An application whose views and tasks say what they know of a request."""

import json
from pathlib import Path

import exampleapp
from pyramid.config import Configurator
from pyramid.i18n import TranslationStringFactory

from pyramid_tasks import task

_ = TranslationStringFactory("shop")


def known(request):
    """What a view, and a task that it defers, should say the same of."""
    return {
        "route_url": request.route_url("defer", name="report"),
        "static_url": request.static_url("contextapp:static/logo.png"),
        "application_url": request.application_url,
        "host_url": request.host_url,
        "host": request.host,
        "script_name": request.script_name,
        "locale_name": request.locale_name,
        "translated": request.localizer.translate(_("Your order is on its way.")),
        "authenticated_userid": request.authenticated_userid,
    }


@task(name="report")
def report(request):
    return known(request) | {"deferred_by": request.deferred_by}


@task(name="report_of_another")
def report_of_another(request):
    return request.defer_task(report).id


@task(name="report_into_file")
def report_into_file(request, path):
    Path(path).write_text(json.dumps(report(request)))


def defer(request):
    """Defer a task, and say what it should know."""
    result = request.defer_task(request.matchdict["name"])
    return {"id": result.id, "view": known(request)}


class SecurityPolicy:
    """As a proxy that knows its users has it: they are in ``REMOTE_USER``."""

    def authenticated_userid(self, request):
        return request.environ.get("REMOTE_USER")

    identity = authenticated_userid

    def permits(self, request, context, permission):
        return True


def negotiate(request):
    """The locale is that of a header, which no task has."""
    return request.headers.get("X-Language")


def remote_user_of_header(handler, registry):
    """A proxy in front would say it so."""

    def tween(request):
        if user := request.headers.get("X-User"):
            request.environ["REMOTE_USER"] = user
        return handler(request)

    return tween


# For config.add_task_context(), as dotted names.


def capture_tenant(request):
    return request.headers.get("X-Tenant")


def restore_tenant(request, value):
    request.tenant = value


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_tasks")
        config.set_security_policy(SecurityPolicy())
        config.set_locale_negotiator(negotiate)
        config.add_tween("contextapp.remote_user_of_header")
        if folder := settings.get("contextapp.locale"):
            config.add_translation_dirs(folder)
        config.add_static_view("static", "contextapp:static")
        config.add_route("defer", "/defer/{name}")
        config.add_view(defer, route_name="defer", renderer="json")
        config.add_route("result", "/result/{id}")
        config.add_view(exampleapp.result, route_name="result", renderer="json")
        config.scan(__name__)
        return config.make_wsgi_app()
