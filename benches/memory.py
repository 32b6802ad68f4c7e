"""Measures up to 1,000,000 small dicts in a cache, each time in a process of its own: how long it takes to make and
store them, how much resident memory grows by, and how long ``gc.collect()`` takes with them."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fill_cache import MAKERS
from section import Options, progress
from table import Goal, Row

FILLER = Path(__file__).with_name("fill_cache.py")


COUNTS = (10_000, 100_000, 1_000_000)
"""Numbers of entries. Those of scalars are only measured at the last of them, for which there are goals."""

GOALS = {"fill": Goal(native=0.9), "memory": Goal(0.45, 0.35), "gc": Goal(0.1, 0.05)}
MEASURES = {"fill": "fill time", "memory": "growth of resident memory", "gc": "gc.collect()"}


def what(count: int, shape: str) -> str:
    """What so many entries are called in the table."""
    return f"{count:,} dicts" if shape == "scalars" else f"{count:,} dicts with a list each"


def section(options: Options) -> Iterator[Row]:
    """Small dicts, up to a million: fill time, memory, garbage collection."""
    for shape in MAKERS:
        counts = (50_000,) if options.quick else COUNTS if shape == "list" else COUNTS[-1:]
        for count in counts:
            yield from _fill(count, shape, rounds=1 if options.quick else 3)


def _fill(count: int, shape: str, rounds: int) -> Iterator[Row]:
    outcomes: dict[str, list[dict[str, float]]] = {"moka_wasm": [], "moka_py": []}
    for number in range(rounds):
        for module in outcomes:
            progress(f"{what(count, shape)} in {module}, round {number + 1} of {rounds}")
            command = [sys.executable, str(FILLER), module, str(count), shape]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            outcomes[module].append(json.loads(answer))
    ours, theirs = outcomes["moka_wasm"], outcomes["moka_py"]
    for outcome in ours + theirs:
        assert outcome["entries"] == count, outcome
    for measure, goal in GOALS.items():
        yield Row(
            f"{what(count, shape)}: {MEASURES[measure]}",
            "moka-py",
            [outcome[measure] for outcome in ours],
            [outcome[measure] for outcome in theirs],
            unit="B" if measure == "memory" else "ns",
            goal=goal if count == COUNTS[-1] else Goal(),
            note=_note(measure, shape),
        )


def _note(measure: str, shape: str) -> str:
    if measure == "gc" and shape == "scalars" and not gc.is_tracked(MAKERS[shape](1000)):
        return (
            "this CPython's collector does not look at dicts that hold nothing but scalars, in any cache; what is left "
            "is the collection of the modules that are loaded"
        )
    return ""
