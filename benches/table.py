"""The rows that are printed: what was measured, ours against a peer's, and whether a goal is reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

HEADINGS = ("operation", "ours", "peer's", "peer", "ratio", "spread", "goal", "native goal")


@dataclass(frozen=True)
class Goal:
    """The most that a row's ratio (or difference) may be.

    Args:
        now: For the package in pure Python, too.
        native: For the package with its native extension.
    """

    now: float | None = None
    native: float | None = None


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        operation: What was done.
        peer: Against whom.
        ours: Our figure in each round.
        theirs: The peer's figure in the same rounds.
        unit: "ns" (nanoseconds), "B" (bytes) or "%"; ours and the peer's percentages are subtracted, all else divided.
        goal: What is to be reached.
        note: What a reader has to know.
    """

    operation: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str = "ns"
    goal: Goal = field(default_factory=Goal)
    note: str = ""

    def comparisons(self) -> list[float]:
        """Ours by the peer's, of each round: the ratio, or the difference of percentages."""
        if self.unit == "%":
            return [ours - theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def result(self) -> float:
        """The median of the rounds' ratios; of percentages, the difference of the means."""
        return (mean if self.unit == "%" else median)(self.comparisons())

    def reached(self, goal: float | None) -> bool | None:
        """Whether the result is within a goal."""
        if goal is None:
            return None
        return (abs(self.result()) if self.unit == "%" else self.result()) <= goal

    def cells(self) -> tuple[str, ...]:
        """What is printed, under HEADINGS."""
        lowest, highest = min(self.comparisons()), max(self.comparisons())
        middle = mean if self.unit == "%" else median
        form = "{:+.2f}".format if self.unit == "%" else _ratio
        return (
            self.operation + (" *" if self.note else ""),
            _figure(middle(self.ours), self.unit),
            _figure(middle(self.theirs), self.unit),
            self.peer,
            form(self.result()),
            f"{form(lowest)} .. {form(highest)}" if len(self.ours) > 1 else "one round",
            self._verdict(self.goal.now),
            self._verdict(self.goal.native),
        )

    def _verdict(self, goal: float | None) -> str:
        if goal is None:
            return ""
        bound = f"within {goal:g}" if self.unit == "%" else f"<= {goal:g}"
        return f"{bound}: {'reached' if self.reached(goal) else 'NOT reached'}"

    def as_json(self) -> dict[str, Any]:
        """Everything, the single rounds included."""
        return {
            "operation": self.operation,
            "peer": self.peer,
            "unit": self.unit,
            "ours": list(self.ours),
            "theirs": list(self.theirs),
            "result": self.result(),
            "spread": [min(self.comparisons()), max(self.comparisons())],
            "goal": self.goal.now,
            "reached": self.reached(self.goal.now),
            "native_goal": self.goal.native,
            "native_reached": self.reached(self.goal.native),
            "note": self.note,
        }


def mean(figures: Sequence[float]) -> float:
    """Their arithmetic mean."""
    return sum(figures) / len(figures)


def markdown(rows: Iterable[Row]) -> str:
    """A table in Markdown, aligned to be read as it is; the notes below it."""
    rows = list(rows)
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    numeric = {1, 2, 4}

    def joined(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (width + 1) + (":" if column in numeric else "-") for column, width in enumerate(widths))
    text = [joined(HEADINGS), f"|{'|'.join(rule)}|", *map(joined, lines[1:])]
    notes = dict.fromkeys(f"\\* {row.operation}: {row.note}" for row in rows if row.note)
    return "\n".join([*text, *([""] if notes else []), *notes])


def _figure(number: float, unit: str) -> str:
    if unit == "%":
        return f"{number:.2f} %"
    if unit == "B":
        return f"{number / 1e6:.1f} MB"
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {name}"
    return f"{number:.0f} ns"


def _ratio(number: float) -> str:
    return f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"
