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


def expense(line: int, category: str = "Rent", cents: int = 95000) -> ExpenseRow:
    """Return the expense that most files here contain."""
    return ExpenseRow(line, date(2024, 5, 1), category, cents)


def read_bad(text: str) -> UnreadableRow:
    """Return the only row of a file, which cannot be read."""
    (row,) = read_rows(text)
    assert isinstance(row, UnreadableRow)
    return row


class TestReadable:
    """Files that can be read."""

    def test_row(self) -> None:
        """A row is a day, a category and an amount in cents."""
        assert list(read_rows("2024-05-01,Rent,950.00\n")) == [expense(1)]

    def test_last_line_without_end(self) -> None:
        """The last line needs no line end."""
        assert list(read_rows("2024-05-01,Rent,950.00")) == [expense(1)]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends(self, end: str) -> None:
        """The line ends of every system are understood, and lines counted."""
        text = end.join(["date,category,amount", *["2024-05-01,Rent,950"] * 2])
        assert list(read_rows(text)) == [expense(2), expense(3)]

    @pytest.mark.parametrize(
        "header",
        ["date,category,amount", "Date,CATEGORY,Amount", '"date", category ,"amount"'],
    )
    def test_header(self, header: str) -> None:
        """A first line with the names of the columns is no row."""
        assert list(read_rows(f"{header}\n2024-05-01,Rent,950")) == [expense(2)]

    def test_header_after_blank_lines(self) -> None:
        """Blank lines may come before the names of the columns."""
        text = "\n\ndate,category,amount\n2024-05-01,Rent,950"
        assert list(read_rows(text)) == [expense(4)]

    def test_header_only_once(self) -> None:
        """The names of the columns are an unreadable row anywhere else."""
        rows = list(read_rows("2024-05-01,Rent,950\ndate,category,amount"))
        assert [type(row) for row in rows] == [ExpenseRow, UnreadableRow]

    @pytest.mark.parametrize("header", ["", "date,category,amount\n"])
    def test_byte_order_mark(self, header: str) -> None:
        """A byte order mark does not belong to the first value."""
        (row,) = read_rows(f"\ufeff{header}2024-05-01,Rent,950")
        assert isinstance(row, ExpenseRow)

    @pytest.mark.parametrize("blank", ["", "   ", "\t", ",,", " , , ", '""'])
    def test_blank_lines(self, blank: str) -> None:
        """Lines without any text are left out, and counted as lines."""
        text = f"2024-05-01,Rent,950\n{blank}\n2024-05-01,Rent,950"
        assert list(read_rows(text)) == [expense(1), expense(3)]

    def test_quoted_comma_and_quote(self) -> None:
        """A quoted value may contain commas and doubled quotes."""
        text = '2024-05-01,"Rent, ""big"" flat",950'
        assert list(read_rows(text)) == [expense(1, 'Rent, "big" flat')]

    def test_quoted_line_end(self) -> None:
        """A row over two lines has the number of the first one."""
        text = '2024-05-01,Rent,950\n2024-05-01,"Re\nnt",950\n2024-05-01,Rent,950'
        rows = [expense(1), expense(2, "Re\nnt"), expense(4)]
        assert list(read_rows(text)) == rows

    def test_spaces(self) -> None:
        """Spaces around a value do not belong to it."""
        assert list(read_rows(" 2024-05-01 , Rent , 950 ")) == [expense(1)]

    @pytest.mark.parametrize(
        ("amount", "cents"),
        [
            ("0", 0),
            ("1", 100),
            ("1.", 100),
            ("1.5", 150),
            ("0.05", 5),
            ("-3.20", -320),
            ("+3.20", 320),
            ("007.10", 710),
            ("19.99", 1999),
            ("1000000000", 100_000_000_000),
        ],
    )
    def test_amounts(self, amount: str, cents: int) -> None:
        """An amount is exact, and may be negative."""
        assert list(read_rows(f"2024-05-01,Rent,{amount}")) == [expense(1, cents=cents)]

    def test_longest_category(self) -> None:
        """A category may have 60 characters."""
        category = "ä" * 60
        assert list(read_rows(f"2024-05-01,{category},950")) == [expense(1, category)]

    @pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", "date,category,amount\n"])
    def test_nothing(self, text: str) -> None:
        """A file may have no rows."""
        assert list(read_rows(text)) == []


