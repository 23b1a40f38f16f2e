"""How a relay ends, also when it waits for a database that does not answer."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals(stop: Callable[..., None], within: float) -> None:
    """Call a function on SIGTERM and SIGINT, and end the process some time later.

    A driver may wait a quarter of an hour for a network that drops its packets, and
    Python calls no signal handler while the code of a driver waits.

    Args:
        stop: The signal handler that makes the process end by itself.
        within: How many seconds that may take.
    """
    reader, writer = socket.socketpair()
    writer.settimeout(0)

    def watch() -> None:
        while reader.recv(1)[0] not in _SIGNALS:
            pass
        time.sleep(within)
        logger.error("Something did not answer for %g s; ending all the same", within)
        logging.shutdown()
        os._exit(1)

    threading.Thread(target=watch, name="pyramid_tasks stop", daemon=True).start()
    for number in _SIGNALS:
        signal.signal(number, stop)
    # Python writes the number of each signal at once. The thread keeps both ends.
    signal.set_wakeup_fd(writer.detach())
