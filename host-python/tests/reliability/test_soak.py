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

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and files are read from /proc")


def test_mixed_load_leaves_nothing_behind() -> None:
    """Twenty seconds of mixed load: memory is flat after warming up, no thread and no file stays."""
    readings = soak.soak(20)
    assert readings[-1].operations > 10_000
    assert readings[-1].latencies


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


def leak_memory() -> Callable[[], Any]:
    kept: list[bytearray] = []
    # Written to, so that it is resident.
    return lambda: kept.append(bytearray(b"x") * (MIB // 4)) if len(kept) < 2000 else None


def leak_threads() -> Callable[[], Any]:
    wait = threading.Event()

    def leak() -> None:
        if threading.active_count() < 200:
            threading.Thread(target=wait.wait, args=(10,), daemon=True).start()

    return leak


def leak_files() -> Callable[[], Any]:
    kept: list[int] = []
    return lambda: kept.append(os.dup(0)) if len(kept) < 300 else None


def wrong_value() -> Callable[[], Any]:
    def fail() -> None:
        raise AssertionError("asked for 1, got the value of 2")

    return fail


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (leak_memory, "memory grew"),
        (leak_threads, "threads stayed"),
        (leak_files, "files stayed open"),
        (wrong_value, "got the value of 2"),
    ],
)
def test_each_defect_is_found(
    defect: Callable[[], Callable[[], Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that leaks, or gets a wrong value, fails."""
    operate, spoil = soak.Load._operate, defect()
    pace = threading.Event()

    def spoiled(load: soak.Load, rng: random.Random, index: int) -> None:
        # Slow enough for the leak to go on through the whole run.
        pace.wait(0.002)
        operate(load, rng, index)
        spoil()

    monkeypatch.setattr(soak.Load, "_operate", spoiled)
    with pytest.raises(AssertionError, match=message):
        soak.soak(2, threads=2)


def test_percentiles() -> None:
    """Of a hundred times of 1 to 100 microseconds."""
    reading = soak.Reading(0, 0, 0, [number / 1e6 for number in range(1, 101)])
    assert [round(reading.percentile(share)) for share in (0.5, 0.99, 0.999)] == [51, 100, 100]
    assert soak.Reading(0, 0, 0).percentile(0.5) == 0


def test_pictures() -> None:
    """The highest number is a full block, nothing an empty one."""
    assert soak.picture([0, 4, 8]) == " ▄█"
    assert soak.picture([0, 0]) == "  "
