"""The events of tasks in a worker that was started from a shell."""

from contextlib import closing

import pytest
from support import QUICK, Site, start_worker, wait_until

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_events(pool, redis_queue, write_example, tmp_path):
    """Subscribers in a worker are told what becomes of each task."""
    app = "pyramid.includes = taskevents\nevents.log = %(here)s/events"
    write_example(broker=redis_queue, app=app)
    options = (f"--pool={pool}", *QUICK)
    with (
        start_worker("config.ini", *options, cwd=tmp_path) as worker,
        closing(Site(redis_queue, tmp_path)) as site,
    ):
        results = {
            "well": site.defer("add", 1, 2),
            "badly": site.defer("end", "error"),
            "flaky": site.defer("flaky", str(tmp_path / "flaky")),
            "refused": site.defer("describe", label="refused"),
        }
        for result in results.values():
            wait_until(result.ready, what=lambda: worker.output)

        def events(name):
            lines = (tmp_path / "events").read_text().splitlines()
            found = [line.split(" ", 2) for line in lines]
            return [line[1:] for line in found if line[0] == results[name].id]

        assert events("well") == [["BeforeTask", "''"], ["AfterTask", "3"]]
        assert [name for name, _ in events("badly")] == ["BeforeTask", "TaskFailed"]
        assert "error in the task" in events("badly")[1][1]
        names = [*(["BeforeTask", "TaskRetried"] * 2), "BeforeTask", "AfterTask"]
        assert [name for name, _ in events("flaky")] == names
        assert events("refused")[-1][0] == "TaskFailed"
        refused = results["refused"]
        assert refused.state == "FAILURE"
        # As an error in the task itself would be: by name and id, with its traceback.
        worker.wait_for(f"Task exampleapp.describe[{refused.id}] raised unexpected")
        assert "refused in process" in worker.output
