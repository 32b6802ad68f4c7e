"""``Moka`` beyond moka-py: the face of a dict, batches, lives, limits, serializers, the end."""

# pyright: basic
# Tests pass arguments of wrong types, too.

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from datetime import timedelta
from typing import Any

import cachetools
import pytest
from test_cached import Clock
from test_single_flight import GUARD, Threads

from moka_wasm import (
    ClosedError,
    ConfigError,
    DecodeError,
    EntryTooLargeError,
    GuestMemoryError,
    Moka,
    MokaError,
    UnsupportedKeyError,
    UnsupportedValueError,
)

MIB = 1 << 20
DEADLINE_RESOLUTION = 64e-9


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Moka[Any, Any]:
    return Moka(None, clock=clock)


def numbers(count: int, **options: Any) -> Moka[int, int]:
    cache: Moka[int, int] = Moka(None, **options)
    cache.set_many((number, number * 10) for number in range(count))
    return cache


# The face of a dict.


def test_a_cache_is_a_mutable_mapping() -> None:
    """A ``Moka`` passes for a ``MutableMapping`` where one is asked for."""
    assert isinstance(Moka(8), MutableMapping)
    assert issubclass(Moka, MutableMapping)


def test_items_are_set_got_and_deleted(cache: Moka[Any, Any]) -> None:
    """``[]`` sets, gets and deletes; an absent key is a KeyError that carries it."""
    cache["a"] = 1
    assert cache["a"] == 1
    cache["a"] = None
    assert cache["a"] is None
    del cache["a"]
    with pytest.raises(KeyError) as caught:
        cache["a"]
    assert caught.value.args == ("a",)
    with pytest.raises(KeyError) as caught:
        del cache["a"]
    assert caught.value.args == ("a",)


def test_in_looks_and_does_not_use(clock: Clock) -> None:
    """``in`` is no hit and no miss, and extends no time to idle."""
    cache: Moka[str, int] = Moka(8, tti=10, clock=clock)
    cache["a"] = 1
    clock.now += 6
    assert "a" in cache
    assert "b" not in cache
    clock.now += 6
    assert "a" not in cache
    assert (cache.stats().hits, cache.stats().misses) == (0, 0)


@pytest.mark.parametrize("operation", ["__contains__", "__getitem__", "__delitem__", "get", "expire", "remaining"])
def test_a_key_that_cannot_be_one_is_a_type_error(cache: Moka[Any, Any], operation: str) -> None:
    """An unhashable or unknown kind of key is an UnsupportedKeyError, which is a TypeError, and stores nothing."""
    extra = (1,) if operation == "expire" else ()
    for key in ([], object(), {}, (1, [])):
        with pytest.raises(UnsupportedKeyError) as caught:
            getattr(cache, operation)(key, *extra)
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 5000])
def test_len_counts_exactly(count: int) -> None:
    """``len`` counts the live entries, whatever was set last or has expired."""
    clock = Clock()
    cache = numbers(count, clock=clock)
    assert len(cache) == count
    for number in range(count, count + 3):
        cache.set(number, 1, ttl=1)
    assert len(cache) == count + 3
    clock.now += 2
    assert len(cache) == count


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 5000])
def test_a_walk_meets_every_key_once(count: int) -> None:
    """Iteration, ``keys``, ``values`` and ``items`` meet every live entry once, whatever pages they come in."""
    cache = numbers(count)
    assert sorted(cache) == list(range(count))
    assert sorted(cache.keys()) == list(range(count))
    assert sorted(cache.values()) == [number * 10 for number in range(count)]
    assert sorted(cache.items()) == [(number, number * 10) for number in range(count)]
    assert dict(cache) == dict(cache.items()) == {number: number * 10 for number in range(count)}


def test_a_walk_leaves_out_what_has_expired(clock: Clock) -> None:
    """Keys that have expired are not met, also when they expire during the walk."""
    cache: Moka[int, int] = Moka(None, clock=clock)
    cache.set_many(((number, number) for number in range(3000)), ttl=10)
    cache["stays"] = 1  # type: ignore[index]
    walk = iter(cache)
    next(walk)
    clock.now += 11
    rest = list(walk)
    assert len(rest) <= 1024
    assert list(cache) == ["stays"]


@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_the_cache_may_be_changed_during_a_walk(view: str) -> None:
    """Whatever changes during a walk, it ends without an error, and meets all that stays."""
    cache = numbers(3000)
    met = []
    for step, item in enumerate(getattr(cache, view)()):
        met.append(item)
        cache.pop(step * 2 + 1, None)
        cache[3000 + step] = step * 10
    assert len(met) == len(set(met))
    expected = {"keys": set(range(0, 3000, 2)), "values": {number * 10 for number in range(0, 3000, 2)}}
    expected["items"] = {(number, number * 10) for number in range(0, 3000, 2)}  # type: ignore[arg-type]
    assert expected[view] <= set(met)


def test_a_walk_ends_when_the_cache_is_cleared() -> None:
    """After ``clear`` a walk meets what it has in hand at most, and ``items`` nothing."""
    cache = numbers(3000)
    keys, items = iter(cache), iter(cache.items())
    next(keys)
    next(items)
    cache.clear()
    assert len(list(keys)) < 1024
    assert list(items) == []


def test_many_walks_at_once() -> None:
    """Walks do not disturb each other, and one that is given up holds nothing."""
    cache = numbers(2000)
    for _ in range(3000):
        assert next(iter(cache)) in cache
    walks = [iter(cache) for _ in range(100)]
    for _ in range(2000):
        for walk in walks:
            next(walk)
    assert all(next(walk, None) is None for walk in walks)


def test_views_compare_and_combine() -> None:
    """The views know membership, length and, of keys and items, set operations."""
    cache = numbers(3)
    assert 1 in cache.keys()  # noqa: SIM118
    assert 10 in cache.values()
    assert 11 not in cache.values()
    assert (1, 10) in cache.items()
    assert (1, 11) not in cache.items()
    assert (9, 90) not in cache.items()
    assert len(cache.keys()) == len(cache.values()) == len(cache.items()) == 3
    assert cache.keys() & {0, 1, 7} == {0, 1}
    assert cache.items() - {(0, 0)} == {(1, 10), (2, 20)}
    assert cache.keys() == {0, 1, 2}


def test_values_knows_nan() -> None:
    """``in`` on values goes by equality, as on a dict's."""
    cache: Moka[str, float] = Moka(8)
    cache["a"] = math.nan
    assert math.nan not in cache.values()
    assert 1.0 not in cache.values()


