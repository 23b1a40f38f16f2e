"""What a task knows of the request that deferred it, from process to process."""

import json
import urllib.request

import pytest
from support import (
    QUICK,
    free_port,
    ini_form,
    make_client,
    serve,
    start,
    start_worker,
    wait_until,
)

from pyramid_tasks.worker.contexts import HEADER

pytestmark = pytest.mark.acceptance


#: What the ini of these tests has.
PARTS = {
    "use": "call:contextapp:main",
    "app": "pyramid_tasks.context = host locale user\n"
    "pyramid_tasks.base_url = https://base.example/shop",
}


def get(url, **headers):
    # urllib makes X-Language of X-language, which is the same to HTTP.
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, headers=named)
    with urllib.request.urlopen(request, timeout=30) as response:
        return dict(json.load(response))


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_task_deferred_over_http(broker, write_example, tmp_path):
    """A task, and a task of a task, know in a worker's child what the view knew."""
    port = free_port()
    server = f"[server:main]\nuse = egg:waitress#main\nlisten = localhost:{port}\n"
    ini = write_example(broker=broker, more=server, **PARTS)
    with (
        start_worker(ini, cwd=tmp_path) as worker,
        serve(ini, port, cwd=tmp_path) as url,
    ):

        def result(task_id):
            def is_done():
                found = get(f"{url}/result/{task_id}")
                return found["state"] == "SUCCESS" and found

            return wait_until(is_done, what=lambda: worker.output)["result"]

        browser = {"X_Language": "de", "X_User": "anna", "Cookie": "a=s3cret"}
        hosts = {f"localhost:{port}": {}, "shop.example": {"Host": "shop.example"}}
        for host, header in hosts.items():
            answer = get(f"{url}/defer/report", **browser, **header)
            view = answer["view"]
            assert view["route_url"] == f"http://{host}/defer/report"
            assert view["locale_name"] == "de"
            assert result(answer["id"]) == {**view, "deferred_by": "anna"}

            answer = get(f"{url}/defer/report_of_another", **browser, **header)
            assert result(result(answer["id"])) == {**view, "deferred_by": "anna"}
        assert "s3cret" not in worker.output


def test_beat(redis_queue, write_example, tmp_path):
    """A task that beat queues knows the host of ``base_url``, and nobody's userid."""
    schedule = """
[celerybeat:often]
task = report_into_file
schedule = 0.2
args = ["%(here)s/report.json"]
"""
    ini = write_example(broker=redis_queue, more=schedule, **PARTS)
    report = tmp_path / "report.json"
    with (
        start_worker(ini, *QUICK, cwd=tmp_path),
        start(*ini_form(ini, "beat"), cwd=tmp_path) as beat,
    ):
        beat.wait_until(report.exists)
        found = wait_until(lambda: (text := report.read_text()) and json.loads(text))
    assert found["route_url"] == "https://base.example/shop/defer/report"
    assert found["locale_name"] == "en"
    assert found["deferred_by"] is None
    assert found["authenticated_userid"] is None


#: Headers that no caller of the package would send, and what their tasks fail with.
STRANGERS = [
    ({"environ": {"REMOTE_USER": "root"}}, "The header 'environ' must not set 'REMOT"),
    ({"environ": {"HTTP_HOST": "a\r\nb"}}, "The header 'environ' has a HTTP_HOST"),
    ({"environ": "x" * 100_000}, "The header 'environ' must be a dictionary"),
    ({HEADER: '{"user": ["root"]}'}, "The message has a task context 'user'"),
    ({HEADER: '{"locale": "../../etc"}'}, "The message has a task context 'locale'"),
    ({HEADER: "[" * 10_000}, f"The header '{HEADER}' is no JSON object"),
    ({"headers": "x"}, "The headers of the message must be a dictionary"),
]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_messages_of_strangers(broker, write_example, tmp_path):
    """A message with wrong headers fails its task, and leaves nothing to the next."""
    write_example(broker=broker, **PARTS)
    stranger = make_client(broker)
    options = (*QUICK, "--pool=solo")
    with start_worker("config.ini", *options, cwd=tmp_path) as worker:

        def result(**headers):
            found = stranger.send_task("report", headers=headers)
            worker.wait_until(found.ready)
            return found

        clean = result().result
        for headers, sentence in STRANGERS:
            failed = result(**headers)
            assert failed.state == "FAILURE"
            assert str(failed.result).startswith(sentence)
            assert result().result == clean
        assert worker.popen.poll() is None
