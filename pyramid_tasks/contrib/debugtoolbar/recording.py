"""The tasks that a request defers, recorded on their way to the broker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from celery.result import EagerResult

from ...delivery.canvas import fix_ids, is_canvas, leaves
from .rows import NOT_SENT, SENDING_FAILED, Place, Row, find_caller, row_of, shortened

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.request import Request

    from ...registry import Delivery

#: The attribute of a request that holds its :class:`RecordedTasks`.
REQUEST_ATTRIBUTE = "pdtb_tasks"

#: How many tasks of a request are shown. All are counted.
MAX_ROWS = 100


class RecordedTasks:
    """The tasks that one request deferred.

    Attributes:
        rows: The first of these tasks.
        count: The number of all these tasks.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.count = 0
        self._expected: list[tuple[list[Row], Any]] | None = []

    def expect(self, rows: list[Row], result: Any) -> None:
        """Remember a result, which will know whether its tasks were sent.

        Args:
            rows: The rows of these tasks.
            result: The result that the delivery returned for them.
        """
        if self._expected is not None:
            self._expected.append((rows, result))

    def mark_unsent(self) -> None:
        """Mark the tasks that were not sent, now that the transaction has ended.

        A response callback defers tasks later and outside the transaction.
        """
        for rows, result in self._expected or ():
            if not getattr(result, "sent", True):
                for row in rows:
                    row.state = NOT_SENT
        self._expected = None  # the history of the toolbar keeps text alone


class RecordingDelivery:
    """Records what another delivery is given, if the request has the panel."""

    def __init__(self, name: str, delivery: Delivery) -> None:
        self.app = delivery.app
        self.name = name
        self.delivery = delivery
        self.is_transactional = delivery.is_transactional

    def is_direct(self, request: Request) -> bool:
        is_recorded = getattr(request, REQUEST_ATTRIBUTE, None) is not None
        return not is_recorded and self.delivery.is_direct(request)

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        deliver = self.delivery.deliver
        recorded: RecordedTasks | None = getattr(request, REQUEST_ATTRIBUTE, None)
        if recorded is None:
            return deliver(request, signatures)
        for signature in signatures:
            fix_ids(signature)
        place = find_caller()
        added = [self._add_rows(recorded, each, place) for each in signatures]
        try:
            results = deliver(request, signatures)
        except Exception as error:
            for row in chain.from_iterable(added):
                row.state, row.result = SENDING_FAILED, type(error).__name__
            raise
        for rows, result in zip(added, results, strict=True):
            recorded.expect(rows, result)
            for row in rows:
                if self.is_transactional and not hasattr(result, "sent"):
                    row.delivery = "immediate"  # no transaction had begun
                if isinstance(result, EagerResult) and result.id == row.id:
                    row.state, row.result = result.state, shortened(result.result)
        return results

    def _add_rows(
        self, recorded: RecordedTasks, signature: Signature, place: Place
    ) -> list[Row]:
        own = list(leaves(signature, with_linked=False))
        known = {id(node.signature) for node in own}
        linked = [node for node in leaves(signature) if id(node.signature) not in known]
        kinds = [signature.subtask_type if is_canvas(signature) else ""] * len(own)
        kinds += ["callback"] * len(linked)
        nodes = (own + linked)[: MAX_ROWS - len(recorded.rows)]
        rows = [
            row_of(self.app, node, signature.options, kind, self.name, place)
            for node, kind in zip(nodes, kinds, strict=False)
        ]
        recorded.count += len(own) + len(linked)
        recorded.rows += rows
        return rows