def test_pop(cache: Moka[Any, Any]) -> None:
    """``pop`` takes out and answers; without an entry, the default, whatever it is, or KeyError."""
    cache["a"] = 1
    assert cache.pop("a") == 1
    assert "a" not in cache
    assert cache.pop("a", None) is None
    assert cache.pop("a", default=2) == 2
    with pytest.raises(KeyError) as caught:
        cache.pop("a")
    assert caught.value.args == ("a",)
    cache["n"] = None
    assert cache.pop("n", 3) is None


def test_popitem(cache: Moka[Any, Any]) -> None:
    """``popitem`` takes out entries until none is left, then raises KeyError."""
    cache.update(a=1, b=2)
    assert sorted([cache.popitem(), cache.popitem()]) == [("a", 1), ("b", 2)]
    with pytest.raises(KeyError):
        cache.popitem()


def test_setdefault(cache: Moka[Any, Any]) -> None:
    """``setdefault`` answers the live value, or stores the default and answers that."""
    assert cache.setdefault("a", [1]) == [1]
    assert cache.setdefault("a", [2]) == [1]
    assert cache["a"] == [1]
    assert cache.setdefault("n") is None
    assert cache.setdefault("n", 1) is None


def test_setdefault_weighs_and_tells() -> None:
    """``setdefault`` runs the weigher, and what it pushes out is told."""
    events: list[Any] = []
    cache: Moka[str, int] = Moka(
        10, weigher=lambda key, value: value, eviction_listener=lambda *removal: events.append(removal)
    )
    cache.setdefault("heavy", 11)
    cache.run_pending_tasks()
    assert events == [("heavy", 11, "size")]
    cache.setdefault("a", 4)
    cache.run_pending_tasks()
    assert cache.weighted_size() == 4


class Keyed:
    """No mapping, but ``dict.update`` takes it."""

    def keys(self) -> list[str]:
        return ["x", "y"]

    def __getitem__(self, key: str) -> str:
        return key * 2


@pytest.mark.parametrize(
    "arguments",
    [(), ({"x": "xx", "y": "yy"},), ([("x", "xx"), ("y", "yy")],), (iter([("x", "xx"), ("y", "yy")]),), (Keyed(),)],
)
def test_update_takes_what_a_dicts_takes(cache: Moka[Any, Any], arguments: Any) -> None:
    """``update`` takes a mapping, pairs, an object with ``keys``, and keyword arguments, which come last."""
    model: dict[str, str] = {"x": "old"}
    cache.update(model)
    again = [[("x", "xx"), ("y", "yy")]] if arguments and isinstance(arguments[0], Iterator) else arguments
    model.update(*again, z="zz", self="s", other="o")
    cache.update(*arguments, z="zz", self="s", other="o")
    assert dict(cache) == model


def test_update_takes_another_cache(cache: Moka[Any, Any]) -> None:
    """One cache can be copied into another."""
    cache.update(numbers(3000))
    assert dict(cache) == {number: number * 10 for number in range(3000)}


def test_update_refuses_what_a_dicts_refuses(cache: Moka[Any, Any]) -> None:
    """What is no mapping and no pairs is a TypeError or ValueError, and changes nothing."""
    for wrong in (1, [1], [(1, 2), (3,)], "ab"):
        with pytest.raises((TypeError, ValueError)):
            cache.update(wrong)
    with pytest.raises(TypeError):
        cache.update({}, {})  # type: ignore[call-arg]
    assert len(cache) == 0


def test_a_cache_is_always_true(cache: Moka[Any, Any]) -> None:
    """An empty cache is true, so that ``cache or other`` keeps it."""
    assert cache
    assert bool(cache) is True
    cache["a"] = 1
    assert cache


def test_a_cache_equals_itself_only() -> None:
    """Equality and hash go by identity, also of caches with equal entries."""
    one, other = numbers(3), numbers(3)
    assert one == one
    assert one != other
    assert one != dict(one)
    assert len({one, other, one}) == 2
    assert {one: 1}[one] == 1


def test_a_cache_can_be_referred_to_weakly() -> None:
    """A cache can be a key of a WeakKeyDictionary, and goes when nobody else knows it."""
    cache = numbers(3)
    known = weakref.WeakKeyDictionary({cache: 1})
    assert known[cache] == 1
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    assert not known


def test_a_cache_that_goes_gives_its_memory_back() -> None:
    """Caches that are dropped without ``close`` leave neither memory nor objects behind."""
    for _ in range(300):
        cache: Moka[int, bytes] = Moka(8, eviction_listener=lambda *removal: None)
        cache.set(1, bytes(MIB))
        assert cache.get(1) == bytes(MIB)
    gc.collect()
    assert sum(type(found) is Moka for found in gc.get_objects()) < 100


def test_cachetools_cached_takes_a_cache() -> None:
    """``cachetools.cached`` works with a ``Moka`` as its cache, with and without a lock."""
    for lock in (None, threading.Lock()):
        cache: Moka[Any, Any] = Moka(100)
        calls: list[int] = []

        @cachetools.cached(cache=cache, lock=lock)
        def function(x: int, calls: list[int] = calls, *, y: int = 1) -> list[int]:
            return [x, y]

        @cachetools.cached(cache=cache, key=lambda x: x, lock=lock)
        def counted(x: int, calls: list[int] = calls) -> int:
            calls.append(x)
            return x

        assert [counted(1), counted(1), counted(2)] == [1, 1, 2]
        assert calls == [1, 2]
        assert function.cache is cache  # type: ignore[attr-defined]


def test_cachetools_cachedmethod_takes_a_cache() -> None:
    """``cachetools.cachedmethod`` works with a ``Moka`` that an instance owns."""

    class Owner:
        def __init__(self) -> None:
            self.cache: Moka[Any, Any] = Moka(100)
            self.calls = 0

        @cachetools.cachedmethod(lambda self: self.cache, key=lambda self, x: x)
        def method(self, x: int) -> int:
            self.calls += 1
            return x

    owner = Owner()
    assert [owner.method(1), owner.method(1), owner.calls] == [1, 1, 1]


# Lives.


