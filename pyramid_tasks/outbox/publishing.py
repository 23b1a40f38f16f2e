"""Publishing rows of the outbox, and recording the outcome in the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from ..delivery.faults import BrokerDown, MessageFault, SendingFailed
from .rows import delete_sent, refuse

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from ..delivery.producer import SteadyProducer
    from ..delivery.publisher import Publisher
    from .rows import Row

#: :meth:`Publisher.producer`, or a function like it.
LendProducer = Callable[[], "AbstractContextManager[SteadyProducer | None]"]

# If a broker refuses so many messages for one reason, the messages are not the cause.
_MANY = 3


@dataclass
class Outcome:
    """The outcome for rows that were to be sent together.

    Attributes:
        sent: The rows that the broker has taken.
        unsent: The rows that nobody tried to send, or the broker could not take.
        refused: The rows that cannot be sent, and why.
        broker_down: Why the broker takes no message, if it does not.
    """

    sent: list[Row] = field(default_factory=list)
    unsent: list[Row] = field(default_factory=list)
    refused: list[tuple[Row, Exception]] = field(default_factory=list)
    broker_down: BrokerDown | None = None

    def add(self, earlier: Outcome) -> None:
        """Add the outcome for rows that were sent earlier."""
        self.sent = earlier.sent + self.sent
        self.unsent = earlier.unsent + self.unsent
        self.refused = earlier.refused + self.refused

    def is_in_lease(self) -> bool:
        """Whether no relay can have sent any of the rows yet."""
        now = time.monotonic()
        return all(now < row.deadline for row in self.sent + self.unsent)


def publish_rows(
    publisher: Publisher,
    rows: Sequence[Row],
    may_send: Callable[[Row], bool],
    lend_producer: LendProducer,
) -> Outcome:
    """Send the messages of rows in their order.

    Args:
        may_send: A function that is called with each row before it is sent. If it
            returns ``False``, this row and the rest stay unsent.
    """
    outcome = Outcome()
    try:
        with lend_producer() as producer:
            for row in _publish_batch(publisher, rows, may_send, producer, outcome):
                if not may_send(row) or _is_of_all(outcome):
                    break
                try:
                    row.context.run(publisher.publish, row.canvas, producer)
                except (BrokerDown, SoftTimeLimitExceeded):
                    raise
                except Exception as error:  # noqa: BLE001 whatever a message can cause
                    outcome.refused.append((row, error))
                else:
                    outcome.sent.append(row)
    except BrokerDown as error:
        outcome.broker_down = error
    doubtful = _doubtful_errors(outcome)
    is_of_broker = any(isinstance(error, SendingFailed) for error in doubtful)
    if not outcome.sent and (is_of_broker or _is_of_all(outcome)):
        outcome.broker_down = BrokerDown(f"it takes no message: {doubtful[-1]}")
        outcome.refused = [
            (row, error)
            for row, error in outcome.refused
            if isinstance(error, MessageFault)
        ]
    tried = {row.id for row in outcome.sent}
    tried.update(row.id for row, _ in outcome.refused)
    outcome.unsent = [row for row in rows if row.id not in tried]
    return outcome


def _publish_batch(
    publisher: Publisher,
    rows: Sequence[Row],
    may_send: Callable[[Row], bool],
    producer: SteadyProducer | None,
    outcome: Outcome,
) -> Sequence[Row]:
    """Send rows as fast as the transport can, and return those that are left to send.

    A row that was refused before goes alone: it could close the connection.
    """
    if len(rows) == 1:
        return rows
    tried = [row for row in takewhile(may_send, rows) if not row.attempts]
    with publisher.publish_batch(producer) as batch:
        for row in tried:
            row.context.run(batch.add, row.canvas)
    outcome.sent = [tried[number] for number in batch.taken]
    if batch.broker_down is not None:
        raise batch.broker_down
    sent = {row.id for row in outcome.sent}
    return [row for row in rows if row.id not in sent]


def _doubtful_errors(outcome: Outcome) -> list[Exception]:
    """Return the errors that need not be the faults of the messages."""
    errors = [error for _, error in outcome.refused]
    return [error for error in errors if not isinstance(error, MessageFault)]


def _is_of_all(outcome: Outcome) -> bool:
    """Whether messages are refused for one reason, and none is sent."""
    errors = _doubtful_errors(outcome)
    reasons = set(map(repr, errors))
    return not outcome.sent and len(errors) >= _MANY and len(reasons) == 1


def record_outcome(connection: Connection, outcome: Outcome, max_attempts: int) -> int:
    """Delete the rows that were sent, and count the refusals of the others.

    Returns:
        How many of the rows that were sent were not found.
    """
    missing = len(outcome.sent)
    if outcome.sent:
        missing -= delete_sent(connection, outcome.sent)
    for row, error in outcome.refused:
        refuse(connection, row, error, max_attempts)
    return missing
