"""Soak: mixed load for as long as one likes; memory stays flat, and nothing stays behind.

    soak.py [--minutes N | --seconds N] [--threads N]

Threads set, get, remove, expire, walk over and compute values of many sizes in caches with every kind of bound; a few
short-lived caches are opened and closed all the time. Printed at regular intervals: resident memory, operations, and
how long ``get`` and ``set`` took since the line before, at the 50th, 99th and 99.9th percentile and at most; in the end
how long all of them took. Times are for people; what passes or fails is memory and what stays behind: threads, file
descriptors, lanes and cursors in the sandboxes, and the stores of closed caches.

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
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import wasmtime
from operation_times import Times

from moka_wasm import Moka, MokaError, cached
from moka_wasm._direct_channel import _LANES, DirectChannel

ALLOWED_GROWTH = 4 << 20
"""Bytes: what an allocator's arenas and Python's own free lists come and go by."""
SHARES = (0.5, 0.99, 0.999, 1.0)
_READINGS = 60
_CURSORS = 1024
"""How many cursors of one cache may be open in a sandbox."""
_BLOCKS = " ▁▂▃▄▅▆▇█"


def resident_memory() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """How many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


def channels(cache: Moka[Any, Any]) -> list[DirectChannel]:
    """The ways into the sandboxes of a cache."""
    channel: Any = cache._channel
    return list(getattr(channel, "_shards", (channel,)))


def lanes_out(channel: DirectChannel) -> int:
    """How many lanes an operation has not given back. There must be none under way."""
    guest: Any = channel._guest
    bound = channel.binding is not None and channel.binding.bound
    return _LANES - len(guest.free_lanes) - len(channel._lanes) - bound


def cursors_open(channel: DirectChannel) -> int:
    """How many walks are not over: so many cursors can be opened no more. Best asked of an empty cache."""
    opened: list[Any] = []
    try:
        while len(opened) < _CURSORS:
            opened.append(channel.keys())
    except MokaError as error:
        if "cursors" not in str(error):
            raise
    count = _CURSORS - len(opened)
    for cursor in opened:
        cursor.close()
    return count


@dataclass
class Reading:
    """What was seen at one time."""

    seconds: float
    memory: int
    operations: int
    percentiles: tuple[float, ...]
    """Of the operations since the reading before, in microseconds, for each of :data:`SHARES`."""


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
        self._times = [Times() for _ in range(threads)]
        self.times = Times()
        """Of all operations up to the last reading."""
        # Those that are still there, of all caches that were ever opened.
        self._stores: weakref.WeakSet[wasmtime.Store] = weakref.WeakSet()
        for cache in self._all():
            self._watch(cache)
        self._done = [0] * threads
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def _listen(self, key: object, value: object, cause: str) -> None:
        self._told += 1

    def _all(self) -> list[Moka[Any, Any]]:
        return [*self._caches, self._compute.cache]

    def _watch(self, cache: Moka[Any, Any]) -> None:
        for channel in channels(cache):
            guest: Any = channel._guest
            self._stores.add(guest.sandbox.store)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        try:
            if self._failures:
                raise self._failures[0]
            gc.collect()
            for cache in self._all():
                self._check_handles(cache)
        finally:
            for cache in self._all():
                cache.close()

    @staticmethod
    def _check_handles(cache: Moka[Any, Any]) -> None:
        cache.clear()
        for channel in channels(cache):
            if count := cursors_open(channel):
                raise AssertionError(f"{count} cursors stayed open")
            if count := lanes_out(channel):
                raise AssertionError(f"{count} lanes did not come back")

    def check_stores(self) -> None:
        """For when it is over: AssertionError unless all stores are gone."""
        if count := len(self._stores):
            raise AssertionError(f"{count} stores of closed caches stayed")

    def reading(self, seconds: float) -> Reading:
        """What is to be seen now."""
        times = Times()
        for index in range(len(self._times)):
            counted, self._times[index] = self._times[index], Times()
            times.add_all(counted)
        self.times.add_all(times)
        return Reading(seconds, resident_memory(), sum(self._done), tuple(map(times.percentile, SHARES)))

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
        if kind < 0.55:
            started = time.perf_counter_ns()
            value = cache.get(key)
            self._times[index].add(time.perf_counter_ns() - started)
            self._judge(key, value)
        elif kind < 0.85:
            value = [key, "x" * int(10 ** (rng.random() * 4))]
            started = time.perf_counter_ns()
            cache.set(key, value)
            self._times[index].add(time.perf_counter_ns() - started)
        elif kind < 0.88:
            cache.remove(key)
        elif kind < 0.91:
            cache.get_many(range(key, key + 10))
        elif kind < 0.93:
            cache.expire(key, rng.random())
        elif kind < 0.96:
            self._judge(key, cache.get_with(key, lambda: [key, "computed"]))
        elif kind < 0.9985:
            self._compute(key % 1000)
        elif kind < 0.999:
            # Every other one is not walked to its end.
            for _ in zip(range(rng.choice((100, 20_000))), cache, strict=False):
                pass
        elif kind < 0.9995:
            with Moka[int, str](10) as short_lived:
                self._watch(short_lived)
                short_lived[1] = "one"
                self._judge(1, list(short_lived))
        else:
            cache.clear()

    @staticmethod
    def _judge(key: int, value: Any) -> None:
        if value is not None and value[0] != key:
            raise AssertionError(f"asked for {key}, got the value of {value[0]}")


def soak(
    seconds: float, threads: int = 4, tell: Callable[[Reading], None] = lambda _: None
) -> tuple[list[Reading], Times]:
    """Puts load on caches for so long; answers the readings, and how long all operations that are timed took.

    Raises:
        AssertionError: A wrong value, or memory or something else that stays.
    """
    with Load(1) as first:
        # The first use of everything, threads included.
        pass
    gc.collect()
    first.check_stores()
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
            if load.failed():
                break
    grown = growth([reading.memory for reading in readings])
    if grown > ALLOWED_GROWTH:
        raise AssertionError(f"memory grew by {grown >> 10:,} KiB after warming up; {ALLOWED_GROWTH >> 10:,} may be")
    gc.collect()
    load.check_stores()
    if (left_files := open_files()) > files:
        raise AssertionError(f"{left_files - files} files stayed open")
    if (left_threads := threading.active_count()) > alive:
        raise AssertionError(f"{left_threads - alive} threads stayed")
    return readings, load.times


def _tell(reading: Reading) -> None:
    times = " ".join(f"{time:10.1f}" for time in reading.percentiles)
    print(f"{reading.seconds:8.0f} {reading.memory / 2**20:8.1f} {reading.operations:14,} {times}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="in place of minutes")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    seconds = options.minutes * 60 if options.seconds is None else options.seconds
    print(f"{'s':>8} {'MiB':>8} {'operations':>14} {'p50 us':>10} {'p99 us':>10} {'p99.9 us':>10} {'max us':>10}")
    try:
        readings, times = soak(seconds, options.threads, _tell)
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print("memory  ", picture([reading.memory for reading in readings]))
    for number, share in enumerate(SHARES[:-1]):
        print(f"p{share * 100:<7g}", picture([reading.percentiles[number] for reading in readings]))
    p50, p99, p999, longest = map(times.percentile, SHARES)
    print(f"get and set: p50 {p50:.1f} us, p99 {p99:.1f} us, p99.9 {p999:.1f} us, at most {longest / 1000:.1f} ms")
    grown = growth([reading.memory for reading in readings])
    print(f"{readings[-1].operations:,} operations; memory changed by {grown / 2**10:+,.0f} KiB; nothing stayed behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