def test_remaining(cache: Moka[Any, Any], clock: Clock) -> None:
    """``remaining`` tells seconds, ``math.inf`` without a deadline, ``None`` without an entry; it extends nothing."""
    cache.set("ttl", 1, ttl=10)
    cache.set("tti", 1, tti=4)
    cache.set("both", 1, ttl=3, tti=100)
    cache.set("none", 1)
    clock.now += 1
    for _ in range(2):
        assert cache.remaining("ttl") == pytest.approx(9, abs=1e-6)
        assert cache.remaining("tti") == pytest.approx(3, abs=1e-6)
        assert cache.remaining("both") == pytest.approx(2, abs=1e-6)
        assert cache.remaining("none") == math.inf
        assert cache.remaining("absent") is None
    clock.now += 3
    assert [cache.remaining(key) is None for key in ("ttl", "tti", "both")] == [False, True, True]
    assert (cache.stats().hits, cache.stats().misses) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"ttl": 5}, {"tti": 5}, {"ttl": 5, "tti": 4}])
@pytest.mark.parametrize("life", [1, 100, timedelta(days=1000), 0.5, None])
def test_expire_sets_the_remaining_life(clock: Clock, options: Any, life: Any) -> None:
    """``expire`` puts a new life in the place of ttl and tti, longer or shorter, also than the cache's own."""
    for cache_options in ({}, {"ttl": 5}, {"tti": 5}):
        cache: Moka[str, int] = Moka(8, clock=clock, **cache_options)  # type: ignore[arg-type]
        cache.set("k", 1, **options)
        clock.now += 1
        assert cache.expire("k", life) is True
        if life is None:
            assert cache.remaining("k") == math.inf
            clock.now += 1e8
            assert cache.get("k") == 1
            continue
        seconds = life.total_seconds() if isinstance(life, timedelta) else life
        assert cache.remaining("k") == pytest.approx(seconds, abs=1e-6)
        clock.now += seconds * 0.999
        assert cache.get("k") == 1
        clock.now += seconds * 0.002
        assert cache.get("k") is None


def test_expire_needs_a_live_entry(cache: Moka[Any, Any], clock: Clock) -> None:
    """``expire`` answers False for what is absent or expired, and creates nothing."""
    assert cache.expire("absent", 1) is False
    assert cache.expire("absent", None) is False
    cache.set("k", 1, ttl=1)
    clock.now += 1
    assert cache.expire("k", 100) is False
    assert len(cache) == 0


def test_setting_again_ends_what_expire_said(cache: Moka[Any, Any], clock: Clock) -> None:
    """After ``set`` the entry's options count again, not what ``expire`` gave."""
    cache.set("k", 1)
    cache.expire("k", 1)
    cache.set("k", 2)
    assert cache.remaining("k") == math.inf
    clock.now += 100
    assert cache["k"] == 2


@pytest.mark.parametrize("life", [0, -1, math.inf, math.nan, 1e30, timedelta(0), timedelta(seconds=-1)])
def test_expire_refuses_what_is_no_duration(cache: Moka[Any, Any], life: Any) -> None:
    """A life that is not positive and finite is a ValueError that names the argument; the entry's life stays."""
    cache["k"] = 1
    with pytest.raises(ConfigError, match="^remaining "):
        cache.expire("k", life)
    with pytest.raises(TypeError, match="^remaining "):
        cache.expire("k", "1")  # type: ignore[arg-type]
    assert cache.remaining("k") == math.inf


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (timedelta(seconds=1, microseconds=5), 1.000005),
        (timedelta(days=365), 31_536_000.0),
        (timedelta(microseconds=1), 1e-6),
        (timedelta.max, 2**64 / 1e9),
        (2**63, 2**64 / 1e9),
        (1e19, 2**64 / 1e9),
        (math.nextafter(2.0**64, 0), 2**64 / 1e9),
        (True, 1.0),
    ],
)
def test_durations(clock: Clock, duration: Any, seconds: float) -> None:
    """Int, float and timedelta mean the same seconds, to the deadline's resolution; beyond 584 years, 584 years."""
    cache: Moka[str, int] = Moka(8, clock=clock)
    cache.set("k", 1, ttl=duration)
    remaining = cache.remaining("k")
    assert remaining is not None
    assert seconds - remaining <= DEADLINE_RESOLUTION + seconds * 1e-15
    assert remaining <= seconds * (1 + 1e-15) or (remaining == math.inf and seconds > 2**63 / 1e9)
    assert Moka(8, ttl=duration, tti=duration, clock=clock).setdefault("k", 1) == 1


@pytest.mark.parametrize("duration", [1e-9, 1e-10, 5e-324])
def test_the_shortest_durations_are_over_at_once(duration: float) -> None:
    """A positive duration below a nanosecond is one nanosecond: shorter than the resolution, so over when set."""
    clock = Clock()
    cache: Moka[str, int] = Moka(8, clock=clock)
    cache.set("k", 1, ttl=duration)
    clock.now += 1e-6
    assert cache.get("k") is None


@pytest.mark.parametrize("duration", [2.0**64, 2**64, 10**400, -(10**400)])
def test_durations_beyond_the_range_are_value_errors(duration: Any) -> None:
    """A duration of 2**64 seconds or more is a ValueError, however large."""
    with pytest.raises(ConfigError, match="^ttl "):
        Moka(8, ttl=duration)


def test_the_clock_says_what_time_it_is() -> None:
    """A cache takes its time from ``clock`` only, from any start, negative ones included."""
    for start in (-1e9, -0.5, 0.0, 1e-9, 1.7e9, 1e10):
        clock = Clock()
        clock.now = start
        cache: Moka[str, int] = Moka(8, ttl=10, clock=clock)
        cache["k"] = 1
        clock.now += 9.99
        assert cache.get("k") == 1, start
        clock.now += 0.02
        assert cache.get("k") is None, start


def test_a_clock_that_goes_back_ends_and_extends_no_life_by_much() -> None:
    """A step back of the clock counts as no time gone by; steps forward after it count."""
    clock = Clock()
    cache: Moka[str, int] = Moka(8, ttl=10, clock=clock)
    cache["k"] = 1
    clock.now -= 1e6
    assert cache.get("k") == 1
    clock.now += 9
    assert cache.get("k") == 1
    clock.now += 1.1
    assert cache.get("k") is None


def test_a_clock_that_raises_fails_the_operation_alone() -> None:
    """What the clock raises reaches the caller; the cache is as it was."""
    clock = Clock()
    broken = False

    def now() -> float:
        if broken:
            raise LookupError("no time")
        return clock()

    cache: Moka[str, int] = Moka(8, clock=now)
    cache["k"] = 1
    broken = True
    operations: list[Callable[[], Any]] = [
        lambda: cache.get("k"),
        lambda: cache.set("k", 2),
        lambda: cache.remove("k"),
        lambda: cache.set_many({"k": 3}),
        lambda: list(cache),
    ]
    for operation in operations * 100:
        with pytest.raises(LookupError):
            operation()
    broken = False
    assert cache["k"] == 1


