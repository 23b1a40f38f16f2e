"""What the children of a prefork worker share with their parent."""

from contextlib import closing

import pytest
from support import QUICK, Site, start_worker

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [("", 10_000, 10_000_000), ("pyramid_tasks.gc_freeze = false", 0, 0)],
)
def test_frozen_memory(setting, least, most, redis_queue, write_example, tmp_path):
    """Unless it is switched off, no collection touches memory that is shared."""
    ini = write_example(broker=redis_queue, app=setting)
    with (
        start_worker(ini, "--concurrency=1", *QUICK, cwd=tmp_path, fresh=True),
        closing(Site(redis_queue, tmp_path)) as site,
    ):
        count = site.defer("frozen_objects").get(timeout=30, interval=0.02)
    assert least <= count <= most
