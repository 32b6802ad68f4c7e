"""The short run of ``fuzz_faces``, and proof that it can fail: channels with one defect each."""

# pyright: basic

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fuzz_faces import DefectError, run

from moka_wasm._channel import Counters, Entry, Removal
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel


def test_the_faces_answer_alike() -> None:
    """Whatever the operations; all kinds of them are compared, refusals too."""
    counts = run(100, 0)
    assert counts["refused"] > 0
    for name in (
        "set",
        "get",
        "contains",
        "get_or_insert",
        "expire",
        "remaining",
        "remove",
        "clear",
        "run_pending_tasks",
        "counters",
        "get_many",
        "set_many",
        "remove_many",
        "walk",
        "removals",
        "lookup",
        "fill",
        "release",
    ):
        assert counts[name] > 5, name


class MixesUpABatch(ComponentChannel):
    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        return super().get_many(keys)[::-1]


class ForgetsTheLastOfABatch(ComponentChannel):
    def set_many(self, entries: Sequence[Entry], /) -> None:
        super().set_many(entries[:-1])


class CountsTooManyRemoved(ComponentChannel):
    def remove_many(self, keys: Sequence[bytes], /) -> int:
        return len(set(keys))


class IgnoresTheTimeToIdle(ComponentChannel):
    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: Any = None, tti: Any = None, /) -> None:
        super().set(key, value, weight, ttl, None)


class IgnoresTheWeight(ComponentChannel):
    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: Any = None, tti: Any = None, /) -> None:
        super().set(key, value, 1, ttl, tti)


class NeverLapses(ComponentChannel):
    def fill(self, lease: int, value: bytes, weight: int = 1, ttl: Any = None, tti: Any = None, /) -> bool:
        super().fill(lease, value, weight, ttl, tti)
        return True


class TellsAnotherCause(ComponentChannel):
    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        removals, lost = super().drain(limit)
        return [removal._replace(cause=2) for removal in removals], lost


class CountsNoMiss(ComponentChannel):
    def counters(self) -> Counters:
        return super().counters()._replace(misses=0)


@pytest.mark.parametrize(
    ("defect", "operation"),
    [
        (MixesUpABatch, "get_many"),
        (ForgetsTheLastOfABatch, ": "),
        (CountsTooManyRemoved, "remove_many"),
        (IgnoresTheTimeToIdle, ": "),
        (IgnoresTheWeight, "counters"),
        (NeverLapses, "fill"),
        (TellsAnotherCause, "removals"),
        (CountsNoMiss, "counters"),
    ],
)
def test_each_defect_is_found(defect: type[ComponentChannel], operation: str) -> None:
    """By the operation that has it, or whatever comes after that."""
    with pytest.raises(DefectError, match=operation):
        run(500, 0, defect, DirectChannel)
