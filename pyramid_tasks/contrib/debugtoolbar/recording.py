"""What a request defers, recorded on its way to the broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from celery.result import EagerResult, ResultSet

from ...canvas import Node, leaves
from ...delivery import Delivery
from .rows import NOT_SENT, SENDING_FAILED, Place, Row, find_caller, row_of, shortened

if TYPE_CHECKING:
    from celery import Task
    from celery.canvas import Signature
    from celery.result import AsyncResult, ResultBase
    from pyramid.request import Request

#: Where the request of a view has its :class:`RecordedTasks`.
REQUEST_ATTRIBUTE = "pdtb_tasks"

#: So many tasks of a request are shown; all are counted.
MAX_ROWS = 100


class RecordedTasks:
    """The tasks that one request deferred.

    Attributes:
        rows: The first of them.
        count: How many they are.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.count = 0
        self._unsettled: list[tuple[Row, Any]] | None = []

    def expect(self, row: Row, result: Any) -> None:
        """Remember what knows whether a task was sent."""
        if self._unsettled is not None:
            self._unsettled.append((row, result))

    def settle(self) -> None:
        """Note what was not sent, now that the transaction has ended.

        What a response callback defers comes later, when there is none.
        """
        for row, result in self._unsettled or ():
            if not getattr(result, "sent", True):
                row.state = NOT_SENT
        self._unsettled = None  # more than text


class RecordingDelivery(Delivery):
    """Delivers as another one does, and tells the panel of the request, if any."""

    def __init__(self, name: str, delivery: Delivery) -> None:
        super().__init__(delivery.app)
        self.name = name
        self.delivery = delivery
        self.is_transactional = delivery.is_transactional

    def deliver_task(
        self,
        request: Request,
        task: Task,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> AsyncResult:
        deliver = self.delivery.deliver_task
        recorded: RecordedTasks | None = getattr(request, REQUEST_ATTRIBUTE, None)
        if recorded is None:
            return deliver(request, task, args, kwargs, options)
        signature = task.signature(args, kwargs, **options)
        with self._recording(recorded, [signature], find_caller()) as results:
            results.append(deliver(request, task, args, kwargs, options))
        return results[0]

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        deliver = self.delivery.deliver
        recorded: RecordedTasks | None = getattr(request, REQUEST_ATTRIBUTE, None)
        if recorded is None:
            return deliver(request, signatures)
        with self._recording(recorded, signatures, find_caller()) as results:
            results.extend(deliver(request, signatures))
        return results

    @contextmanager
    def _recording(
        self, recorded: RecordedTasks, signatures: Sequence[Signature], place: Place
    ) -> Iterator[list[Any]]:
        """Record what is delivered inside; the results are to be put in the list."""
        calls = [self._record(recorded, each, place) for each in signatures]
        results: list[Any] = []
        try:
            yield results
        except Exception as error:
            for row in (row for rows, _ in calls for row in rows):
                row.state, row.result = SENDING_FAILED, type(error).__name__
            raise
        for (rows, own), result in zip(calls, results, strict=True):
            found = results_in(result)
            known = found if len(found) == own else []
            for row, each in zip(rows, chain(known, repeat(None)), strict=False):
                if self.is_transactional and not hasattr(result, "sent"):
                    row.delivery = "immediate"  # as no transaction had begun
                if each is not None:
                    row.id = each.id
                if isinstance(each, EagerResult):
                    row.state, row.result = each.state, shortened(each.result)
                recorded.expect(row, result if each is None else each)

    def _record(
        self, recorded: RecordedTasks, signature: Signature, place: Place
    ) -> tuple[list[Row], int]:
        """Return rows for a canvas, its own tasks first, and how many those are."""
        own = list(leaves(signature, with_linked=False))
        known = {id(node.signature) for node in own}
        linked = [each for each in leaves(signature) if id(each.signature) not in known]
        recorded.count += len(own) + len(linked)
        is_task = Node(signature, is_first=True).is_task
        kinds = chain(
            repeat("" if is_task else signature.subtask_type, len(own)),
            repeat("callback"),
        )
        room = MAX_ROWS - len(recorded.rows)
        rows = [
            row_of(
                self.app,
                node,
                signature.options,
                part_of=kind,
                delivery=self.name,
                place=place,
            )
            for node, kind in islice(zip(own + linked, kinds, strict=False), room)
        ]
        recorded.rows += rows
        return rows, len(own)


def results_in(result: ResultBase | None) -> list[AsyncResult]:
    """Return the results of the tasks of a canvas, in the order of its leaves."""
    found: dict[str, AsyncResult] = {}

    def add(each: Any) -> None:
        if each is None:
            return
        add(each.parent)
        if isinstance(each, ResultSet):
            for member in each.results:
                add(member)
        else:
            found.setdefault(each.id, each)

    add(result)
    return list(found.values())
