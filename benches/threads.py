"""Measures threads: eight that share a cache against one that does all by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from operations import VALUE, again_and_again, filled, live_keys, setting, with_each
from rounds import Inputs, Side, time_in_passes
from section import Options, progress
from table import Goal, Row

import moka_wasm

THREADS = 8


def _in_parts(inputs: Callable[[int], Inputs]) -> Callable[[int], Inputs]:
    """The same inputs, a part for each thread."""

    def parts(number: int) -> Inputs:
        whole = inputs(number)
        return [whole[first::THREADS] for first in range(THREADS)]

    return parts


def _together(run: Callable[[Inputs], object]) -> Callable[[Inputs], None]:
    """Does the operations of each part in a thread of its own."""

    def run_together(parts: Inputs) -> None:
        threads = [threading.Thread(target=run, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run_together


def _sides(run: Callable[[Inputs], object]) -> dict[str, Side]:
    inputs = again_and_again(live_keys())
    return {"together": Side(_together(run), _in_parts(inputs)), "alone": Side(run, inputs)}


ROWS: dict[str, tuple[Callable[[], dict[str, Side]], Goal]] = {
    "get, hit": (lambda: _sides(with_each(filled(moka_wasm).get)), Goal(native=1 / 0.9)),
    "set, existing key": (lambda: _sides(setting(filled(moka_wasm).set, VALUE)), Goal(native=1 / 0.9)),
    "dict.get, hit": (lambda: _sides(with_each(dict.fromkeys(live_keys(), VALUE).get)), Goal()),
}


def section(options: Options) -> Iterator[Row]:
    """Eight threads against one. Together they are to do at least 0.9 of its operations in a second.

    Those of a dict do what this interpreter and this machine make of threads.
    """
    # So many that starting the threads is hardly a part of it.
    effort = replace(options.effort, least=20_000 if options.quick else 250_000)
    rows = {f"{operation}, {THREADS} threads": row for operation, row in ROWS.items()}
    times = time_in_passes({name: make for name, (make, _) in rows.items()}, effort, options.passes, progress)
    for name, (_, goal) in rows.items():
        yield Row(name, "1 thread", times[name]["together"], times[name]["alone"], goal=goal)
