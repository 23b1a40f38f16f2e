"""The delivery that keeps tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .captured import Captured

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import ResultBase
    from pyramid.registry import Registry
    from pyramid.request import Request

    from ..application import PyramidCelery
    from .deferred import Deferred


class CapturingDelivery:
    """Keeps the tasks that it gets."""

    is_transactional = False

    def __init__(
        self, app: PyramidCelery, registry: Registry, deferred: Deferred
    ) -> None:
        self.app = app
        self.registry = registry
        self.deferred = deferred

    def is_direct(self, _request: Request) -> bool:
        return False

    def deliver(
        self, request: Request, signatures: Sequence[Signature]
    ) -> list[ResultBase]:
        captured = [Captured(self.registry, each) for each in signatures]
        self.deferred._captured.extend(captured)  # noqa: SLF001 not for tests
        self.keep(request, captured)
        return [each.result for each in captured]

    def keep(self, _request: Request, captured: list[Captured]) -> None:
        """Mark the tasks that have been committed."""
        for each in captured:
            each.committed = True
