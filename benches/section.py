"""What every section of the benches is: something that is told how much effort to make, and answers rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rounds import Effort
from table import Row

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Args:
        quick: Whether a rough result within seconds will do.
        traces: The folder of recorded traces.
        runs: How often each hit ratio is measured.
    """

    quick: bool
    traces: Path
    runs: int

    @property
    def effort(self) -> Effort:
        """For operations that take microseconds."""
        return Effort(rounds=3, turns=4, slice_ns=2_000_000) if self.quick else Effort(rounds=15)

    @property
    def passes(self) -> int:
        """Among how many passes over the rows the rounds are divided."""
        return 1 if self.quick else 5


Section = Callable[[Options], Iterator[Row]]


def progress(text: str) -> None:
    """Tells whoever waits what is being done."""
    print(f"... {text}", file=sys.stderr, flush=True)
