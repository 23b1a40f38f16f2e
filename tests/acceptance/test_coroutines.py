"""Tasks that are async functions, in a worker as a shell starts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from support import QUICK, as_ini, start_worker, wait_until

from pyramid_tasks.settings import extract_celery_settings

if TYPE_CHECKING:
    from celery.result import AsyncResult

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_coroutines(
    pool: str,
    redis_queue: dict[str, str],
    write_ini: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Coroutines run, again and up to a time limit, in one loop until the end."""
    ini = write_ini(
        "[app:main]\n"
        "use = call:coroutineapp:main\n"
        "coroutines.log = %(here)s/loops\n"
        f"{as_ini(redis_queue)}\n"
        "[celery:main]\n"
        "worker_concurrency = 1\n"
    )
    client = Celery("client", set_as_current=False)
    settings = {f"celery.{key}": value for key, value in redis_queue.items()}
    client.conf.update(extract_celery_settings(settings))

    def defer(name: str, *args: Any, **options: Any) -> AsyncResult:
        return client.send_task(f"coroutineapp.{name}", args, **options)

    with start_worker(ini, f"--pool={pool}", *QUICK, cwd=tmp_path) as worker:
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
