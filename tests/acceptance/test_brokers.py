"""The main job on every broker: a task deferred over HTTP, its result read back."""

import json
import urllib.request

import pytest
from support import free_port, serve, start_worker, wait_until

pytestmark = pytest.mark.acceptance


def call(url, *arguments):
    body = json.dumps(arguments).encode() if arguments else None
    with urllib.request.urlopen(url, body, timeout=30) as response:
        return dict(json.load(response))


def test_task_deferred_over_http(example_ini, tmp_path):
    """A worker and pserve, from one ini, pass a task and its result."""
    port = free_port()
    with example_ini.open("a") as ini:
        ini.write(
            f"\n[server:main]\nuse = egg:waitress#main\nlisten=localhost:{port}\n"
        )
    with (
        start_worker(example_ini, cwd=tmp_path) as worker,
        serve(example_ini, port, cwd=tmp_path) as url,
    ):
        task_id = call(f"{url}/defer/exampleapp.add", 2, 3)["id"]
        result = wait_until(
            lambda: (
                (found := call(f"{url}/result/{task_id}"))["state"] == "SUCCESS"
                and found
            ),
            what=lambda: worker.output,
        )
        assert result["result"] == 5
        assert worker.stop() == 0