@pytest.mark.parametrize("clock", [1, "now", object()])
def test_a_clock_that_cannot_be_called_is_a_type_error(clock: Any) -> None:
    """``clock`` must be callable."""
    with pytest.raises(TypeError, match="^clock "):
        Moka(8, clock=clock)


# Batches.


def test_empty_batches(cache: Moka[Any, Any]) -> None:
    """Batches of nothing do nothing."""
    assert cache.get_many([]) == {}
    assert cache.set_many([]) is None  # type: ignore[func-returns-value]
    assert cache.set_many({}) is None  # type: ignore[func-returns-value]
    assert cache.remove_many([]) == 0
    assert len(cache) == 0


def test_batches_take_any_iterable(cache: Moka[Any, Any]) -> None:
    """Batches take mappings, lists, sets, generators and iterators."""
    cache.set_many({"a": 1})
    cache.set_many([("b", 2)])
    cache.set_many((key, 3) for key in "cd")
    cache.set_many(zip("ef", (4, 5), strict=True))
    assert cache.get_many(iter("abcdefg")) == {"a": 1, "b": 2, "c": 3, "d": 3, "e": 4, "f": 5}
    assert cache.get_many({"a", "x"}) == {"a": 1}
    assert cache.remove_many(key for key in "abx") == 2
    assert sorted(cache) == list("cdef")


def test_batches_with_duplicates(cache: Moka[Any, Any]) -> None:
    """A key may come twice: the last value set counts, one entry is removed, and equal keys are one."""
    cache.set_many([("a", 1), ("a", 2), (1, "int"), (1.0, "float")])
    assert cache.get_many(["a", "a", True]) == {"a": 2, 1: "float"}
    assert cache.remove_many(["a", "a", 1, 1.0]) == 2
    assert len(cache) == 0


@pytest.mark.parametrize("size", [1, 100, 2000])
def test_batches_of_ten_thousand(cache: Moka[Any, Any], size: int) -> None:
    """10,000 entries, far more than a mailbox holds, go in and out whole and in order."""
    model = {f"key {number}": bytes([number % 256]) * size for number in range(10_000)}
    cache.set_many(model)
    assert len(cache) == 10_000
    found = cache.get_many([*model, *("absent", "x" * 100)])
    assert found == model
    assert list(found) == list(model)
    assert cache.remove_many(model) == 10_000
    assert len(cache) == 0


def test_batches_of_all_sizes_of_entries(cache: Moka[Any, Any]) -> None:
    """Small and large keys and values, up to megabytes, may come in one batch."""
    sizes = [0, 1, 65_400, 65_536, 70_000, 3, 3 * MIB, 0, 10, 1 << 16, 1]
    model = {(index, "k" * (size % 100_003)): bytes(size) for index, size in enumerate(sizes)}
    cache.set_many(model)
    assert cache.get_many(model) == model
    assert cache.remove_many(model) == len(model)


def test_an_answer_beyond_16_mib_comes_whole(cache: Moka[Any, Any]) -> None:
    """``get_many`` answers 60 MiB in one dict, whatever the guest ends early."""
    model = {number: bytes([number]) * MIB for number in range(60)}
    for key, value in model.items():
        cache[key] = value
    assert cache.get_many(model) == model


@pytest.mark.parametrize(
    "bad", [([], 1), ("k", object), (object(), 1), ("k", lambda: None), ("unpaired",), ("k", 1, 2), 7]
)
def test_one_bad_entry_leaves_the_cache_unchanged(bad: Any) -> None:
    """If one entry of a batch cannot be encoded, the error comes before anything is stored."""
    cache: Moka[Any, Any] = Moka(None, serializer="msgpack")
    cache["a"] = "old"
    entries: list[Any] = [("a", "new"), *[(number, number) for number in range(5000)], bad]
    with pytest.raises((TypeError, ValueError)):
        cache.set_many(entries)
    assert dict(cache) == {"a": "old"}


def test_one_bad_key_of_a_batch_gets_and_removes_nothing(cache: Moka[Any, Any]) -> None:
    """If one key of a batch cannot be encoded, nothing is removed, and no hit counted."""
    cache["a"] = 1
    with pytest.raises(UnsupportedKeyError):
        cache.remove_many(["a", []])
    with pytest.raises(UnsupportedKeyError):
        cache.get_many(["a", []])
    assert cache["a"] == 1
    assert cache.stats().hits == 1


def test_a_weigher_that_raises_in_a_batch_leaves_the_cache_unchanged() -> None:
    """Weighing comes before storing."""
    cache: Moka[str, int] = Moka(None, weigher=lambda key, value: 1 // value)
    with pytest.raises(ZeroDivisionError):
        cache.set_many([("a", 1), ("b", 0)])
    with pytest.raises(ConfigError, match="weigher"):
        cache.set_many([("a", 1), ("b", -1)])
    assert len(cache) == 0


def test_a_batch_has_deadlines(cache: Moka[Any, Any], clock: Clock) -> None:
    """``set_many`` gives all its entries the ttl and tti; bad ones store nothing."""
    cache.set_many({"a": 1, "b": 2}, ttl=10, tti=timedelta(seconds=5))
    assert cache.remaining("a") == pytest.approx(5, abs=1e-6)
    clock.now += 4
    assert cache.get_many("ab") == {"a": 1, "b": 2}
    clock.now += 4
    assert cache.get_many("ab") == {"a": 1, "b": 2}
    clock.now += 2
    assert cache.get_many("ab") == {}
    with pytest.raises(ConfigError, match="^ttl "):
        cache.set_many({"c": 1}, ttl=0)
    assert "c" not in cache


def test_batches_tell_the_listener() -> None:
    """What batches overwrite and remove is told, in order."""
    events: list[Any] = []
    cache: Moka[Any, Any] = Moka(None, eviction_listener=lambda *removal: events.append(removal))
    cache.set_many([("a", 1), ("a", 2), ("b", 3)])
    assert events == [("a", 1, "replaced")]
    cache.remove_many("ab")
    assert events[1:] == [("a", 2, "explicit"), ("b", 3, "explicit")]


def test_batches_count(cache: Moka[Any, Any]) -> None:
    """Each key of ``get_many`` is a hit or a miss, each entry of ``set_many`` an insertion."""
    cache.set_many({number: number for number in range(100)})
    cache.get_many(range(50, 200))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions) == (50, 100, 100)


