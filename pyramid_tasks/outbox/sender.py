"""The thread that sends what its process has committed."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_process_shutdown

from ..worker.forking import ForkLock
from .backlog import Backlog, LeftToRelays
from .publishing import Outcome, publish_rows, record_outcome
from .rows import begin, leave_to_relay
from .schemas import report_missing
from .tables import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from ..delivery.producer import SteadyProducer
    from ..delivery.publisher import Publisher
    from .publishing import LendProducer
    from .rows import Row

logger = logging.getLogger(__name__)

_BATCH = 100
# The longest time between attempts to delete what was sent, in seconds, and how many
# attempts there are. After that, relays send it again.
_MAX_PAUSE = 10.0
_MAX_FAILURES = 10
# For how long a row that was sent may wait to be deleted together with others, in
# seconds; a part of the lease, after which a relay would send the row again.
_LINGER = 0.2
_PART_OF_LEASE = 0.25
# Seconds before the next batch, for each row of a batch. So many rows count at most.
# Under load, rows come together.
_GAP = 0.005
_GAPS = 4


class Sender:
    """Sends committed rows, in their order, in a thread that starts when needed.

    The thread does not read the rows again, as nobody else sends them before their
    lease ends. The thread leaves to a relay the rows that it cannot send. So does a
    process that dies.

    Args:
        publisher: The publisher that sends the rows.
        lease: For how many seconds a row belongs to its process.
        max_attempts: How many refusals set a message aside.
    """

    def __init__(self, publisher: Publisher, lease: float, max_attempts: int) -> None:
        self._publisher = publisher
        self._max_attempts = max_attempts
        self._linger = min(_LINGER, lease * _PART_OF_LEASE)
        self._process = os.getpid()  # as a fork copies no thread
        self._condition = threading.Condition()
        self._lock = threading.Lock()
        self._fork_lock = ForkLock(publisher.timeout)
        self._thread: threading.Thread | None = None
        self._backlog = Backlog()
        self._is_busy = False
        self._is_flushing = False
        self._producer: SteadyProducer | None = None
        self._failures = 0
        # The outcomes that are not yet recorded in the database of their rows.
        self._outcomes: dict[Engine, Outcome] = {}
        self._record_at = math.inf
        self._take_at = 0.0
        self._left = LeftToRelays()

    def put(self, engine: Engine, rows: Sequence[Row]) -> None:
        """Hand over rows of a database. This neither waits nor raises an error."""
        with self._condition:
            if self._start_thread() and self._backlog.add(engine, rows):
                self._condition.notify()
            else:
                self._left.add(engine, rows[-1])

    def send_now(self, engine: Engine, rows: list[Row]) -> None:
        """Send rows, within the time limit of the publisher, and delete them.

        Raises:
            SoftTimeLimitExceeded: The time of the task that defers is over.
        """
        deadline = time.monotonic() + self._publisher.timeout
        for row in rows:
            row.deadline = min(row.deadline, deadline)
        # One after the other, for the order. Who has no time to wait leaves the rows.
        if not self._lock.acquire(timeout=self._publisher.timeout):
            self._left.add(engine, rows[-1])
            return
        try:
            with self._fork_lock:
                self._send(engine, rows, self._publisher.producer)
                self._record_outcomes()
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            logger.exception("Tasks that have been committed are left to the relay")
        finally:
            self._lock.release()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all rows have been sent and deleted, or left to a relay.

        Args:
            timeout: How many seconds to wait; default, the time limit of the publisher.

        Returns:
            Whether that is so.
        """
        if self._process != os.getpid() or self._thread is None:
            return True
        with self._condition:
            self._is_flushing = True
            self._condition.notify()
            done = self._condition.wait_for(
                lambda: not (self._backlog or self._outcomes or self._is_busy),
                self._publisher.timeout if timeout is None else timeout,
            )
            self._is_flushing = False
        return done

    def _start_thread(self) -> bool:
        """Start the thread if there is none, and return whether there is one now."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(
            target=self._run, name="pyramid_tasks outbox", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the process ends, or may have no more threads
            return False
        if self._thread is None:
            atexit.register(self.flush)
            # Celery ends the children of a prefork pool without Python's exit handlers.
            worker_process_shutdown.connect(self._flush_in_child, dispatch_uid=id(self))
        self._thread = thread
        return True

    def _flush_in_child(self, **_: object) -> None:
        self.flush()

    def _run(self) -> None:
        while True:
            engine, rows = self._take()
            try:
                with self._fork_lock:
                    if engine is not None:
                        self._send(engine, rows, self._lend_producer)
                    if self._is_flushing or time.monotonic() >= self._record_at:
                        self._record_outcomes()
                        self._disconnect()
                        self._failures = 0
            except Exception as error:  # noqa: BLE001 whatever a database can cause
                self._back_off(error)
            finally:
                with self._condition:
                    self._is_busy = False
                    self._condition.notify_all()

    def _back_off(self, error: Exception) -> None:
        """Try again later, and at last leave all to the relays."""
        self._failures += 1
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        logger.log(
            level, "The outbox cannot be used; trying again: %s", reason_of(error)
        )
        self._record_at = time.monotonic() + min(2.0**self._failures / 2, _MAX_PAUSE)
        if self._failures == _MAX_FAILURES:
            self._outcomes.clear()
            self._record_at = math.inf
            self._failures = 0

    def _take(self) -> tuple[Engine | None, list[Row]]:
        """Wait until there is something to do, and return rows of one database."""
        time.sleep(max(self._take_at - time.monotonic(), 0))
        with self._condition:
            if not self._backlog:
                pause = max(self._record_at - time.monotonic(), 0)
                if self._is_flushing:
                    pause = min(pause, self._linger)
                self._condition.wait(None if pause == math.inf else pause)
            self._is_busy = True
            if not self._backlog:
                return None, []
            engine, rows = self._backlog.take(_BATCH)
            self._take_at = time.monotonic() + _GAP * min(len(rows), _GAPS)
            return engine, rows

    def _send(self, engine: Engine, rows: list[Row], lend: LendProducer) -> None:
        try:
            leased = self._left.is_leased(engine)
        finally:
            self._left.add(engine, rows[-1])  # after an error, these are left too
        if leased:  # no task must overtake tasks that this process deferred earlier
            return  # as their lease ends after the lease of the last one
        if leased is not None:
            outcome = Outcome(unsent=rows)
        else:
            outcome = publish_rows(
                self._publisher,
                rows,
                lambda row: time.monotonic() < row.deadline,
                lend,
            )
        if outcome.broker_down is not None:
            logger.warning(
                "The broker is down; tasks that have been committed are left to the "
                "relay: %s",
                outcome.broker_down,
            )
        if not outcome.unsent:
            self._left.remove(engine, rows[-1])
        if engine in self._outcomes:
            outcome.add(self._outcomes[engine])
        self._outcomes[engine] = outcome
        if outcome.unsent or outcome.refused or len(outcome.sent) >= _BATCH:
            self._record_at = 0
        else:
            self._record_at = min(self._record_at, time.monotonic() + self._linger)

    @contextmanager
    def _lend_producer(self) -> Iterator[SteadyProducer | None]:
        """Give a producer, and keep it for what follows soon."""
        if self._producer is None:
            self._producer = self._publisher.acquire()
        yield self._producer

    def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.release()

    def _record_outcomes(self) -> None:
        for engine, outcome in list(self._outcomes.items()):
            with begin(engine) as connection:
                missing = record_outcome(connection, outcome, self._max_attempts)
                if outcome.unsent:
                    found = leave_to_relay(connection, outcome.unsent)
                    missing += len(outcome.unsent) - found
            # After an error, they can have been deleted in spite of it.
            if missing and not self._failures and outcome.is_in_lease():
                report_missing(engine, missing)
            del self._outcomes[engine]
        self._record_at = math.inf
