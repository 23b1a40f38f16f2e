"""The worker of Celery's integration tests, in a process of its own for both runs."""

import os
from contextlib import contextmanager
from pathlib import Path

from celery.utils.nodenames import anon_nodename
from support import start

INI = """
[app:main]
use = call:celery_tests.application:main
celery.broker_url = {conf.broker_url}
celery.result_backend = {conf.result_backend}
celery.result_extended = true
"""

OPTIONS = ("--concurrency=1", "--without-mingle", "--without-gossip", "--loglevel=INFO")


@contextmanager
def start_worker(app, **_):
    """Start a worker, and wait until it is ready.

    With this package, it is started as the README does. The applications of the tests
    know its name.
    """
    folder = Path(os.environ["CELERY_TESTS_FOLDER"])
    which = ["-A", "celery_tests.plain"]
    if os.environ["CELERY_TESTS_WITH"] == "pyramid_tasks":
        ini = folder / "config.ini"
        ini.write_text(INI.format(conf=app.conf))
        which = ["-A", "pyramid_tasks.loaders", "--ini", ini]
    command = ("celery", *which, "worker", f"--hostname={anon_nodename()}", *OPTIONS)
    path = os.environ["PYTHONPATH"]
    with start(*command, cwd=folder, fresh=True, PYTHONPATH=path) as process:
        process.wait_for(" ready.")
        yield