# Statistics.


def test_stats_count_what_happened(clock: Clock) -> None:
    """Hits, misses, insertions and removals by cause are counted; ``clear`` does not reset them."""
    cache: Moka[str, int] = Moka(2, clock=clock)
    cache["a"] = 1
    cache["a"] = 2
    cache.get("a")
    cache.get("b")
    cache.get_with("c", lambda: 3)
    cache.remove("a")
    cache.set("d", 1, ttl=1)
    clock.now += 2
    cache.run_pending_tasks()
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions) == (1, 2, 4)
    assert (stats.expired, stats.explicit, stats.replaced, stats.size) == (1, 1, 1, 0)
    assert (stats.entries, stats.weight) == (1, 1)
    assert stats.evictions == 1
    assert stats.hit_ratio == pytest.approx(1 / 3)
    assert 0 < stats.memory_bytes < 64 * MIB
    cache.clear()
    assert cache.stats().hits == 1


def test_stats_of_a_new_cache_are_zero() -> None:
    """A new cache has counted nothing, and its hit ratio is 0.0."""
    stats = Moka(8).stats()
    assert [getattr(stats, name) for name in stats.__dataclass_fields__ if name != "memory_bytes"] == [0] * 11
    assert stats.hit_ratio == 0.0
    assert stats.evictions == 0


def test_stats_are_a_snapshot() -> None:
    """Statistics do not change once they were asked for, and cannot be changed."""
    cache: Moka[str, int] = Moka(8)
    before = cache.stats()
    cache["a"] = 1
    assert before.insertions == 0
    with pytest.raises(AttributeError):
        before.hits = 1  # type: ignore[misc]
    assert before == before
    assert before != cache.stats()


@pytest.mark.parametrize("listener", [None, lambda *removal: None])
def test_the_counters_add_up(listener: Any) -> None:
    """Whatever was inserted is there, or was counted as removed, once."""
    clock = Clock()
    cache: Moka[int, int] = Moka(50, eviction_listener=listener, clock=clock)
    for number in range(2000):
        cache.set(number % 130, number, ttl=5 if number % 3 else None)
        if number % 7 == 0:
            cache.remove(number % 100)
        clock.now += 0.1
    cache.run_pending_tasks()
    stats = cache.stats()
    assert stats.insertions == 2000
    assert stats.insertions == stats.entries + stats.expired + stats.explicit + stats.replaced + stats.size
    assert stats.entries == len(list(cache)) <= 50


# The end.


def operations(cache: Moka[Any, Any]) -> dict[str, Callable[[], Any]]:
    """A call of every public method."""
    return {
        "set": lambda: cache.set("a", 1),
        "set with ttl": lambda: cache.set("a", 1, ttl=1),
        "get": lambda: cache.get("a"),
        "get_with": lambda: cache.get_with("a", lambda: 1),
        "remove": lambda: cache.remove("a"),
        "clear": lambda: cache.clear(),
        "count": lambda: cache.count(),
        "weighted_size": lambda: cache.weighted_size(),
        "run_pending_tasks": lambda: cache.run_pending_tasks(),
        "expire": lambda: cache.expire("a", 1),
        "remaining": lambda: cache.remaining("a"),
        "get_many": lambda: cache.get_many(["a"]),
        "set_many": lambda: cache.set_many({"a": 1}),
        "remove_many": lambda: cache.remove_many(["a"]),
        "stats": lambda: cache.stats(),
        "__enter__": lambda: cache.__enter__(),
        "__getitem__": lambda: cache["a"],
        "__setitem__": lambda: cache.__setitem__("a", 1),
        "__delitem__": lambda: cache.__delitem__("a"),
        "__contains__": lambda: "a" in cache,
        "__len__": lambda: len(cache),
        "__iter__": lambda: list(cache),
        "keys": lambda: list(cache.keys()),
        "values": lambda: list(cache.values()),
        "items": lambda: list(cache.items()),
        "pop": lambda: cache.pop("a"),
        "pop with default": lambda: cache.pop("a", None),
        "popitem": lambda: cache.popitem(),
        "setdefault": lambda: cache.setdefault("a", 1),
        "update": lambda: cache.update(a=1),
    }


def test_every_public_method_is_tried() -> None:
    """The list of operations above names every public method that works on entries."""
    named = {name.split()[0] for name in operations(Moka(8))}
    public = {name for name in dir(Moka) if not name.startswith("_")} - {"close"}
    assert public <= named


@pytest.mark.parametrize("name", operations(Moka(8)))
@pytest.mark.parametrize("options", [{}, {"eviction_listener": print, "weigher": lambda key, value: 1}])
def test_a_closed_cache_says_so(name: str, options: Any) -> None:
    """After ``close`` every public method raises ClosedError, which is a RuntimeError and says what to do."""
    cache: Moka[Any, Any] = Moka(8, **options)
    cache["a"] = 1
    cache.close()
    with pytest.raises(ClosedError, match="open a new one") as caught:
        operations(cache)[name]()
    assert isinstance(caught.value, (MokaError, RuntimeError))


def test_a_closed_cache_still_has_a_face() -> None:
    """``repr``, truth, hash and equality work after ``close``, and ``close`` does, again and again."""
    cache: Moka[Any, Any] = Moka(8, name="tired")
    cache.close()
    cache.close()
    assert "tired" in repr(cache)
    assert cache
    assert cache == cache
    hash(cache)
    with pytest.raises(TypeError, match="unhashable|key"):
        cache.get([])


def test_with_closes() -> None:
    """``with`` gives the cache itself and closes it, also on an exception, which goes on."""
    with Moka[str, int](8) as cache:
        assert isinstance(cache, Moka)
        cache["a"] = 1
    with pytest.raises(ClosedError):
        cache["a"]
    with pytest.raises(LookupError), Moka[str, int](8) as cache:
        raise LookupError
    with pytest.raises(ClosedError):
        cache.get("a")


def test_a_walk_over_a_closed_cache_ends() -> None:
    """A walk that has begun before ``close`` ends, with an error or without, and so does dropping it."""
    cache = numbers(3000)
    walk, dropped = iter(cache), iter(cache)
    next(walk)
    next(dropped)
    cache.close()
    del dropped
    with pytest.raises(ClosedError):
        list(cache.items())
    assert len(list(walk)) < 1024


