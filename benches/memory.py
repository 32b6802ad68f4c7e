"""Measures 1,000,000 small dicts in a cache, each time in a process of its own: how long it takes to make and store
them, how much resident memory grows by, and how long ``gc.collect()`` takes with them."""

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


def section(options: Options) -> Iterator[Row]:
    """A million small dicts: fill time, memory, garbage collection."""
    count = 50_000 if options.quick else 1_000_000
    rounds = 1 if options.quick else 3
    for shape in MAKERS:
        outcomes: dict[str, list[dict[str, float]]] = {"moka_wasm": [], "moka_py": []}
        for number in range(rounds):
            for module in outcomes:
                progress(f"{count:,} dicts of {shape} in {module}, round {number + 1} of {rounds}")
                command = [sys.executable, str(FILLER), module, str(count), shape]
                answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
                outcomes[module].append(json.loads(answer))
        ours, theirs = outcomes["moka_wasm"], outcomes["moka_py"]
        for outcome in ours + theirs:
            assert outcome["entries"] == count, outcome
        what = f"{count:,} dicts" if shape == "scalars" else f"{count:,} dicts with a list each"
        goals = {"fill": Goal(native=0.9), "memory": Goal(0.45, 0.35), "gc": Goal(0.1, 0.05)}
        names = {"fill": "fill time", "memory": "growth of resident memory", "gc": "gc.collect()"}
        for measure, goal in goals.items():
            yield Row(
                f"{what}: {names[measure]}",
                "moka-py",
                [outcome[measure] for outcome in ours],
                [outcome[measure] for outcome in theirs],
                unit="B" if measure == "memory" else "ns",
                goal=goal,
                note=_note(measure, shape),
            )


def _note(measure: str, shape: str) -> str:
    if measure == "gc" and shape == "scalars" and not gc.is_tracked(MAKERS[shape](1000)):
        return (
            "this CPython's collector does not look at dicts that hold nothing but scalars, in any cache; what is left "
            "is the collection of the modules that are loaded"
        )
    return ""
