"""Redis with Sentinel, whose master dies or stands still."""

from __future__ import annotations

import time

import pytest
from sentinels import sentinels
from shop import FRACTION


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_master_is_lost(tmp_path, fault, trial) -> None:
    """What is sent while a replica takes over arrives, waits or is told."""
    with sentinels(tmp_path, max(1.0, 5 * FRACTION)) as group:
        settings = {
            "celery__broker_transport_options.master_name": group.name,
            "celery__broker_transport_options.sentinel_kwargs": '{"socket_timeout": 9}',
        }
        with trial(group.url, server="redis://", **settings) as run:
            if fault == "killed":
                group.master.kill()
            else:
                # The host of both is gone: their connections stay, and say nothing.
                group.master.freeze()
                group.sentinels[0].freeze()
            kept = group.keep_master()
            run.sent = lambda shop: group.sent(shop, kept)
            run.restart_relay()
            group.wait_for_failover()
            time.sleep(max(1.0, 10 * FRACTION))
            if fault == "stopped":
                group.sentinels[0].thaw()
                group.master.thaw()