class TestUnreadable:
    """Rows that cannot be read."""

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("2024-05-01", "expected 3 columns, found 1"),
            ("2024-05-01,Rent", "expected 3 columns, found 2"),
            ("2024-05-01,Rent,1,50", "expected 3 columns, found 4"),
            ("2024-05-01;Rent;950", "expected 3 columns, found 1"),
        ],
    )
    def test_columns(self, text: str, reason: str) -> None:
        """A row has three columns."""
        assert read_bad(text) == UnreadableRow(1, reason, text)

    @pytest.mark.parametrize(
        "day", ["", "1.5.2024", "05/01/2024", "20240501", "2024-5-1", "2024-W18-3"]
    )
    def test_date_format(self, day: str) -> None:
        """A date is written in one way, on every version of Python."""
        reason = f"date “{day}” is not written as YYYY-MM-DD"
        assert read_bad(f"{day},Rent,950").reason == reason

    @pytest.mark.parametrize("day", ["2024-02-30", "2023-02-29", "2024-13-01"])
    def test_date_of_no_calendar(self, day: str) -> None:
        """A date exists."""
        reason = f"date “{day}” is not in the calendar"
        assert read_bad(f"{day},Rent,950").reason == reason

    @pytest.mark.parametrize(
        "amount",
        [
            "",
            "twelve",
            "NaN",
            "sNaN",
            "inf",
            "-Infinity",
            "1e9",
            "1_000",
            "1 000",
            "$5",
            "--5",
            ".",
            "٣",
            "0x10",
        ],
    )
    def test_amount_is_no_number(self, amount: str) -> None:
        """An amount is a plain number; what Decimal takes besides is none."""
        reason = f"amount “{amount}” is not a number such as 12.50"
        assert read_bad(f"2024-05-01,Rent,{amount}").reason == reason

    @pytest.mark.parametrize("amount", ["1.005", "1.500", "0.000"])
    def test_amount_with_three_places(self, amount: str) -> None:
        """An amount has no more than two decimal places."""
        reason = f"amount “{amount}” has more than two decimal places"
        assert read_bad(f"2024-05-01,Rent,{amount}").reason == reason

    @pytest.mark.parametrize("amount", ["1000000000.01", "-1000000001"])
    def test_amount_too_large(self, amount: str) -> None:
        """An amount is a thousand million at most."""
        reason = f"amount “{amount}” is larger than 1,000,000,000"
        assert read_bad(f"2024-05-01,Rent,{amount}").reason == reason

    def test_very_long_amount(self) -> None:
        """An amount of many digits is refused and shown in short."""
        reason = read_bad("2024-05-01,Rent," + "9" * 100_000).reason
        assert reason == f"amount “{'9' * 39}…” is larger than 1,000,000,000"

    def test_decimal_comma(self) -> None:
        """A decimal comma in quotes is no number."""
        row = read_bad('2024-05-01,Rent,"12,50"')
        assert row.reason == "amount “12,50” is not a number such as 12.50"

    @pytest.mark.parametrize(
        ("category", "reason"),
        [
            ("", "category is empty"),
            ('" "', "category is empty"),
            ("x" * 61, "category is longer than 60 characters"),
        ],
    )
    def test_category(self, category: str, reason: str) -> None:
        """A category has 1 to 60 characters."""
        assert read_bad(f"2024-05-01,{category},950").reason == reason

    def test_quote_never_closed(self) -> None:
        """A quote that is never closed is one row, and the reason says so."""
        rows = list(read_rows('2024-05-01,Rent,950\nx,"open\n2024-05-01,Rent,950\n'))
        assert rows == [
            expense(1),
            UnreadableRow(
                2,
                "a quoted value is never closed; the rest of the file belongs to it",
                'x,"open\n2024-05-01,Rent,950',
            ),
        ]

    def test_text_after_quote(self) -> None:
        """Text after a closing quote spoils only its own row."""
        rows = list(read_rows('2024-05-01,"Rent"s,950\n2024-05-01,Rent,950'))
        reason = "a quoted value goes on after its closing quote"
        assert rows == [
            UnreadableRow(1, reason, '2024-05-01,"Rent"s,950'),
            expense(2),
        ]

    def test_value_beyond_limit_of_csv(self) -> None:
        """A value too long for the csv module spoils only its own row."""
        rows = list(read_rows("x" * 200_000 + "\n2024-05-01,Rent,950"))
        assert rows == [
            UnreadableRow(
                1,
                "field larger than field limit (131072)",
                "x" * (MAX_SHOWN - 1) + "…",
            ),
            expense(2),
        ]

    def test_line_after_blank_lines(self) -> None:
        """The number of a row counts the blank lines before it."""
        rows = list(read_rows("date,category,amount\n\n\n2024-05-01\n"))
        assert rows == [UnreadableRow(4, "expected 3 columns, found 1", "2024-05-01")]


def test_rows_are_read_one_by_one() -> None:
    """Reading is lazy: the first row is there before the last is read."""
    rows = read_rows("2024-05-01,Rent,950\n" * 100_000)
    assert next(rows) == expense(1)


def test_count() -> None:
    """Rows are counted without the header and blank lines, readable or not."""
    assert count_rows("date,category,amount\n\nx\n2024-05-01,Rent,950\n\n") == 2
