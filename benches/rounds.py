"""Times operations side by side: the sides take turns of some milliseconds, so that whatever else this machine does
meets all of them alike. A round is a few turns of each, and a side's figure in it that of its quickest turn, the one
that was interrupted least.

Rows with narrow goals, of single operations and of threads, are timed in passes: row after row, a few rounds each, and
then again. A neighbour on this machine who is busy for some seconds meets all rows, not all rounds of one.

A side's time per operation includes the ``for`` loop that calls it, as a caller's own loop would: some 10 ns.
"""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

Inputs = Sequence[Any]


@dataclass(frozen=True)
class Side:
    """One of the things that are compared.

    Args:
        run: Does the operation once for each input; this is timed.
        inputs: Answers that many inputs; this is not.
    """

    run: Callable[[Inputs], object]
    inputs: Callable[[int], Inputs]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: How many figures each side gets.
        turns: How often each side is timed for one figure.
        slice_ns: How long a turn takes, about, in nanoseconds.
        least: The fewest operations of a turn: what a cache does once in some hundred of them has to be in every turn.
    """

    rounds: int
    turns: int = 8
    slice_ns: int = 4_000_000
    least: int = 1000


def time_in_rounds(sides: Mapping[str, Side], effort: Effort) -> dict[str, list[float]]:
    """Nanoseconds per operation of every side in every round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.disable()
    try:
        counts = {name: max(effort.least, _count_for(side, effort.slice_ns)) for name, side in sides.items()}
        order = list(sides)
        for _ in range(effort.rounds):
            turns: dict[str, list[int]] = {name: [] for name in sides}
            for _ in range(effort.turns):
                for name in order:
                    turns[name].append(_time(sides[name], counts[name]))
                # A B, B A, ...: neither side always comes second.
                order.reverse()
            for name in sides:
                times[name].append(min(turns[name]) / counts[name])
    finally:
        gc.enable()
    return times


def time_in_passes(
    rows: Mapping[str, Callable[[], Mapping[str, Side]]],
    effort: Effort,
    passes: int,
    progress: Callable[[str], object],
) -> dict[str, dict[str, list[float]]]:
    """Nanoseconds per operation of every side of every row in every round; the rounds are divided among so many passes
    over the rows, each of which makes the sides anew. What is timed is told to ``progress``."""
    times: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    effort = replace(effort, rounds=-(-effort.rounds // passes))
    for number in range(1, passes + 1):
        for row, make in rows.items():
            progress(f"{row}, {number} of {passes}")
            for name, found in time_in_rounds(make(), effort).items():
                times[row].setdefault(name, []).extend(found)
    return times


def time_commands(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Nanoseconds that every command takes in every round, after one run of each that does not count and may leave its
    bytecode for the others, as an installation would.

    Raises:
        subprocess.CalledProcessError: A command failed.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for counts in [False] + [True] * rounds:
        for name, command in commands.items():
            start = perf_counter_ns()
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)
            if counts:
                times[name].append(float(perf_counter_ns() - start))
    return times


def _count_for(side: Side, slice_ns: int) -> int:
    """How many operations fill a slice; also warms the side up."""
    count = 1
    while (elapsed := _time(side, count)) < slice_ns:
        count = max(2 * count, min(16 * count, count * slice_ns // (elapsed or 1)))
    return max(1, count * slice_ns // elapsed)


def _time(side: Side, count: int) -> int:
    inputs = side.inputs(count)
    run = side.run
    start = perf_counter_ns()
    run(inputs)
    return perf_counter_ns() - start
