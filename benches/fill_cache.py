"""Fills one cache with small dicts, in a process of its own, for ``memory``.

    fill_cache.py MODULE COUNT SHAPE

prints, as JSON: "fill", the nanoseconds that it took to make and store them; "memory", the bytes that resident memory
grew by; "gc", the nanoseconds of a ``gc.collect()`` with them, the quickest of five; "entries", how many there are.
While the cache is filled the collector runs as it does in any program.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "scalars": lambda i: {"id": i, "name": f"user{i}", "score": i * 0.5, "active": True},
    "list": lambda i: {"id": i, "name": f"user{i}", "score": i * 0.5, "tags": ["a", "b"]},
}


def resident_bytes() -> int:
    """Of this process, now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # No /proc: the most there ever was, which is near enough after nothing but growth.
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fill(module: str, count: int, shape: str) -> dict[str, float]:
    """Fills a new cache and answers what that took."""
    cache = importlib.import_module(module).Moka(count)
    make = MAKERS[shape]
    # What is set up at the first use is not what an entry costs.
    cache.set(-1, make(-1))
    cache.remove(-1)
    gc.collect()
    store = cache.set
    before = resident_bytes()
    start = perf_counter_ns()
    for i in range(count):
        store(i, make(i))
    elapsed = perf_counter_ns() - start
    growth = resident_bytes() - before
    collections = []
    for _ in range(5):
        start = perf_counter_ns()
        gc.collect()
        collections.append(perf_counter_ns() - start)
    cache.run_pending_tasks()
    return {"fill": elapsed, "memory": growth, "gc": min(collections), "entries": cache.count()}


if __name__ == "__main__":
    print(json.dumps(fill(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
