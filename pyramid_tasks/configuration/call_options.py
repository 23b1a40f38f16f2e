"""The options of a call, wherever they stand: in code, a route or a schedule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from ..typing import CallOptions

#: The names of the options that Celery or this package reads.
CALL_OPTIONS = CallOptions.__optional_keys__


def misspelt_options(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the options that nobody reads, each with the option that it is near to.

    An option that is near to no other one may be for the application, as may a stamp.
    """
    for option in options:
        if option not in CALL_OPTIONS:
            for near in get_close_matches(option, CALL_OPTIONS, n=1, cutoff=0.75):
                yield option, near


def unknown_option(option: str) -> str | None:
    """Return the end of a sentence about an option that no call has, if it is one."""
    if option in CALL_OPTIONS:
        return None
    near = get_close_matches(option, CALL_OPTIONS, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return "Write queue, routing_key, exchange, priority or another option of a call."
