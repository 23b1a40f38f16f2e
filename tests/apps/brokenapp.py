"""Applications with an error of their own, one for each kind of error."""

from __future__ import annotations

from pyramid.config import Configurator


def attribute_error(global_config, **settings):
    return settings.no_such_attribute


def import_error(global_config, **settings):
    import no_such_module  # noqa: F401


def key_error(global_config, **settings):
    return settings["no.such.setting"]


def lookup_error(global_config, **settings):
    raise LookupError("an error of the application itself")


def system_exit(global_config, **settings):
    raise SystemExit(0)


def configured(global_config, **settings):
    """Fail when the configuration is committed, which Pyramid wraps."""
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")

    def act():
        raise ValueError("an error of the application itself")

    config.action("act", act)
    return config.make_wsgi_app()


def scanned(global_config, **settings):
    """Register a task that is none."""
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.register_task(lambda: None, name="no_request")
    return config.make_wsgi_app()


def not_celery(loader, global_config, **settings):
    """A ``[celery:NAME]`` factory that returns something else."""
    return "not celery"


def not_included(global_config, **settings):
    """Scan tasks, and do not include pyramid_tasks."""
    config = Configurator(settings=settings)
    config.scan("exampleapp")
    return config.make_wsgi_app()
