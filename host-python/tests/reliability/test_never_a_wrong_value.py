"""The short run of ``never_a_wrong_value``, and proof that each of its checks can fail: caches with one defect each."""

# pyright: basic

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import pytest
from never_a_wrong_value import KEYS, SETTINGS, Clock, Setting, WrongValueError, run, run_setting

from moka_wasm import Moka

OPERATIONS = 20_000


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_value_is_wrong(setting: Setting) -> None:
    """Under every configuration values come out, deadlines were there to be checked, and none is wrong."""
    counts = run_setting(setting, operations=OPERATIONS, threads=4)
    assert counts["values"] > OPERATIONS / 20
    assert counts["deadlines"] > OPERATIONS / 40
    assert bool(counts["told"]) == setting.listens


class Dict:
    """A cache that is right: a dict with deadlines, under one lock. The defects are subclasses."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.entries: dict[int, tuple[bytes, float]] = {}

    def set(self, key: int, value: bytes, ttl: float | None = None) -> None:
        with self.lock:
            self.entries[key] = (value, float("inf") if ttl is None else self.clock() + ttl)

    def get(self, key: int) -> bytes | None:
        with self.lock:
            value, deadline = self.entries.get(key, (b"", 0.0))
            return value if self.clock() < deadline else None

    def get_with(self, key: int, initializer: Callable[[], bytes]) -> bytes:
        return self.setdefault(key, initializer())

    def setdefault(self, key: int, default: bytes) -> bytes:
        with self.lock:
            found = self.get(key)
            if found is None:
                self.set(key, default)
                return default
            return found

    def remove(self, key: int) -> bytes | None:
        with self.lock:
            found = self.get(key)
            self.entries.pop(key, None)
            return found

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()

    def expire(self, key: int, remaining: float) -> bool:
        with self.lock:
            found = self.get(key)
            if found is not None:
                self.set(key, found, remaining)
            return found is not None

    def get_many(self, keys: Iterable[int]) -> dict[int, bytes]:
        return {key: value for key in keys if (value := self.get(key)) is not None}

    def set_many(self, entries: Mapping[int, bytes], ttl: float | None = None) -> None:
        for key, value in entries.items():
            self.set(key, value, ttl)

    def remove_many(self, keys: Iterable[int]) -> int:
        return sum(self.remove(key) is not None for key in keys)


class ValueOfAnotherKey(Dict):
    def get(self, key: int) -> bytes | None:
        return super().get((key + 1) % KEYS if key == 7 else key)


class KeptTheOldValue(Dict):
    def set(self, key: int, value: bytes, ttl: float | None = None) -> None:
        if key % 50 or self.get(key) is None:
            super().set(key, value, ttl)


class LateSet(Dict):
    """Answers before the value is in: the next operation puts it there."""

    late: Callable[[], None] | None = None

    def set(self, key: int, value: bytes, ttl: float | None = None) -> None:
        with self.lock:
            late, self.late = self.late, lambda: Dict.set(self, key, value, ttl)
        if late is not None:
            late()


class OutlivesItsDeadline(Dict):
    def get(self, key: int) -> bytes | None:
        with self.lock:
            return self.entries.get(key, (None, 0.0))[0]


class DeafToExpire(Dict):
    def expire(self, key: int, remaining: float) -> bool:
        return self.get(key) is not None


class ForgetsToRemove(Dict):
    def remove(self, key: int) -> bytes | None:
        return self.get(key)


class ForgetsToRemoveMany(Dict):
    def remove_many(self, keys: Iterable[int]) -> int:
        return len(list(keys))


class ClearsAllButOne(Dict):
    def clear(self) -> None:
        with self.lock:
            self.entries = {key: entry for key, entry in self.entries.items() if key == 3}


class MixesUpABatch(Dict):
    def get_many(self, keys: Iterable[int]) -> dict[int, bytes]:
        found = super().get_many(keys)
        return dict(zip(found, reversed(found.values()), strict=True))


class SetsABatchWithoutItsLast(Dict):
    def set_many(self, entries: Mapping[int, bytes], ttl: float | None = None) -> None:
        super().set_many(dict([*entries.items()][:-1]), ttl)


class TornValue(Dict):
    """Half of the old value, half of the new one."""

    def set(self, key: int, value: bytes, ttl: float | None = None) -> None:
        old = self.get(key)
        super().set(key, value if old is None else old[: len(old) // 2] + value[len(value) // 2 :], ttl)


class OneBit(Dict):
    def get(self, key: int) -> bytes | None:
        found = super().get(key)
        return found if found is None or key != 5 else found[:-5] + bytes([found[-5] ^ 1]) + found[-4:]


class SetDefaultAnswersItsOwn(Dict):
    def setdefault(self, key: int, default: bytes) -> bytes:
        super().setdefault(key, default)
        return default


def test_the_model_itself_passes() -> None:
    """A dict with deadlines has none of the defects."""
    clock = Clock()
    assert run(Dict(clock), clock, operations=OPERATIONS, threads=4)["values"] > 1000


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (ValueOfAnotherKey, "key"),
        (MixesUpABatch, "key"),
        (KeptTheOldValue, "version"),
        (LateSet, "version"),
        (SetsABatchWithoutItsLast, "version"),
        (ForgetsToRemove, "version"),
        (ForgetsToRemoveMany, "version"),
        (ClearsAllButOne, "version"),
        (SetDefaultAnswersItsOwn, "version"),
        (OutlivesItsDeadline, "expiry"),
        (DeafToExpire, "expiry"),
        (TornValue, "bytes"),
        (OneBit, "bytes"),
    ],
)
def test_each_defect_is_found(defect: type[Dict], check: str) -> None:
    """A cache with a single defect is found out, by the check that it is for."""
    clock = Clock()
    with pytest.raises(WrongValueError, match=f"^{check}: "):
        run(defect(clock), clock, operations=100_000, threads=4)


def test_a_disturbance_that_fails_is_told() -> None:
    """What the disturbing thread raises is no secret."""
    clock = Clock()

    def disturb() -> None:
        raise OSError("disturbed")

    with Moka[int, bytes](None, clock=clock) as cache, pytest.raises(OSError, match="disturbed"):
        run(cache, clock, operations=200_000, threads=4, disturb=disturb)
