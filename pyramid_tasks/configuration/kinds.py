"""Checks for the values of settings and of options, and words for their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from celery.utils.time import maybe_iso8601, rate

from ..coercion import displayed
from ..exceptions import near_names

#: Raises ``ValueError`` with the fault and the remedy, or returns the value in the form
#: that Celery needs, or returns ``None`` for a value that stays as it is.
Check = Callable[[Any], Any]

# Celery takes no fewer seconds, and no date is more seconds ahead.
MIN_SECONDS = -(2.0**31)
_MAX_SECONDS = 10.0**11
# The length of a text in AMQP, and of an id in the outbox.
_MAX_ID = 255


def shown(value: object) -> str:
    """Return a value for a message, without what may be a secret."""
    return displayed("", value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return what follows a sentence about an unknown name, if a known one is near."""
    nearest = near_names(name, known)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def near(name: object, known: Sequence[object]) -> str:
    """Return the end of a sentence about a name that is none of the known ones."""
    names = [*dict.fromkeys(map(str, known))]
    return f"{', '.join(names)}.{did_you_mean(str(name), names)}"


def one_of(*known: object) -> Check:
    """Return the check for one of several values."""

    def check(value: Any) -> None:
        if value not in known:
            raise ValueError(f"= {value} is not one of {near(value, known)}")

    return check


#: Checks whether a broker keeps messages on its disk.
check_delivery_mode = one_of(1, 2, "1", "2", "transient", "persistent")


def at_least(least: float) -> Check:
    """Return the check for a number that is not too small."""

    def check(value: Any) -> None:
        if isinstance(value, (int, float)) and not value >= least:
            raise ValueError(f"= {value} is not a number of at least {least}.")

    return check


def of(expected: str, *types: type, like: str = "") -> Check:
    """Return the check for a type.

    Args:
        expected: A description of the right values, for messages.
        types: The types.
        like: An attribute that objects of other types have which can stand in.
    """

    def check(value: Any) -> None:
        if not isinstance(value, types) and not (like and hasattr(value, like)):
            raise ValueError(f"= {shown(value)} is not {expected}.")

    return check


def dictionary(check: Callable[[dict[str, Any]], None] = lambda _: None) -> Check:
    """Return the check for a dictionary, whose items another check is about."""

    def check_items(value: Any) -> None:
        of("a dictionary", Mapping)(value)
        try:
            check({**value})
        except ValueError as error:
            raise ValueError(f"has {error}") from None

    return check_items


def that(expected: str, is_so: Callable[[Any], object]) -> Check:
    """Return a check that fails if a function returns a false value, or raises.

    Args:
        expected: A description of the right values, for messages.
        is_so: The function.
    """

    def check(value: Any) -> None:
        try:
            if is_so(value):
                return
        except (TypeError, ValueError, OverflowError):
            pass  # what is raised below says it better
        raise ValueError(f"= {shown(value)} is not {expected}.")

    return check


def seconds(least: float = 0) -> Check:
    """Return the check for a number of seconds."""
    return that(
        "a number of seconds",
        lambda value: (
            isinstance(value, (int, float)) and least <= value <= _MAX_SECONDS
        ),
    )


def check_bool(value: Any) -> None:
    """Refuse text, of which also ``"no"`` is true."""
    if isinstance(value, str):
        raise ValueError(f"= {shown(value)} is text: write True or False.")  # noqa: TRY004


def check_task_id(value: Any) -> str | None:
    """Return a ``UUID`` as text; refuse what no broker or no database can hold."""
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > _MAX_ID:
        problem = f"is not text of at most {_MAX_ID} bytes, without NUL."
        raise ValueError(f"= {shown(value)} {problem}")
    return None


def is_time(value: Any) -> bool:
    """Whether Celery can read a point in time."""
    return hasattr(value, "isoformat") or (
        isinstance(value, str) and maybe_iso8601(value) is not None
    )


def check_links(value: Any) -> list[Any] | None:
    """Return a list of what an iterable has; refuse what is no signature."""
    is_one = isinstance(value, Mapping) or not isinstance(value, Iterable)
    links = [value] if is_one else [*value]
    if not all(isinstance(link, Mapping) and "task" in link for link in links):
        expected = "what request.task_signature() or a canvas returns, or their list"
        raise ValueError(f"= {shown(value)} is not {expected}.")
    return None if is_one else links


def check_rate(value: Any) -> None:
    """Check a rate limit."""
    try:
        limit = rate(value)
    except (KeyError, ValueError):
        limit = None
    if not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(
            f"= {value} is not a rate: write a number of tasks a second, or such as "
            "100/m or 10/h."
        )


def check_exchange_type(value: Any) -> None:
    """Check the type of an exchange."""
    if not str(value).startswith("x-"):  # of a plugin of the broker
        one_of("direct", "topic", "fanout", "headers")(value)
