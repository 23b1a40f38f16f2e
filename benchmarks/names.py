"""Names that no other benchmark, or other user of a server, has."""

from __future__ import annotations

import uuid


def unique() -> str:
    """Return a new name."""
    return f"benchmark_{uuid.uuid4().hex[:12]}"
