"""The application of the worker that runs the tasks of Celery's tests."""

from importlib import import_module
from unittest import mock

from pyramid.config import Configurator

from celery_tests.substitution import RegisteringCelery
from pyramid_tasks.configuration import celery_app


def main(global_config, **settings):
    """Return an application with the tasks of Celery's tests."""
    with (
        mock.patch.object(celery_app, "PyramidCelery", RegisteringCelery),
        Configurator(settings=settings) as config,
    ):
        config.include("pyramid_tasks")
        import_module("celery.contrib.testing.tasks")
        from t.integration.tasks import ClassBasedAutoRetryTask

    config.make_celery_app().register_task(ClassBasedAutoRetryTask)
    return config.make_wsgi_app()
