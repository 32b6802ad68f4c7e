"""Defects of other caches, each as a rule that this one keeps. See the README for the caches."""

# pyright: basic

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import sys
import threading
import weakref
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from test_cached import Clock
from test_single_flight import GUARD, Threads

from moka_wasm import ClosedError, Moka, RecursiveComputationError, cached, cached_method


def within_guard(function: Any) -> Any:
    """What the function answers, in a thread, so that one that hangs fails."""
    threads = Threads()
    threads.start(function)
    (result,) = threads.join()
    return result


# theine


def test_theine_a_key_whose_function_once_raised_hangs_for_ever() -> None:
    """After a function raised, the same call computes again and answers, from any thread."""
    calls: list[int] = []

    @cached(wait_concurrent=True)
    def function(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise LookupError("once")
        return x

    with pytest.raises(LookupError):
        function(1)
    assert within_guard(lambda: function(1)) == 1
    assert function(1) == 1
    assert calls == [1, 1]


def test_theine_stats_divide_by_zero_before_the_first_request() -> None:
    """The hit ratio of a cache that nobody has asked yet is 0.0."""
    cache: Moka[str, int] = Moka(8)
    assert cache.stats().hit_ratio == 0.0
    cache.set("k", 1)
    assert cache.stats().hit_ratio == 0.0
    assert cached(len).cache_info()[:2] == (0, 0)


# cachebox


def test_cachebox_recursion_with_the_same_key_hangs() -> None:
    """A function that calls itself with its own arguments gets RecursiveComputationError, and is not locked out."""

    @cached(wait_concurrent=True)
    def function(x: int) -> int:
        return function(x)

    @cached(wait_concurrent=True)
    async def task(x: int) -> int:
        return await task(x)

    def ask() -> str:
        for _ in range(2):
            with pytest.raises(RecursiveComputationError):
                function(1)
            with pytest.raises(RecursiveComputationError):
                asyncio.run(task(1))
        return "no hang"

    assert within_guard(ask) == "no hang"


def test_cachebox_recursion_with_other_keys_works() -> None:
    """A function may call itself with other arguments."""

    @cached(wait_concurrent=True)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert within_guard(lambda: fibonacci(80)) == 23416728348467685


# cashews


def test_cashews_mutating_a_returned_value_changes_the_entry() -> None:
    """What is got is a copy: changing it changes no entry, and nobody else's copy."""
    cache: Moka[str, dict[str, list[int]]] = Moka(8)
    cache.set("k", {"a": [1]})
    for _ in range(2):
        got = cache["k"]
        got["a"].append(2)
        got.clear()
    assert cache.get("k") == {"a": [1]}


# diskcache


def test_diskcache_equal_tuples_miss() -> None:
    """Keys that are equal in Python are one key, however they were built and whatever they pickle to."""
    text = "".join(["sh", "ared"])
    pairs: list[tuple[Any, Any]] = [
        ((text, text), (text, "".join(["shar", "ed"]))),
        ((1, 2.0), (1.0, 2)),
        ((True, 0), (1, False)),
        ((0.0,), (-0.0,)),
        ((1,), (Fraction(1),)),
        (frozenset([1, 2, 3]), frozenset([3, 2, 1])),
    ]
    for first, second in pairs:
        cache: Moka[Any, str] = Moka(8)
        cache[first] = "found"
        assert cache.get(second) == "found", (first, second)
        cache[second] = "one entry"
        assert len(cache) == 1


# moka-py


def test_moka_py_an_async_failure_stays_cached() -> None:
    """With ``wait_concurrent=True`` a failed async computation is not cached: the next call computes again."""
    calls: list[int] = []

    @cached(wait_concurrent=True)
    async def function(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        if len(calls) == 1:
            raise LookupError("once")
        return x

    async def main() -> None:
        with pytest.raises(LookupError):
            await function(1)
        assert await function(1) == 1

    asyncio.run(main())
    assert calls == [1, 1]


def test_moka_py_an_initializer_that_asks_for_its_own_key_hangs() -> None:
    """An initializer that asks for its own key gets RecursiveComputationError; the key is free afterwards."""
    cache: Moka[str, int] = Moka(8)

    def initialize() -> int:
        return cache.get_with("k", initialize)

    def ask() -> str:
        with pytest.raises(RecursiveComputationError):
            cache.get_with("k", initialize)
        return "no hang"

    assert within_guard(ask) == "no hang"
    assert within_guard(lambda: cache.get_with("k", lambda: 1)) == 1


def test_moka_py_initializers_of_two_threads_that_ask_for_each_others_keys_hang() -> None:
    """Of two threads whose initializers wait for each other, one gets RecursiveComputationError."""
    cache: Moka[str, str] = Moka(8)
    both = threading.Barrier(2)
    threads = Threads()

    def ask(mine: str, other: str) -> str:
        def initialize() -> str:
            both.wait(GUARD)
            return cache.get_with(other, lambda: pytest.fail("the other thread computes this"))

        try:
            return cache.get_with(mine, initialize)
        except RecursiveComputationError:
            return "error"

    threads.start(lambda: ask("a", "b"))
    threads.start(lambda: ask("b", "a"))
    assert "error" in threads.join()


def test_moka_py_a_raising_listener_fails_an_unrelated_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a listener raises goes to ``sys.unraisablehook``; the call goes on, and further removals are told."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def listener(key: str, value: int, cause: str) -> None:
        raise LookupError(key)

    cache: Moka[str, int] = Moka(8, eviction_listener=listener)
    cache.set("a", 1)
    cache.set("a", 2)
    assert cache.remove("a") == 2
    assert cache.get("b", 3) == 3
    assert [str(report.exc_value) for report in reported] == ["a", "a"]
    assert all(report.exc_type is LookupError and report.object is listener for report in reported)
    assert all(report.exc_traceback is not None and report.err_msg for report in reported)


def test_moka_py_has_no_statistics() -> None:
    """A cache counts its hits, misses and removals; a cached function has ``cache_info`` and ``cache_parameters``."""
    cache: Moka[str, int] = Moka(8)
    cache.set("k", 1)
    cache.get("k")
    cache.get("absent")
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions, stats.entries) == (1, 1, 1, 1)
    function = cached(maxsize=7, ttl=5)(len)
    function("abc")
    function("abc")
    assert function.cache_info() == (1, 1, 7, 1)
    assert function.cache_parameters()["maxsize"] == 7
    assert function.cache_parameters()["ttl"] == 5


def test_moka_py_is_no_mapping() -> None:
    """``len``, ``in``, ``[]``, ``del`` and iteration work."""
    cache: Moka[str, int] = Moka(8)
    cache["a"] = 1
    cache["b"] = 2
    assert len(cache) == 2
    assert "a" in cache
    assert "c" not in cache
    assert cache["a"] == 1
    assert sorted(cache) == ["a", "b"]
    del cache["a"]
    assert list(cache) == ["b"]


def test_moka_py_has_no_bulk_calls() -> None:
    """Many entries are set, got and removed at once."""
    cache: Moka[str, int] = Moka(8)
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert cache.remove_many(["a", "c"]) == 1


def test_moka_py_cannot_tell_or_change_a_deadline() -> None:
    """The remaining life of a live entry can be read and set."""
    clock = Clock()
    cache: Moka[str, int] = Moka(8, clock=clock)
    cache.set("k", 1, ttl=10)
    clock.now += 4
    assert cache.remaining("k") == pytest.approx(6, abs=1e-7)
    assert cache.expire("k", 100)
    clock.now += 99
    assert cache.get("k") == 1


def test_moka_py_cannot_be_closed() -> None:
    """A cache gives its memory back when it is closed, and says so to whoever uses it afterwards."""
    with Moka[str, int](8) as cache:
        cache.set("k", 1)
    with pytest.raises(ClosedError):
        cache.get("k")


def test_moka_py_has_no_bare_decorator() -> None:
    """``@cached`` works without parentheses."""
    calls: list[int] = []

    @cached
    def function(x: int) -> int:
        calls.append(x)
        return x

    assert [function(1), function(1)] == [1, 1]
    assert calls == [1]


def test_moka_py_has_no_unbounded_cache() -> None:
    """``maxsize=None`` and ``capacity=None`` mean no bound."""
    cache: Moka[int, int] = Moka(None)
    cache.set_many((number, number) for number in range(20_000))
    assert len(cache) == 20_000

    @cached(maxsize=None)
    def function(x: int) -> int:
        return x

    for number in range(1_000):
        function(number)
    assert function.cache_info() == (0, 1_000, None, 1_000)


def test_moka_py_takes_no_timedelta() -> None:
    """A duration may be a timedelta wherever it may be seconds."""
    clock = Clock()
    cache: Moka[str, int] = Moka(8, ttl=timedelta(hours=1), tti=timedelta(minutes=50), clock=clock)
    cache.set("k", 1, ttl=timedelta(minutes=1), tti=timedelta(minutes=2))
    cache.get_with("l", lambda: 2, ttl=timedelta(minutes=3))
    clock.now += 59
    assert cache.get("k") == 1
    clock.now += 1
    assert cache.get_many(["k", "l"]) == {"l": 2}
    assert cached(ttl=timedelta(seconds=1))(len)("abc") == 3


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_moka_py_copies_and_pickles_obscurely(duplicate: Any) -> None:
    """Copying or pickling a cache is a TypeError that says what to do instead."""
    with pytest.raises(TypeError, match="items"):
        duplicate(Moka(8))


def test_moka_py_a_cached_method_keeps_self_alive() -> None:
    """An instance whose method is cached can be collected, and its entries go."""

    class Rates:
        @cached_method
        def of(self, x: int) -> int:
            return x * 2

    rates = Rates()
    assert rates.of(1) == 2
    assert Rates.of.cache_info().currsize == 1
    gone = weakref.ref(rates)
    del rates
    gc.collect()
    assert gone() is None
    assert Rates.of.cache_info().currsize == 0


def test_moka_py_values_are_aliased() -> None:
    """Neither who set a value nor who got it can change the entry by changing the object."""
    cache: Moka[str, list[int]] = Moka(8)
    value = [1]
    cache.set("k", value)
    value.append(2)
    cache["k"].append(3)
    assert cache.get("k") == [1]
    computed = cache.get_with("l", lambda: value)
    computed.append(4)
    assert cache.get("l") == [1, 2]
    calls: list[int] = []

    @cached
    def function(x: int) -> list[int]:
        calls.append(x)
        return [x]

    for _ in range(3):
        function(1).append(9)
    assert function(1) == [1]
    assert calls == [1]
