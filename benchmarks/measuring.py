"""Taking turns, and what is made of the values: medians, quartiles, ratios."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

PLAIN = "plain Celery"
OURS = "pyramid_tasks"

#: What one turn of a case has measured, by the name of the measure.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Effort:
    """How much to measure: in full, or just enough to see that a script works."""

    quick: bool = False
    rounds: int | None = None

    def turns(self, full: int) -> int:
        """Return how often each case has its turn."""
        return self.rounds or self.pick(full, 1)

    def pick(self, full: int, quick: int) -> int:
        """Return one of two numbers."""
        return quick if self.quick else full


@dataclass
class Row:
    """One line of the table.

    Attributes:
        label: What was measured.
        unit: The unit of the values.
        values: One for each turn.
        plain: Those of plain Celery in the same turns, where it has its part.
    """

    label: str
    unit: str
    values: list[float]
    plain: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the values is below the first, another above the second."""
        return _quartiles(self.values)

    @property
    def ratios(self) -> list[float]:
        """The ratios to plain Celery, each within one turn; empty without any."""
        if not all(self.plain) or not self.plain:
            return []
        pairs = zip(self.values, self.plain, strict=True)
        return [ours / plain for ours, plain in pairs]

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def ratio_quartiles(self) -> tuple[float, float]:
        """The quartiles of the ratios."""
        return _quartiles(self.ratios)

    @property
    def difference(self) -> float | None:
        """The median of the differences to plain Celery, each within one turn."""
        if not self.plain:
            return None
        pairs = zip(self.values, self.plain, strict=True)
        return statistics.median(ours - plain for ours, plain in pairs)


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def take_turns(
    title: str,
    cases: Mapping[str, Callable[[], Sample]],
    turns: int,
    *,
    warm_up: bool = True,
) -> dict[str, list[Sample]]:
    """Run each case in turn, A B C A B C ..., and return what each has measured.

    Args:
        title: What to say of it on standard error.
        cases: What to run, by label; the first is what others are compared with.
        turns: How often.
        warm_up: Whether a turn goes before that does not count.
    """
    found: dict[str, list[Sample]] = {label: [] for label in cases}
    for number in range(0 if warm_up else 1, turns + 1):
        _say(f"{title}: {number} of {turns}")
        for label, run in cases.items():
            sample = run()
            if number:
                found[label].append(sample)
    _say("")
    return found


def rows(
    found: Mapping[str, list[Sample]], measure: str, unit: str, title: str = ""
) -> Iterator[Row]:
    """Give a row for each case, compared with the first.

    Args:
        found: What :func:`take_turns` has returned.
        measure: Which of the measures.
        unit: Its unit.
        title: What stands before the label of each case.
    """
    plain: list[float] = []
    for label, samples in found.items():
        values = [sample[measure] for sample in samples]
        yield Row(f"{title}: {label}" if title else label, unit, values, plain)
        plain = plain or values


def timed(
    call: Callable[[], object], number: int, tasks: int = 1, *, cpu: bool = True
) -> Callable[[], Sample]:
    """Return a case that calls something often: µs for each task, and tasks per second.

    Args:
        number: How often.
        tasks: How many tasks a call is about.
        cpu: Count the time of this processor only. That leaves out what other
            processes do to it, and whatever the call waits for.
    """
    clock = time.process_time if cpu else time.perf_counter

    def run() -> Sample:
        gc.collect()  # what others have left
        begin = clock()
        for _ in range(number):
            call()
        seconds = clock() - begin
        count = number * tasks
        return {"µs": 1e6 * seconds / count, "per second": count / seconds}

    return run


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:79}", end="\r", file=sys.stderr, flush=True)
