"""Tasks that are async functions, in a worker as a shell starts it."""

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from support import QUICK, make_client, start_worker, wait_until

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_coroutines(pool, redis_queue, write_example, tmp_path):
    """Coroutines run, again and up to a time limit, in one loop until the end."""
    write_example(
        broker=redis_queue,
        use="call:coroutineapp:main",
        app="coroutines.log = %(here)s/loops",
        worker="worker_concurrency = 1",
    )
    client = make_client(redis_queue)

    def defer(name, *args, **options):
        return client.send_task(f"coroutineapp.{name}", args, **options)

    with start_worker("config.ini", f"--pool={pool}", *QUICK, cwd=tmp_path) as worker:
        first = defer("describe", "first").get(timeout=30, interval=0.02)
        assert first == {"word": "first", "where": first["where"], "current": True}
        assert defer("flaky").get(timeout=30, interval=0.02) == 2
        if pool == "prefork":  # Celery has no time limits elsewhere
            path = tmp_path / "waiting"
            limited = defer("wait", str(path), soft_time_limit=0.5)
            with pytest.raises(SoftTimeLimitExceeded):
                limited.get(timeout=30, interval=0.02)
            assert path.read_text() == "cancelled"

            revoked = defer("wait", str(tmp_path / "revoked"))
            wait_until((tmp_path / "revoked").exists)
            revoked.revoke(terminate=True, signal="SIGUSR1")
            wait_until(lambda: (tmp_path / "revoked").read_text() == "cancelled")
        second = defer("describe", "second").get(timeout=30, interval=0.02)
        assert second["where"] == first["where"]
        assert worker.stop() == 0
    assert (tmp_path / "loops").read_text() == "True True"
