"""The application of the worker with Celery alone."""

import os
from importlib import import_module

from celery import Celery

app = Celery(broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])
app.conf.result_extended = True
import_module("celery.contrib.testing.tasks")
app.register_task(import_module("t.integration.tasks").ClassBasedAutoRetryTask)
