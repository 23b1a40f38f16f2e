"""A function that runs as a task, in this process."""

from __future__ import annotations

import pytest


@pytest.fixture
def config(configure):
    return configure(**{"celery.broker_url": "memory://"})


@pytest.fixture
def run(config):
    """Return a function that runs a function as a task, and gives its result."""

    def run(func, *args, config=config, headers=None, **options):
        config.register_task(func, name="it", **options)
        return config.make_celery_app().tasks["it"].apply(args, headers=headers)

    return run
