"""Sending rows of the outbox to the broker, and noting the outcome in the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from ..delivery.result_backends import BrokerDown, MessageFault, SendingFailed
from .rows import delete_sent, refuse

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from ..delivery.producer import SteadyProducer
    from ..delivery.publisher import Publisher
    from .rows import Row

#: A function whose result lends a producer to a ``with`` block.
Connected = Callable[[], "AbstractContextManager[SteadyProducer | None]"]

# So many messages that are refused for one reason are not its cause.
_MANY = 3


@dataclass
class Round:
    """The outcome for rows that were to be sent together."""

    sent: list[Row] = field(default_factory=list)
    left: list[Row] = field(default_factory=list)
    refused: list[tuple[Row, Exception]] = field(default_factory=list)
    broker_down: BrokerDown | None = None

    def add(self, earlier: Round) -> None:
        """Add the outcome for rows that were sent earlier."""
        self.sent = earlier.sent + self.sent
        self.left = earlier.left + self.left
        self.refused = earlier.refused + self.refused

    def is_in_lease(self) -> bool:
        """Whether no relay can have sent any of the rows yet."""
        now = time.monotonic()
        return all(now < row.deadline for row in self.sent + self.left)


def send(
    publisher: Publisher,
    rows: Sequence[Row],
    may_send: Callable[[Row], bool],
    connected: Connected | None = None,
) -> Round:
    """Send the messages of rows in their order.

    Args:
        may_send: A function that is called with each row before it is sent. If it
            returns ``False``, this row and the rest are left.
        connected: The function that lends a producer; default,
            :meth:`Publisher.producer`.
    """
    result = Round()
    doubtful: SendingFailed | None = None
    try:
        with (connected or publisher.producer)() as producer:
            for row in _send_together(publisher, rows, may_send, producer, result):
                if not may_send(row) or _is_of_all(result):
                    break
                try:
                    row.context.run(publisher.publish, row.canvas, producer)
                except (BrokerDown, SoftTimeLimitExceeded):
                    raise
                except SendingFailed as error:
                    doubtful = error
                    result.refused.append((row, error))
                except Exception as error:  # noqa: BLE001 whatever a message can cause
                    result.refused.append((row, error))
                else:
                    result.sent.append(row)
    except BrokerDown as error:
        result.broker_down = error
    if not result.sent and (doubtful is not None or _is_of_all(result)):
        reason = _doubtful(result)[-1]
        result.broker_down = BrokerDown(f"it takes no message: {reason}")
        result.refused = [
            (row, error)
            for row, error in result.refused
            if isinstance(error, MessageFault)
        ]
    tried = {row.id for row in result.sent}
    tried.update(row.id for row, _ in result.refused)
    result.left = [row for row in rows if row.id not in tried]
    return result


def _send_together(
    publisher: Publisher,
    rows: Sequence[Row],
    may_send: Callable[[Row], bool],
    producer: SteadyProducer | None,
    result: Round,
) -> Sequence[Row]:
    """Send rows as fast as the transport can, and return those that are left to send.

    A row that was refused before goes alone: it could close the connection.
    """
    if len(rows) == 1:
        return rows
    tried = [row for row in takewhile(may_send, rows) if not row.attempts]
    with publisher.together(producer) as batch:
        for row in tried:
            row.context.run(batch.add, row.canvas)
    result.sent = [tried[number] for number in batch.taken]
    if batch.broker_down is not None:
        raise batch.broker_down
    sent = {row.id for row in result.sent}
    return [row for row in rows if row.id not in sent]


def _doubtful(result: Round) -> list[Exception]:
    """Return the errors that need not be the faults of the messages."""
    errors = [error for _, error in result.refused]
    return [error for error in errors if not isinstance(error, MessageFault)]


def _is_of_all(result: Round) -> bool:
    """Whether messages are refused for one reason, and none is sent."""
    errors = _doubtful(result)
    reasons = set(map(repr, errors))
    return not result.sent and len(errors) >= _MANY and len(reasons) == 1


def settle(connection: Connection, result: Round, max_attempts: int) -> int:
    """Note in the database what happened to rows.

    Returns:
        How many of those that were sent were not found.
    """
    lost = len(result.sent)
    if result.sent:
        lost -= delete_sent(connection, result.sent)
    for row, error in result.refused:
        refuse(connection, row, error, max_attempts)
    return lost