def test_close_while_other_threads_are_inside() -> None:
    """Threads that use a cache while it is closed get what they asked for, or ClosedError, and nothing else."""
    for _ in range(20):
        cache: Moka[int, bytes] = Moka(100)
        started = threading.Barrier(5)
        threads = Threads()

        def use(cache: Moka[int, bytes] = cache, started: threading.Barrier = started) -> str:
            started.wait(GUARD)
            number = 0
            try:
                while True:
                    number += 1
                    cache.set(number % 200, b"%d" % (number % 200) * 1000)
                    found = cache.get((number * 7) % 200)
                    assert found in (None, b"%d" % ((number * 7) % 200) * 1000)
                    list(cache.get_many(range(3)))
            except ClosedError:
                return "closed"

        threads.start(use, 4)
        started.wait(GUARD)
        for _ in range(50):
            cache.get(1)
        cache.close()
        assert threads.join() == ["closed"] * 4


def test_closing_gives_the_memory_back() -> None:
    """Two hundred caches of 16 MiB each can be opened and closed one after the other, and reserve nothing after it."""
    value = bytes(16 * MIB)
    for _ in range(200):
        with Moka[int, bytes](None, serializer="bytes") as cache:
            cache[1] = value
            assert cache.stats().memory_bytes > len(value)


# Memory.


@pytest.mark.parametrize("limit", [0, 1, 65_536, MIB - 1])
def test_a_memory_limit_below_a_mebibyte_is_a_value_error(limit: int) -> None:
    """The least memory limit is 1 MiB; the message names the argument and what would do."""
    with pytest.raises(ConfigError, match="memory.limit") as caught:
        Moka(8, memory_limit=limit)
    assert "1048576" in str(caught.value).replace(",", "").replace("_", "") or "1 MiB" in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), (2**64, ValueError), ("1", TypeError), (1.5e6, TypeError), ([], TypeError)]
)
def test_a_memory_limit_that_cannot_be_names_the_argument(limit: Any, error: Any) -> None:
    """A memory limit is an int within range."""
    with pytest.raises(error, match="^memory_limit "):
        Moka(8, memory_limit=limit)


@pytest.mark.parametrize("limit", [MIB, MIB + 1, 2 * MIB, 10 * MIB, 4 << 30, 1 << 40])
def test_a_memory_limit_from_a_mebibyte_on_works(limit: int) -> None:
    """A cache with any limit from 1 MiB on stores and finds."""
    cache: Moka[int, str] = Moka(None, memory_limit=limit)
    for number in range(1000):
        cache[number] = "x" * 50
        assert cache.get(number) == "x" * 50
    assert cache.stats().memory_bytes <= limit


@pytest.mark.parametrize("limit", [MIB, 4 * MIB])
@pytest.mark.parametrize("method", ["set", "setdefault", "get_with", "set_many", "update", "[]"])
def test_an_entry_that_can_never_fit_is_refused(limit: int, method: str) -> None:
    """What cannot fit raises EntryTooLargeError, a ValueError that tells the limit; the old value stays."""
    cache: Moka[str, bytes] = Moka(None, memory_limit=limit)
    cache["k"] = b"old"
    large = bytes(limit)
    absent = "k" if method not in ("setdefault", "get_with") else "absent"
    calls: dict[str, Callable[[], Any]] = {
        "set": lambda: cache.set("k", large, ttl=5),
        "setdefault": lambda: cache.setdefault("absent", large),
        "get_with": lambda: cache.get_with("absent", lambda: large),
        "set_many": lambda: cache.set_many({"k": large}),
        "update": lambda: cache.update(k=large),
        "[]": lambda: cache.__setitem__("k", large),
    }
    with pytest.raises(EntryTooLargeError, match="memory") as caught:
        calls[method]()
    assert isinstance(caught.value, ValueError)
    assert cache.get("k") == b"old"
    assert cache.get(absent) in (b"old", None)
    assert cache.stats().memory_bytes <= limit
    cache["k"] = b"new"
    assert cache["k"] == b"new"


def test_setdefault_with_a_large_default_answers_the_live_value() -> None:
    """Where there is a live value, ``setdefault`` does not mind a default that could not be stored."""
    cache: Moka[str, bytes] = Moka(None, memory_limit=MIB)
    cache["k"] = b"old"
    assert cache.setdefault("k", bytes(2 * MIB)) == b"old"


def test_a_batch_stops_at_the_entry_that_does_not_fit() -> None:
    """``set_many`` stores what comes before an entry that cannot fit, and says that one's error."""
    cache: Moka[str, bytes] = Moka(None, memory_limit=2 * MIB)
    with pytest.raises(EntryTooLargeError):
        cache.set_many([("a", b"1"), ("b", bytes(2 * MIB)), ("c", b"3")])
    assert cache.get_many("abc") == {"a": b"1"}


def test_a_million_small_sets_under_four_mebibytes() -> None:
    """However many entries come, nothing raises, and the sandbox keeps within its memory limit."""
    limit = 4 * MIB
    cache: Moka[int, int] = Moka(None, memory_limit=limit)
    for number in range(500_000):
        cache.set(number, number)
    assert cache.stats().memory_bytes <= limit
    for start in range(500_000, 1_000_000, 10_000):
        cache.set_many({number: number for number in range(start, start + 10_000)})
    stats = cache.stats()
    assert stats.memory_bytes <= limit
    assert stats.insertions == 1_000_000
    assert 1000 < stats.entries < 100_000
    assert all(key == value for key, value in cache.items())


def test_entries_of_mixed_sizes_keep_within_the_limit() -> None:
    """Small, large and overwritten entries, removals, batches and walks: the limit holds, and nothing raises."""
    limit = 8 * MIB
    events: list[str] = []
    cache: Moka[int, bytes] = Moka(
        None, memory_limit=limit, eviction_listener=lambda key, value, cause: events.append(cause)
    )
    for number in range(6000):
        size = (number * 7919) % 300_000 if number % 10 == 0 else number % 500
        cache.set(number % 700, bytes(size))
        if number % 50 == 0:
            cache.set_many({key: bytes(key) for key in range(number, number + 100)})
            cache.remove_many(range(number, number + 10))
            cache.get_many(range(100))
        assert cache.stats().memory_bytes <= limit
    assert "size" in events


def test_a_limit_holds_with_every_policy_and_deadline() -> None:
    """The limit holds with ttl, tti, weights and both policies."""
    limit = 2 * MIB
    clock = Clock()
    for policy in ("tiny_lfu", "lru"):
        cache: Moka[int, str] = Moka(
            10**9,
            ttl=100,
            tti=50,
            policy=policy,  # type: ignore[arg-type]
            weigher=lambda key, value: len(value),
            memory_limit=limit,
            clock=clock,
        )
        for number in range(30_000):
            cache.set(number, "x" * (number % 100), ttl=1 + number % 50)
            clock.now += 0.001
        assert cache.stats().memory_bytes <= limit
        assert cache.stats().entries > 100


