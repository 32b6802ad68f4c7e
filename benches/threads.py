"""Measures threads: eight that share a cache against one that does all by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from operations import VALUE, again_and_again, filled, live_keys, setting, with_each
from rounds import Inputs, Side, time_in_rounds
from section import Options, progress
from table import Goal, Row

import moka_wasm

THREADS = 8


def _together(run: Callable[[Inputs], object]) -> Callable[[Inputs], None]:
    """Does the operations in as many threads, each a part of them."""

    def run_together(inputs: Inputs) -> None:
        parts = [inputs[number::THREADS] for number in range(THREADS)]
        threads = [threading.Thread(target=run, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run_together


def section(options: Options) -> Iterator[Row]:
    """Eight threads against one. Together they are to do at least 0.9 of its operations in a second."""
    cache = filled(moka_wasm)
    inputs = again_and_again(live_keys())
    # So many that starting the threads is no part of it.
    effort = replace(options.effort, least=20_000 if options.quick else 1_000_000, turns=2)
    for operation, run in (("get, hit", with_each(cache.get)), ("set, existing key", setting(cache.set, VALUE))):
        progress(f"{operation}, {THREADS} threads")
        times = time_in_rounds({"together": Side(_together(run), inputs), "alone": Side(run, inputs)}, effort)
        yield Row(
            f"{operation}, {THREADS} threads", "1 thread", times["together"], times["alone"], goal=Goal(native=1 / 0.9)
        )
