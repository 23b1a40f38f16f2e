"""The old name of ``pyramid_tasks.contrib.pyramid_tm``, with the old behaviour.

Tasks run in transactions. A task that is deferred inside a transaction is sent at once.
"""

from __future__ import annotations

from .contrib.pyramid_tm import include_deriver as includeme
from .contrib.pyramid_tm import transaction_task_deriver

__all__ = ["includeme", "transaction_task_deriver"]
