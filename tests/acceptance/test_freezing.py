"""What the children of a prefork worker share with their parent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import QUICK, Site, example_config, start_worker

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [("", 10_000, 10_000_000), ("pyramid_tasks.gc_freeze = false", 0, 0)],
)
def test_children_leave_what_they_inherit_out_of_garbage_collection(
    setting: str,
    least: int,
    most: int,
    redis_queue: dict[str, str],
    write_ini: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Unless it is switched off, no collection touches memory that is shared."""
    ini = write_ini(example_config(redis_queue, app=setting))
    with start_worker(ini, "--concurrency=1", *QUICK, cwd=tmp_path, fresh=True):
        site = Site(redis_queue, tmp_path)
        try:
            count = site.defer("frozen_objects").get(timeout=30, interval=0.02)
        finally:
            site.close()
    assert least <= count <= most
