"""The short run of ``soak``, and proof that its checks can fail."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import soak
from operation_times import Times

from moka_wasm import Moka

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and files are read from /proc")


def test_mixed_load_leaves_nothing_behind() -> None:
    """Twenty seconds of mixed load: memory is flat after warming up, and nothing stays behind."""
    readings, times = soak.soak(20)
    assert readings[-1].operations > 10_000
    assert 0 < readings[-1].percentiles[0] <= readings[-1].percentiles[-1] <= times.percentile(1)


@pytest.mark.parametrize(
    ("memory", "grown"),
    [
        ([1, 2, 3], 1),
        ([90, 50, 50], 0),
        ([0, 0, 9, 5, 9, 9], 0),
        ([0, 0, 5, 9, 1, 8], -1),
        ([10, 20, 30, 40, 50, 60, 70], 20),
        (range(900), 300),
    ],
)
def test_growth_is_that_after_warming_up(memory: list[int], grown: int) -> None:
    """The first third of the readings does not count, and of the others the highest do."""
    assert soak.growth(memory) == grown


def test_too_few_readings_are_an_error() -> None:
    """Two readings say nothing."""
    with pytest.raises(ValueError, match="at least 3"):
        soak.growth([1, 2])


Defect = Callable[[soak.Load], Any]


def leak_memory() -> Defect:
    kept: list[bytearray] = []
    # Written to, so that it is resident.
    return lambda _: kept.append(bytearray(b"x") * (MIB // 4)) if len(kept) < 2000 else None


def leak_threads() -> Defect:
    wait = threading.Event()

    def leak(_: soak.Load) -> None:
        if threading.active_count() < 200:
            threading.Thread(target=wait.wait, args=(10,), daemon=True).start()

    return leak


def leak_files() -> Defect:
    kept: list[int] = []
    return lambda _: kept.append(os.dup(0)) if len(kept) < 300 else None


def leak_a_lane() -> Defect:
    kept: list[Any] = []

    def leak(load: soak.Load) -> None:
        lanes = soak.channels(load._caches[0])[0]._lanes
        if not kept and lanes:
            kept.append(lanes.pop())

    return leak


def leak_a_cursor() -> Defect:
    kept: list[Any] = []
    # Of one shard.
    return lambda load: kept.append(soak.channels(load._caches[4])[2].keys()) if not kept else None


def leak_a_store() -> Defect:
    kept: list[Any] = []

    def leak(load: soak.Load) -> None:
        if not kept:
            with Moka[int, int](1) as cache:
                load._watch(cache)
                kept.append(soak.channels(cache)[0]._guest)

    return leak


def wrong_value() -> Defect:
    def fail(_: soak.Load) -> None:
        raise AssertionError("asked for 1, got the value of 2")

    return fail


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (leak_memory, "memory grew"),
        (leak_threads, "threads stayed"),
        (leak_files, "files stayed open"),
        (leak_a_lane, "1 lanes did not come back"),
        (leak_a_cursor, "1 cursors stayed open"),
        (leak_a_store, "1 stores of closed caches stayed"),
        (wrong_value, "got the value of 2"),
    ],
)
def test_each_defect_is_found(defect: Callable[[], Defect], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that leaks, or gets a wrong value, fails."""
    operate, spoil = soak.Load._operate, defect()
    pace = threading.Event()

    def spoiled(load: soak.Load, rng: random.Random, index: int) -> None:
        # Slow enough for the leak to go on through the whole run.
        pace.wait(0.002)
        operate(load, rng, index)
        spoil(load)

    monkeypatch.setattr(soak.Load, "_operate", spoiled)
    with pytest.raises(AssertionError, match=message):
        soak.soak(2, threads=2)


def test_percentiles() -> None:
    """Of a hundred times of 1 to 100 microseconds; no time is told too short, nor too long by more than 1.6 %."""
    times = Times()
    assert times.percentile(0.5) == 0
    for number in range(1, 101):
        times.add(number * 1000)
    for share, expected in ((0.0, 1), (0.5, 51), (0.99, 100), (0.999, 100), (1.0, 100)):
        assert expected <= times.percentile(share) <= expected * 1.016


@pytest.mark.parametrize("nanoseconds", [0, 1, 127, 128, 129, 255, 256, 10**6, 10**9 + 1, 2**62, 2**63 - 1])
def test_any_time_can_be_counted(nanoseconds: int) -> None:
    """The shortest and the longest; also a single one among very many others, however late it comes."""
    times, all_times = Times(), Times()
    for _ in range(30_000):
        times.add(0)
    times.add(nanoseconds)
    all_times.add_all(times)
    all_times.add_all(times)
    assert nanoseconds / 1000 <= all_times.percentile(1) <= nanoseconds / 1000 * 1.016
    assert all_times.percentile(0.999) == 0


def test_pictures() -> None:
    """The highest number is a full block, nothing an empty one."""
    assert soak.picture([0, 4, 8]) == " ▄█"
    assert soak.picture([0, 0]) == "  "
