"""Soak: mixed load for as long as one likes; memory stays flat, and no thread or file stays behind.

    soak.py [--minutes N | --seconds N] [--threads N]

Threads set, get, remove and compute values of many sizes in caches with every kind of bound; a few short-lived caches
are opened and closed all the time. Printed at regular intervals: resident memory, operations, and how long ``get`` and
``set`` took at the 50th, 99th and 99.9th percentile. Times are for people; what passes or fails is memory, threads and
file descriptors.

**Memory is flat** if the highest reading of the run's last third is no higher than that of its middle third by more
than :data:`ALLOWED_GROWTH`; the first third is for warming up.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moka_wasm import Moka, cached

ALLOWED_GROWTH = 4 << 20
"""Bytes: what an allocator's arenas and Python's own free lists come and go by."""
_READINGS = 60
_BLOCKS = " ▁▂▃▄▅▆▇█"


def resident_memory() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """How many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


@dataclass
class Reading:
    """What was seen at one time."""

    seconds: float
    memory: int
    operations: int
    latencies: list[float] = field(default_factory=list)
    """Of sampled operations since the reading before, in seconds; sorted."""

    def percentile(self, share: float) -> float:
        """The time that this share of the sampled operations took at most, in microseconds."""
        if not self.latencies:
            return 0.0
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)] * 1e6


def growth(memory: Sequence[int]) -> int:
    """By how many bytes the last third's highest reading exceeds that of the middle third."""
    third = len(memory) // 3
    if third == 0:
        raise ValueError(f"at least 3 readings are needed, got {len(memory)}: soak for longer")
    return max(memory[-third:]) - max(memory[third:-third])


def picture(numbers: Sequence[float]) -> str:
    """Numbers as a row of blocks, from nothing to the highest."""
    top = max(numbers, default=0) or 1
    return "".join(_BLOCKS[round(number / top * (len(_BLOCKS) - 1))] for number in numbers)


class Load:
    """The load that threads put on caches."""

    def __init__(self, threads: int) -> None:
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._told = 0
        self._caches: list[Moka[Any, Any]] = [
            Moka(5_000),
            Moka(1_000, policy="lru", ttl=0.5),
            Moka(None, memory_limit=8 << 20),
            Moka(2_000, eviction_listener=self._listen, tti=1.0),
            Moka(3_000, shards=3),
        ]
        self._compute = cached(maxsize=500, ttl=0.2)(lambda number: [number] * 20)
        self._samples: list[list[float]] = [[] for _ in range(threads)]
        self._done = [0] * threads
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def _listen(self, key: object, value: object, cause: str) -> None:
        self._told += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for cache in self._caches:
            cache.close()
        self._compute.cache.close()
        if self._failures:
            raise self._failures[0]

    def reading(self, seconds: float) -> Reading:
        """What is to be seen now."""
        latencies: list[float] = []
        for index in range(len(self._samples)):
            samples, self._samples[index] = self._samples[index], []
            latencies += samples
        return Reading(seconds, resident_memory(), sum(self._done), sorted(latencies))

    def failed(self) -> bool:
        return bool(self._failures)

    def _run(self, index: int) -> None:
        try:
            rng = random.Random(index)
            while not self._stop.is_set():
                for _ in range(100):
                    self._operate(rng, index)
                self._done[index] += 100
        except BaseException as failure:  # told when the load ends
            self._failures.append(failure)

    def _operate(self, rng: random.Random, index: int) -> None:
        cache = rng.choice(self._caches)
        key = int(rng.random() ** 3 * 20_000)
        kind = rng.random()
        if kind < 0.6:
            started = time.perf_counter()
            value = cache.get(key)
            self._sample(index, started)
            if value is not None and value[0] != key:
                raise AssertionError(f"asked for {key}, got the value of {value[0]}")
        elif kind < 0.9:
            value = [key, "x" * int(10 ** (rng.random() * 4))]
            started = time.perf_counter()
            cache.set(key, value)
            self._sample(index, started)
        elif kind < 0.93:
            cache.remove(key)
        elif kind < 0.96:
            cache.get_many(range(key, key + 10))
        elif kind < 0.999:
            self._compute(key % 1000)
        elif kind < 0.9995:
            with Moka[int, str](10) as short_lived:
                short_lived[1] = "one"
        else:
            cache.clear()

    def _sample(self, index: int, started: float) -> None:
        samples = self._samples[index]
        if len(samples) < 20_000:
            samples.append(time.perf_counter() - started)


def soak(seconds: float, threads: int = 4, tell: Callable[[Reading], None] = lambda _: None) -> list[Reading]:
    """Puts load on caches for so long; answers the readings.

    Raises:
        AssertionError: A wrong value, or memory, threads or files that stay.
    """
    with Load(1):
        # The first use of everything, threads included.
        pass
    gc.collect()
    files, alive = open_files(), threading.active_count()
    readings: list[Reading] = []
    with Load(threads) as load:
        started = time.monotonic()
        # Kept from now on, so that the list of readings itself does not grow.
        for number in range(1, _READINGS + 1):
            due = started + seconds * number / _READINGS
            while (left := due - time.monotonic()) > 0 and not load.failed():
                time.sleep(min(left, 1.0))
            readings.append(load.reading(time.monotonic() - started))
            tell(readings[-1])
            # What was told is not needed any more.
            readings[-1].latencies = readings[-1].latencies[:: max(len(readings[-1].latencies) // 1000, 1)]
            if load.failed():
                break
    grown = growth([reading.memory for reading in readings])
    if grown > ALLOWED_GROWTH:
        raise AssertionError(f"memory grew by {grown >> 10:,} KiB after warming up; {ALLOWED_GROWTH >> 10:,} may be")
    gc.collect()
    if (left_files := open_files()) > files:
        raise AssertionError(f"{left_files - files} files stayed open")
    if (left_threads := threading.active_count()) > alive:
        raise AssertionError(f"{left_threads - alive} threads stayed")
    return readings


def _tell(reading: Reading) -> None:
    times = " ".join(f"{reading.percentile(share):10.1f}" for share in (0.5, 0.99, 0.999))
    print(f"{reading.seconds:8.0f} {reading.memory / 2**20:8.1f} {reading.operations:14,} {times}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="in place of minutes")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    seconds = options.minutes * 60 if options.seconds is None else options.seconds
    print(f"{'s':>8} {'MiB':>8} {'operations':>14} {'p50 us':>10} {'p99 us':>10} {'p99.9 us':>10}")
    try:
        readings = soak(seconds, options.threads, _tell)
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print("memory  ", picture([reading.memory for reading in readings]))
    for share in (0.5, 0.99, 0.999):
        print(f"p{share * 100:<7g}", picture([reading.percentile(share) for reading in readings]))
    grown = growth([reading.memory for reading in readings])
    print(f"{readings[-1].operations:,} operations; memory changed by {grown / 2**10:+,.0f} KiB; nothing stayed behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
