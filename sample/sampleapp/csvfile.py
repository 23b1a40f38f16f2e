"""From the text of a CSV file to expenses: pure functions.

A file has three columns, `date,category,amount`, and may say so in its first line.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("date", "category", "amount")
MAX_CATEGORY = 60
MAX_AMOUNT = Decimal(1_000_000_000)
MAX_SHOWN = 200

# Decimal() and date.fromisoformat() take more than people mean when they type a
# number or a date ("1_000", "1e9", "NaN", "2024W051"), and what they take depends
# on the version of Python.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_AMOUNT = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_DECIMAL_PLACES = 2


@dataclass(frozen=True)
class ExpenseRow:
    """One expense, and the line of the file on which it starts."""

    line: int
    day: date
    category: str
    cents: int


@dataclass(frozen=True)
class UnreadableRow:
    """A row that is no expense: why, and what the file says there."""

    line: int
    reason: str
    text: str


class _Lines:
    """Iterates over lines and remembers those of the row being read."""

    def __init__(self, text: str) -> None:
        # newline="" leaves line ends alone, which csv asks for.
        self._lines = io.StringIO(text, newline="")
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def take(self) -> str:
        """Return what was read since the last call."""
        text = "".join(self._taken)
        self._taken.clear()
        return text


def read_rows(text: str) -> Iterator[ExpenseRow | UnreadableRow]:
    """Read the rows of a CSV file, in their order.

    Blank lines and the line with the names of the columns are left out. A row that
    cannot be read does not end the reading.

    Args:
        text: The whole file. A byte order mark is skipped.

    Yields:
        An expense, or why there is none.
    """
    lines = _Lines(text.removeprefix("\ufeff"))
    # Without strict=True a quote in the wrong place becomes part of a value.
    reader = csv.reader(lines, strict=True)
    first = True
    while True:
        line = reader.line_num + 1
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            first = False
            yield UnreadableRow(line, _explain(error), _shorten(lines.take()))
            continue
        source = lines.take()
        if not any(fields):
            continue
        if first and tuple(field.lower() for field in fields) == COLUMNS:
            first = False
            continue
        first = False
        try:
            yield _read_fields(line, fields)
        except ValueError as error:
            yield UnreadableRow(line, str(error), _shorten(source))


def count_rows(text: str) -> int:
    """Return how many rows `read_rows` yields."""
    return sum(1 for _ in read_rows(text))


def _read_fields(line: int, fields: list[str]) -> ExpenseRow:
    if len(fields) != len(COLUMNS):
        message = f"expected {len(COLUMNS)} columns, found {len(fields)}"
        raise ValueError(message)
    day, category, amount = fields
    return ExpenseRow(
        line, _read_day(day), _read_category(category), _read_cents(amount)
    )


def _read_day(text: str) -> date:
    if not _DATE.fullmatch(text):
        message = f"date {_quote(text)} is not written as YYYY-MM-DD"
        raise ValueError(message)
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"date {_quote(text)} is not in the calendar"
        raise ValueError(message) from None


def _read_category(text: str) -> str:
    if not text:
        message = "category is empty"
        raise ValueError(message)
    if len(text) > MAX_CATEGORY:
        message = f"category is longer than {MAX_CATEGORY} characters"
        raise ValueError(message)
    return text


def _read_cents(text: str) -> int:
    if not _AMOUNT.fullmatch(text):
        message = f"amount {_quote(text)} is not a number such as 12.50"
        raise ValueError(message)
    amount = Decimal(text)
    if abs(amount) > MAX_AMOUNT:
        message = f"amount {_quote(text)} is larger than {MAX_AMOUNT:,}"
        raise ValueError(message)
    # 1.500 is refused too: where the point separates thousands it means 1500.
    if len(text.partition(".")[2]) > _DECIMAL_PLACES:
        message = f"amount {_quote(text)} has more than two decimal places"
        raise ValueError(message)
    return int(amount.scaleb(_DECIMAL_PLACES))


def _explain(error: csv.Error) -> str:
    # The words of csv are those of a parser.
    message = str(error)
    if "unexpected end of data" in message:
        return "a quoted value is never closed; the rest of the file belongs to it"
    if "expected after" in message:
        return "a quoted value goes on after its closing quote"
    return message


def _quote(text: str) -> str:
    return f"“{_shorten(text, 40)}”"


def _shorten(text: str, length: int = MAX_SHOWN) -> str:
    text = text.rstrip("\r\n")
    return text if len(text) <= length else text[: length - 1] + "…"