def test_without_a_limit_the_address_space_is_the_limit() -> None:
    """What is larger than any entry can be raises EntryTooLargeError without a limit, too."""
    cache: Moka[str, bytes] = Moka(None, serializer="bytes")
    cache["k"] = b"old"
    with pytest.raises((EntryTooLargeError, GuestMemoryError)):
        cache["k"] = bytes(1 << 30)
    assert cache["k"] == b"old"


# Capacity.


def test_no_capacity_loses_nothing() -> None:
    """``capacity=None`` keeps every entry."""
    cache = numbers(50_000)
    assert len(cache) == 50_000
    assert cache.stats().size == 0


def test_capacity_zero_keeps_nothing() -> None:
    """``capacity=0`` computes, answers and tells, and keeps nothing."""
    events: list[Any] = []
    cache: Moka[str, int] = Moka(0, eviction_listener=lambda *removal: events.append(removal))
    cache["a"] = 1
    assert cache.get("a") is None
    assert cache.get_with("a", lambda: 2) == 2
    assert cache.setdefault("a", 3) == 3
    cache.run_pending_tasks()
    assert len(cache) == 0
    assert events == [("a", 1, "size"), ("a", 2, "size"), ("a", 3, "size")]


@pytest.mark.parametrize("capacity", [1, 2, 2**31, 2**32, 2**63, 2**64 - 2])
def test_capacities_from_one_to_the_largest(capacity: int) -> None:
    """Every capacity up to 2**64 - 2 works."""
    cache: Moka[int, int] = Moka(capacity)
    cache[1] = 1
    assert cache[1] == 1
    for number in range(10):
        cache[number] = number
    assert len(cache) == min(capacity, 10)


@pytest.mark.parametrize(
    ("capacity", "error"),
    [(-1, ValueError), (2**64 - 1, ValueError), (10**30, ValueError), (1.0, TypeError), ("8", TypeError)],
)
def test_a_capacity_that_cannot_be_names_the_argument(capacity: Any, error: Any) -> None:
    """A capacity is an int within range."""
    with pytest.raises(error, match="^capacity "):
        Moka(capacity)


def test_an_entry_heavier_than_the_capacity_is_not_kept() -> None:
    """An entry heavier than the capacity is told as "size", and takes what it overwrites with it, nothing else."""
    events: list[Any] = []
    cache: Moka[str, int] = Moka(
        10, weigher=lambda key, value: value, eviction_listener=lambda *removal: events.append(removal)
    )
    cache["a"] = 3
    cache["b"] = 4
    cache["a"] = 11
    cache.run_pending_tasks()
    assert dict(cache) == {"b": 4}
    assert sorted(events) == [("a", 3, "replaced"), ("a", 11, "size")]


# Names and faces.


@pytest.mark.parametrize(
    "name", ["", "plain", "mit Umlauten: äöü", "\0", "'\"\\\n", "🦀" * 1000, "x" * 100_000, "\ud800"]
)
def test_names_of_any_characters(name: str) -> None:
    """A name may hold any characters, and is shown by ``repr``."""
    cache: Moka[str, int] = Moka(8, name=name)
    cache["a"] = 1
    assert cache["a"] == 1
    assert (repr(name) in repr(cache)) == bool(name)


def test_repr_tells_what_it_is() -> None:
    """``repr`` tells name, capacity and policy, and asks the sandbox nothing."""
    assert repr(Moka(8)) == "<moka_wasm.Moka capacity=8, policy='tiny_lfu'>"
    assert repr(Moka(None, policy="lru", name="n")) == "<moka_wasm.Moka name='n', capacity=None, policy='lru'>"


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, *(lambda c, p=p: pickle.dumps(c, p) for p in range(6))]
)
def test_a_cache_is_neither_copied_nor_pickled(duplicate: Any) -> None:
    """Copying and pickling raise a TypeError that says what to copy instead."""
    with pytest.raises(TypeError, match="cannot be copied or pickled.*dict"):
        duplicate(Moka(8))


def test_a_cache_inside_of_something_is_not_copied_by_mistake() -> None:
    """What holds a cache cannot be deeply copied without noticing."""
    with pytest.raises(TypeError, match="Moka"):
        copy.deepcopy({"cache": Moka(8)})


def test_the_class_can_be_subscripted_and_derived_from() -> None:
    """``Moka[K, V]`` opens caches, and classes can derive from it and from ``Moka``."""

    class Named(Moka[str, int]):
        def double(self, key: str) -> int:
            return self[key] * 2

    cache = Named(8, ttl=10)
    cache["a"] = 2
    assert cache.double("a") == 4
    assert isinstance(cache, Moka)
    assert Moka[str, list[int]](8).get("a") is None


def test_a_cache_takes_no_further_attributes() -> None:
    """A misspelt attribute is an AttributeError."""
    with pytest.raises(AttributeError):
        Moka(8).capasity = 9  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"eviction_listener": 1},
        {"weigher": "len"},
        {"name": 1},
        {"name": None},
        {"name": b"x"},
    ],
)
def test_an_argument_of_a_wrong_type_is_a_type_error(options: Any) -> None:
    """Listener and weigher must be callable and the name a str; the message names the argument."""
    (name,) = options
    with pytest.raises(TypeError, match=f"^{name} "):
        Moka(8, **options)


# Values.


VALUES = [
    None,
    True,
    0,
    -(2**70),
    1.5,
    math.inf,
    "text ä \ud800",
    b"bytes",
    [1, [2, []]],
    {"a": {1: 2}},
    (1, (2,)),
    {1, 2},
    timedelta(1),
    "x" * 1_000_000,
]


