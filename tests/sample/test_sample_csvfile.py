"""Reading CSV files."""

from __future__ import annotations

from datetime import date

import pytest
from sampleapp.csvfile import (
    MAX_SHOWN,
    ExpenseRow,
    UnreadableRow,
    count_rows,
    read_rows,
)

HEADER = "date,category,amount"
ROW = "2024-05-01,Rent,950"


def expense(line: int, category: str = "Rent", cents: int = 95000) -> ExpenseRow:
    """Return the expense that most files here contain."""
    return ExpenseRow(line, date(2024, 5, 1), category, cents)


def bad(line: int, reason: str, text: str) -> UnreadableRow:
    """Return what stands for a row that cannot be read."""
    shown = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    return UnreadableRow(line, reason, shown)


TWO_LINES = '2024-05-01,"Re\nnt",950'
NO_HEADER = "date “date” is not written as YYYY-MM-DD"
OPEN = f'x,"open\n{ROW}'
NEVER_CLOSED = "a quoted value is never closed; the rest of the file belongs to it"
QUOTED = '2024-05-01,"Rent"s,950'
GOES_ON = "a quoted value goes on after its closing quote"
ONE_COLUMN = "expected 3 columns, found 1"
LONG = "x" * 200_000
LIMIT = "field larger than field limit (131072)"
NINES = f"2024-05-01,Rent,{'9' * 100_000}"
TOO_LARGE = f"amount “{'9' * 39}…” is larger than 1,000,000,000"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("2024-05-01,Rent,950.00\n", [expense(1)]),
        (ROW, [expense(1)]),
        *(
            (end.join([HEADER, ROW, ROW]), [expense(2), expense(3)])
            for end in ("\n", "\r\n", "\r")
        ),
        *(
            (f"{header}\n{ROW}", [expense(2)])
            for header in (HEADER, "Date,CATEGORY,Amount", '"date", category ,"amount"')
        ),
        (f"\n\n{HEADER}\n{ROW}", [expense(4)]),
        (f"{ROW}\n{HEADER}", [expense(1), bad(2, NO_HEADER, HEADER)]),
        (f"\ufeff{ROW}", [expense(1)]),
        (f"\ufeff{HEADER}\n{ROW}", [expense(2)]),
        *(
            (f"{ROW}\n{blank}\n{ROW}", [expense(1), expense(3)])
            for blank in ("", "   ", "\t", ",,", " , , ", '""')
        ),
        ('2024-05-01,"Rent, ""big"" flat",950', [expense(1, 'Rent, "big" flat')]),
        (f"{ROW}\n{TWO_LINES}\n{ROW}", [expense(1), expense(2, "Re\nnt"), expense(4)]),
        (" 2024-05-01 , Rent , 950 ", [expense(1)]),
        (f"2024-05-01,{'ä' * 60},950", [expense(1, "ä" * 60)]),
        *((text, []) for text in ("", "\n\n", "\ufeff", f"{HEADER}\n")),
        (f"{ROW}\n{OPEN}", [expense(1), bad(2, NEVER_CLOSED, OPEN)]),
        (f"{QUOTED}\n{ROW}", [bad(1, GOES_ON, QUOTED), expense(2)]),
        (f"{HEADER}\n\n\n2024-05-01", [bad(4, ONE_COLUMN, "2024-05-01")]),
        pytest.param(f"{LONG}\n{ROW}", [bad(1, LIMIT, LONG), expense(2)], id="long"),
        pytest.param(NINES, [bad(1, TOO_LARGE, NINES)], id="nines"),
    ],
)
def test_rows(text: str, rows: list[ExpenseRow | UnreadableRow]) -> None:
    """Each row is read, or spoiled alone, with the number of its first line."""
    assert list(read_rows(text)) == rows


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        *[
            ("0", 0),
            ("1", 100),
            ("1.", 100),
            ("1.5", 150),
            ("0.05", 5),
            ("-3.20", -320),
        ],
        *[("+3.20", 320), ("007.10", 710), ("19.99", 1999)],
        ("1000000000", 100_000_000_000),
    ],
)
def test_amounts(amount: str, cents: int) -> None:
    """An amount is exact, and may be negative."""
    assert list(read_rows(f"2024-05-01,Rent,{amount}")) == [expense(1, cents=cents)]


NO_DAYS = ["", "1.5.2024", "05/01/2024", "20240501", "2024-5-1", "2024-W18-3"]
NO_DATES = ["2024-02-30", "2023-02-29", "2024-13-01"]
#: What Decimal takes besides plain numbers is among them.
NO_NUMBERS = [
    *("", "twelve", "NaN", "sNaN", "inf", "-Infinity", "1e9", "1_000", "1 000"),
    *("$5", "--5", ".", "٣", "0x10"),
]
NO_NUMBER = "amount “{}” is not a number such as 12.50"
TOO_EXACT = ["1.005", "1.500", "0.000"]
BEYOND_LIMIT = ["1000000000.01", "-1000000001"]
DAY = "{},Rent,950"
CATEGORY = "2024-05-01,{},950"
AMOUNT = "2024-05-01,Rent,{}"


@pytest.mark.parametrize(
    ("row", "reason", "values"),
    [
        ("{}", ONE_COLUMN, ["2024-05-01", "2024-05-01;Rent;950"]),
        ("{}", "expected 3 columns, found 2", ["2024-05-01,Rent"]),
        ("{}", "expected 3 columns, found 4", ["2024-05-01,Rent,1,50"]),
        (DAY, "date “{}” is not written as YYYY-MM-DD", NO_DAYS),
        (DAY, "date “{}” is not in the calendar", NO_DATES),
        (AMOUNT, NO_NUMBER, NO_NUMBERS),
        ('2024-05-01,Rent,"{}"', NO_NUMBER, ["12,50"]),
        (AMOUNT, "amount “{}” has more than two decimal places", TOO_EXACT),
        (AMOUNT, "amount “{}” is larger than 1,000,000,000", BEYOND_LIMIT),
        (CATEGORY, "category is empty", ["", '" "']),
        (CATEGORY, "category is longer than 60 characters", ["x" * 61]),
    ],
)
def test_reasons(row: str, reason: str, values: list[str]) -> None:
    """The reason says what cannot be read, the same on every version of Python."""
    for value in values:
        text = row.format(value)
        assert list(read_rows(text)) == [bad(1, reason.format(value), text)]


def test_rows_are_read_one_by_one() -> None:
    """Reading is lazy: the first row is there before the last is read."""
    assert next(read_rows(f"{ROW}\n" * 100_000)) == expense(1)


def test_count() -> None:
    """Rows are counted without the header and blank lines, readable or not."""
    assert count_rows(f"{HEADER}\n\nx\n{ROW}\n\n") == 2
