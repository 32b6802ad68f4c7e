"""Measures hit ratios, in percent of the requests: get, and set on a miss, over a recorded and a made trace.

Each run is a new cache, whose hash is keyed at random, so runs differ a little. Nothing is timed: the runs are spread
over all processors.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import traces
from section import Options, progress
from table import Goal, Row

POLICIES = ("tiny_lfu", "lru")
MODULES = ("moka_wasm", "moka_py")
OLTP = "OLTP"
OLTP_CAPACITIES = (250, 500, 1000, 2000)


@dataclass(frozen=True)
class Workload:
    """A trace, or its beginning, and the capacities to try.

    Args:
        name: What it is called in the table.
        capacities: In entries.
        folder: Where the recorded trace is; ``None`` for the made one.
        limit: How many requests.
    """

    name: str
    capacities: tuple[int, ...]
    folder: Path | None
    limit: int | None

    def requests(self) -> Iterator[int]:
        """The keys in the order of the requests."""
        if self.folder is None:
            return iter(traces.zipf(self.limit or 1_000_000))
        return iter(traces.oltp(self.folder, self.limit))


def replay(module: str, workload: Workload, policy: str, capacity: int) -> float:
    """The percentage of hits of one new cache."""
    cache = importlib.import_module(module).Moka(capacity, policy=policy)
    get, store = cache.get, cache.set
    hits = misses = 0
    for key in workload.requests():
        if get(key) is None:
            misses += 1
            store(key, key)
        else:
            hits += 1
    return 100 * hits / (hits + misses)


def workloads(options: Options) -> list[Workload]:
    """Those whose traces are here."""
    limit = 100_000 if options.quick else None
    suffix = ", first 100,000 requests" if options.quick else ""
    found = [Workload(f"Zipf 0.99{suffix}", (1000,) if options.quick else (1000, 10_000), None, limit)]
    if (options.traces / traces.OLTP_FILE).is_file():
        capacities = (1000,) if options.quick else OLTP_CAPACITIES
        found.insert(0, Workload(f"{OLTP}{suffix}", capacities, options.traces, limit))
    else:
        progress(f"skipped: hit ratios on OLTP, as there is no {traces.OLTP_FILE} in {options.traces} (see --traces)")
    return found


def title(workload: str, capacity: int, policy: str) -> str:
    """What a row is called in the table."""
    return f"hit ratio, {workload}, capacity {capacity:,}, {policy}"


def section(options: Options) -> Iterator[Row]:
    """Hit ratios, ours against moka-py's: means of the runs, and in place of the ratio the difference in points."""
    runs = 1 if options.quick else options.runs
    rows: dict[tuple[str, int, str], dict[str, list[Future[float]]]] = {}
    # Spawned, not forked: a fork would copy the sandboxes and threads of the sections before.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for workload in workloads(options):
            for capacity in workload.capacities:
                for policy in POLICIES:
                    rows[workload.name, capacity, policy] = {
                        module: [pool.submit(replay, module, workload, policy, capacity) for _ in range(runs)]
                        for module in MODULES
                    }
        for (name, capacity, policy), futures in rows.items():
            progress(f"hit ratio, {name}, capacity {capacity}, {policy}, {runs} runs")
            ours, theirs = ([future.result() for future in futures[module]] for module in MODULES)
            yield Row(title(name, capacity, policy), "moka-py", ours, theirs, "%", Goal(0.5, 0.5))
