"""Prefork children that are spawned instead of forked, as on macOS by default."""

import pytest
from celery.app.defaults import SETTING_KEYS
from pyramid.paster import bootstrap
from support import start, start_worker

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        "worker_pool_start_method" not in SETTING_KEYS,
        reason="Celery before 5.7 always forks",
    ),
]


def test_spawned_child_loads_the_application(write_example, tmp_path):
    """A spawned child runs tasks with the application of the ini."""
    ini = write_example(
        worker="worker_concurrency = 1\nworker_pool_start_method = spawn"
    )
    with start_worker(ini, cwd=tmp_path), bootstrap(str(ini)) as env:
        result = env["request"].defer_task("exampleapp.describe")
        described = result.get(timeout=60, interval=0.05)
    assert described["setting"] == "from the ini"
    assert described["greeting"] == "hello task"


def test_application_from_a_module_cannot_be_spawned(tmp_path):
    """Without an ini, a worker that should spawn says what to do instead."""
    (tmp_path / "moduleapp.py").write_text(
        "import exampleapp\n"
        "app = exampleapp.configure({\n"
        "    'celery.broker_url': 'memory://',\n"
        "    'celery.worker_pool_start_method': 'spawn',\n"
        "}).make_celery_app()\n"
    )
    with start("celery", "-A", "moduleapp", "worker", cwd=tmp_path) as process:
        process.wait_for("worker_pool_start_method = fork")
