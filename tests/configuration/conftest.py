"""An application, and its tasks as Celery has them."""

from __future__ import annotations

import pytest


@pytest.fixture
def config(configure):
    """Return a Configurator that includes the package."""
    return configure()


@pytest.fixture
def make_task(config):
    """Return a function that registers a task, and returns the task of Celery."""

    def make_task(func, name="it", *, config=config, **options):
        config.register_task(func, name=name, **options)
        return config.make_celery_app().tasks[name]

    return make_task