@pytest.mark.parametrize("serializer", [None, "pickle"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_equal_and_of_their_type(serializer: Any, value: Any) -> None:
    """What comes out of the cache equals what went in, has its type, and is another object if it can be changed."""
    cache: Moka[str, Any] = Moka(8, serializer=serializer)
    cache["k"] = value
    found = cache["k"]
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, (list, dict, set)):
        assert found is not value


def test_values_are_copies(cache: Moka[Any, Any]) -> None:
    """Changing what was set, or what any method answered, changes no entry."""
    value = {"a": [1]}
    cache["k"] = value
    value["a"].append(2)
    computed = cache.get_with("l", lambda: value)
    computed["a"].append(3)
    default = {"a": [1]}
    cache.setdefault("m", default)["a"].append(4)
    answers: list[Callable[[], Any]] = [
        lambda: cache.get("k"),
        lambda: cache["k"],
        lambda: cache.get_with("k", lambda: pytest.fail("computed")),
        lambda: cache.setdefault("k", {}),
        lambda: cache.get_many(["k"])["k"],
        lambda: dict(cache.items())["k"],
        lambda: next(found for found in cache.values() if found == {"a": [1]}),
    ]
    for answer in answers:
        answer()["a"].append(9)
        assert cache["k"] == {"a": [1]}
    assert cache["l"] == {"a": [1, 2]}
    assert cache["m"] == {"a": [1]}


def test_the_listener_gets_copies() -> None:
    """What a listener does to a value harms nobody."""
    events: list[Any] = []

    def listener(key: str, value: list[int], cause: str) -> None:
        value.append(9)
        events.append(value)

    cache: Moka[str, list[int]] = Moka(8, eviction_listener=listener)
    cache["k"] = [1]
    cache["k"] = [2]
    assert cache.remove("k") == [2]
    assert events == [[1, 9], [2, 9]]


class Reversed:
    """A serializer of one's own."""

    def dumps(self, value: str) -> bytes:
        return value[::-1].encode()

    def loads(self, data: bytes) -> str:
        return data.decode()[::-1]


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        (None, {"a": (1, object)}),
        ("msgpack", {"a": [1, 2.5, None, b"x"]}),
        ("json", {"a": [1, 2.5, None, "x"]}),
        ("bytes", b"\0\xff"),
        ("pickle", {1: {2, 3}}),
        (pickle, {1: {2, 3}}),
        (Reversed(), "abc"),
    ],
)
def test_serializers(serializer: Any, value: Any) -> None:
    """Every kind of serializer carries its values through every method, and to the listener."""
    events: list[Any] = []
    cache: Moka[str, Any] = Moka(8, serializer=serializer, eviction_listener=lambda *event: events.append(event))
    cache["a"] = value
    assert cache.setdefault("a", value) == cache["a"] == cache.get_many("a")["a"] == value
    assert cache.get_with("b", lambda: value) == cache.get_with("b", lambda: value) == value
    cache.set_many({"c": value})
    assert cache.pop("c") == value
    assert events == [("c", value, "explicit")]


@pytest.mark.parametrize(
    ("serializer", "bad", "error"),
    [
        (None, lambda: None, UnsupportedValueError),
        ("msgpack", object(), UnsupportedValueError),
        ("json", {1: 2}, UnsupportedValueError),
        ("json", math.nan, UnsupportedValueError),
        ("bytes", "text", UnsupportedValueError),
        ("bytes", bytearray(b"x"), UnsupportedValueError),
        ("pickle", lambda: None, UnsupportedValueError),
        (json, {"a": 1}, UnsupportedValueError),
        (Reversed(), 5, TypeError),
    ],
)
def test_a_value_that_cannot_be_encoded_leaves_the_cache_unchanged(serializer: Any, bad: Any, error: Any) -> None:
    """An encoding error is a TypeError that comes before anything is stored, from every method that stores."""
    cache: Moka[str, Any] = Moka(8, serializer=serializer)
    good: Any = b"good" if serializer == "bytes" else "good"
    if serializer is not json:
        cache["k"] = good
    attempts: list[Callable[[], Any]] = [
        lambda: cache.set("k", bad),
        lambda: cache.set("k", bad, ttl=5),
        lambda: cache.set_many([("l", bad)]),
        lambda: cache.update(k=bad),
        lambda: cache.setdefault("absent", bad),
        lambda: cache.get_with("absent", lambda: bad),
    ]
    for attempt in attempts:
        with pytest.raises(error) as caught:
            attempt()
        assert isinstance(caught.value, TypeError)
    assert sorted(cache) == ([] if serializer is json else ["k"])
    if serializer is not json:
        assert cache["k"] == good


@pytest.mark.parametrize("serializer", ["yaml", 1, object(), json.dumps, ["json"]])
def test_a_serializer_that_is_none_is_a_value_error(serializer: Any) -> None:
    """What is no serializer is refused when the cache is opened."""
    with pytest.raises(ConfigError, match="^serializer "):
        Moka(8, serializer=serializer)


def test_a_serializer_that_cannot_read_its_bytes_harms_one_entry() -> None:
    """An error of ``loads`` reaches the caller; the cache goes on."""

    class Broken(Reversed):
        def loads(self, data: bytes) -> str:
            if data == b"dab":
                raise DecodeError("bad")
            return super().loads(data)

    cache: Moka[str, str] = Moka(8, serializer=Broken())
    cache["k"] = "bad"
    cache["l"] = "good"
    for ask in (lambda: cache["k"], lambda: cache.get("k"), lambda: cache.get_many("kl"), lambda: list(cache.values())):
        with pytest.raises(DecodeError):
            ask()
    assert cache["l"] == "good"
    with pytest.raises(DecodeError):
        cache.remove("k")
    assert sorted(cache) == ["l"]


def test_a_listener_is_told_of_errors_of_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a removed value cannot be decoded, ``sys.unraisablehook`` says so, and the operation goes on."""

    class WriteOnly(Reversed):
        def loads(self, data: bytes) -> str:
            raise DecodeError("never")

    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    cache: Moka[str, str] = Moka(8, serializer=WriteOnly(), eviction_listener=print)
    cache["k"] = "1"
    cache["k"] = "2"
    assert [report.exc_type for report in reported] == [DecodeError]


@pytest.mark.parametrize("key", ["", b"", (), 0, None, "x" * 65_536, b"y" * 300_000, ("t",) * 10_000])
def test_keys_of_all_sizes(cache: Moka[Any, Any], key: Any) -> None:
    """Empty and very long keys are keys."""
    cache[key] = "v"
    assert cache[key] == "v"
    assert list(cache) == [key]
    assert cache.get_many([key]) == {key: "v"}
    assert cache.remove_many([key]) == 1


def test_a_get_with_that_cannot_store_computes_for_its_caller(clock: Clock) -> None:
    """What an initializer returns under a weight that can never fit is answered, and not kept."""
    cache: Moka[str, int] = Moka(10, weigher=lambda key, value: value, clock=clock)
    assert cache.get_with("k", lambda: 11) == 11
    assert cache.get("k") is None
