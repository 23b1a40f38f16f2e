"""The old name of ``pyramid_tasks.contrib.pyramid_tm``, and the old behaviour.

Tasks run in transactions; a task deferred inside one is sent at once.
"""

from __future__ import annotations

from .contrib.pyramid_tm import include_deriver as includeme
from .contrib.pyramid_tm import transaction_task_deriver

__all__ = ["includeme", "transaction_task_deriver"]
