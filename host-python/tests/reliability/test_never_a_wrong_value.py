"""The short run of ``never_a_wrong_value``, and proof that each of its checks can fail: caches with one defect each."""

# pyright: basic

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from known_versions import FOREVER, Clock, WrongValueError
from never_a_wrong_value import KEYS, SETTINGS, Setting, Worker, run, run_setting

from moka_wasm import Moka

OPERATIONS = 20_000


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_value_is_wrong(setting: Setting) -> None:
    """Under every configuration values come out, there was something to be checked, and nothing is wrong."""
    counts = run_setting(setting, operations=OPERATIONS, threads=4)
    assert counts["values"] > OPERATIONS / 20
    assert counts["deadlines"] > OPERATIONS / 40
    assert counts["keys"] > OPERATIONS / 40
    assert bool(counts["told"]) == setting.listens
    assert (counts["idle times"] > OPERATIONS / 40) == ("tti" in setting.arguments)
    assert (counts["replaced sandboxes"] > OPERATIONS / 2000) == setting.traps
    # Where a trap is not retried, its operation raises.
    raises = setting.traps and "on_trap" not in setting.arguments
    assert not raises or counts["stopped"] >= counts["replaced sandboxes"] - 1
    # From 2 MiB on calls may be long.
    assert setting.name != "long calls" or counts["MiB"] >= 2


class Dict:
    """A cache that is right: a dict with deadlines, under one lock. The defects are subclasses."""

    def __init__(self, clock: Clock, ttl: float = FOREVER, tti: float = FOREVER) -> None:
        self.clock = clock
        self.ttl, self.tti = ttl, tti
        self.lock = threading.RLock()
        self.entries: dict[int, tuple[bytes, float, float]] = {}
        """Value, deadline and time to idle."""
        self.used: dict[int, float] = {}

    def put(self, key: int, value: bytes, life: float, idle: float) -> None:
        self.entries[key] = (value, self.clock() + life, idle)
        self.used[key] = self.clock()

    def live(self, key: int) -> bytes | None:
        with self.lock:
            value, deadline, idle = self.entries.get(key, (b"", 0.0, 0.0))
            return value if self.clock() < min(deadline, self.used.get(key, 0.0) + idle) else None

    def set(self, key: int, value: bytes, ttl: float | None = None) -> None:
        with self.lock:
            self.put(key, value, self.ttl if ttl is None else min(ttl, self.ttl), self.tti)

    def get(self, key: int) -> bytes | None:
        with self.lock:
            now = self.clock()
            value = self.live(key)
            if value is not None:
                self.used[key] = now
            return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self.live(key) is not None

    def __iter__(self) -> Iterator[int]:
        with self.lock:
            return iter([key for key in self.entries if key in self])

    def __len__(self) -> int:
        return len(self.entries)

    def items(self) -> Any:
        return [(key, value) for key in self if (value := self.get(key)) is not None]

    def run_pending_tasks(self) -> None:
        with self.lock:
            self.entries = {key: self.entries[key] for key in self}

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
            found = self.live(key)
            self.entries.pop(key, None)
            return found

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()

    def expire(self, key: int, remaining: float) -> bool:
        with self.lock:
            found = self.live(key)
            if found is not None:
                self.put(key, found, remaining, FOREVER)
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
        return self.live(8) if key == 7 else super().get(key)


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
    def live(self, key: int) -> bytes | None:
        with self.lock:
            return self.entries.get(key, (None,))[0]

    def __iter__(self) -> Iterator[int]:
        return iter(())


class OutlivesTheCachesTtl(Dict):
    def __init__(self, clock: Clock, ttl: float, tti: float) -> None:
        super().__init__(clock, FOREVER, tti)


class OutlivesTheCachesTti(Dict):
    def __init__(self, clock: Clock, ttl: float, tti: float) -> None:
        super().__init__(clock, ttl, FOREVER)


class WalksOverTheDead(Dict):
    def __iter__(self) -> Iterator[int]:
        with self.lock:
            return iter(list(self.entries))


class WalksOverTheRemoved(Dict):
    def __iter__(self) -> Iterator[int]:
        with self.lock:
            # Whatever was ever set has been used.
            return iter([key for key in self.used if key in self or key not in self.entries])


class HasWhatWasRemoved(Dict):
    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key not in self.entries

    def __iter__(self) -> Iterator[int]:
        return iter(())


class WalksInCircles(Dict):
    def __iter__(self) -> Iterator[int]:
        keys = list(super().__iter__())
        return iter(keys + keys[:1])


class MixesUpItems(Dict):
    def items(self) -> Any:
        items = super().items()
        return [(key, value) for (key, _), (_, value) in itertools.pairwise(items)]


class CountsTooMany(Dict):
    def __len__(self) -> int:
        return KEYS + 1


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
    counts = run(Dict(clock, 15, 5), clock, operations=OPERATIONS, threads=4, ttl=15, tti=5)
    assert min(counts[what] for what in ("values", "keys", "deadlines", "idle times")) > 1000


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (ValueOfAnotherKey, "key"),
        (MixesUpABatch, "key"),
        (KeptTheOldValue, "version"),
        (LateSet, "version|expiry|idle"),
        (SetsABatchWithoutItsLast, "version"),
        (ForgetsToRemove, "version"),
        (ForgetsToRemoveMany, "version"),
        (ClearsAllButOne, "version"),
        (SetDefaultAnswersItsOwn, "version"),
        (OutlivesItsDeadline, "expiry"),
        (OutlivesTheCachesTtl, "expiry"),
        (DeafToExpire, "expiry"),
        (WalksOverTheDead, "expiry"),
        (OutlivesTheCachesTti, "idle"),
        (WalksOverTheRemoved, "version"),
        (HasWhatWasRemoved, "version"),
        (WalksInCircles, "key"),
        (MixesUpItems, "key"),
        (CountsTooMany, "len"),
        (TornValue, "bytes"),
        (OneBit, "bytes"),
    ],
)
def test_each_defect_is_found(defect: type[Dict], check: str) -> None:
    """A cache with a single defect is found out, by the check that it is for."""
    clock = Clock()
    with pytest.raises(WrongValueError, match=f"^({check}): "):
        run(defect(clock, 15, 5), clock, operations=100_000, threads=4, ttl=15, tti=5)


class WithoutDeadlines(Dict):
    def expire(self, key: int, remaining: float) -> bool:
        return False


def test_what_lives_for_ever_is_no_deadline_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only entries that do have a deadline are counted as such."""
    monkeypatch.setattr(Worker, "_life", lambda _: None)
    clock = Clock()
    counts = run(WithoutDeadlines(clock), clock, operations=2000, threads=2)
    assert counts["values"] > 100
    assert counts["deadlines"] == counts["idle times"] == 0


def test_a_disturbance_that_fails_is_told() -> None:
    """What disturbing raises is no secret."""
    clock = Clock()

    def disturb() -> None:
        raise OSError("disturbed")

    with Moka[int, bytes](None, clock=clock) as cache, pytest.raises(OSError, match="disturbed"):
        run(cache, clock, operations=1000, threads=4, disturb=disturb)
