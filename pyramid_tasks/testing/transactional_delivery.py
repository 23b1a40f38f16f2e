"""The delivery that keeps tasks until their transaction commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..delivery.transactional import TaskDataManager, transaction_of
from .delivery import Captured, CapturingDelivery

if TYPE_CHECKING:
    from pyramid.request import Request


class TransactionalCapturing(CapturingDelivery):
    """Keeps tasks, as one of the resources that a transaction commits."""

    is_transactional = True

    def keep(self, request: Request, captured: list[Captured]) -> None:
        if transaction_of(request) is None:
            super().keep(request, captured)
        else:
            _CapturingDataManager.of(request, self).hold(request, captured)


class _CapturingDataManager(TaskDataManager[Captured]):
    def after_commit(self, messages: list[Captured]) -> None:
        for captured in messages:
            captured.committed = True
