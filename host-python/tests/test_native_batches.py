"""The extension's ways for many keys, and for ``get_with``: what Python does, in fewer crossings."""

# pyright: basic

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native import GET, KEYS, SET, VALUES, instance_of, types

import moka_wasm._hot as hot
from moka_wasm import ClosedError, EntryTooLargeError, Moka, SandboxError, UnsupportedKeyError

pytestmark = pytest.mark.skipif(hot._native is None, reason="the extension is not here, or is turned off")

MANY = "(param i32 i32 i32 i64) (result i64)"


def without_extension(**options: Any) -> Moka[Any, Any]:
    """A cache that does all in Python."""
    cache: Any = Moka(None, **options)
    cache._channel.binding.unbind()
    return cache


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=30), st.lists(KEYS, max_size=10))
def test_batches_do_what_python_does(entries: list[tuple[Any, Any]], others: list[Any]) -> None:
    """The same entries, answers, exceptions and counters, whatever the keys and values are."""
    caches: tuple[Any, Any] = (Moka(None), without_extension())
    assert caches[0]._channel.binding.bound
    keys = [key for key, _ in entries]
    calls: tuple[Callable[[Any], Any], ...] = (
        lambda cache: cache.set_many(dict(entries)),
        lambda cache: list(cache.get_many([*others, *keys, *keys]).items()),
        lambda cache: [cache.get_with(key, lambda: "computed") for key in [*others, *keys]],
        lambda cache: list(cache.get_many(tuple(others)).items()),
        lambda cache: cache.remove_many([*keys[::2], *others[::2], *keys[::2]]),
        lambda cache: list(cache.get_many(iter([*keys, *others])).items()),
    )
    outcomes: list[list[Any]] = []
    for cache in caches:
        outcome: list[Any] = []
        for call in calls:
            try:
                outcome.append(types(call(cache)))
            except TypeError as error:
                outcome.append((type(error), str(error)))
        stats = cache.stats()
        outcome.append((stats.hits, stats.misses, stats.insertions, stats.explicit, stats.entries))
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("count", [0, 1, 300, 301, 5000])
@pytest.mark.parametrize("size", [1, 40, 300])
def test_more_than_a_mailbox_takes(count: int, size: int) -> None:
    """Any number of keys and values goes in and comes out, in as many crossings as it takes."""
    cache: Moka[Any, str] = Moka(None)
    entries = {f"{number:05}" + "k" * size: "v" * size + str(number) for number in range(count)}
    cache.set_many(entries)
    assert cache.get_many(entries) == entries
    assert list(cache.get_many(reversed(list(entries)))) == list(reversed(entries))
    assert cache.get_many([*entries, "absent"]) == entries
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions) == (3 * count, 1, count)
    assert cache.remove_many([*entries, "absent"]) == count
    assert cache.get_many(entries) == {}


@pytest.mark.parametrize("size", [16_000, 16_384, 100_000, 3_000_000])
def test_large_ones_among_small_ones(size: int) -> None:
    """Values that no mailbox of the extension takes, before, between and behind others."""
    cache: Moka[int, str] = Moka(None)
    entries = {number: ("x" * size if number % 3 == 0 else str(number)) for number in range(10)}
    cache.set_many(entries)
    assert cache.get_many(entries) == entries
    assert cache.stats().hits == 10
    assert cache.remove_many(entries) == 10


def test_arguments_are_checked_as_in_python() -> None:
    """Keys that are none, and whatever else Python refuses, change nothing."""
    cache: Moka[Any, Any] = Moka(None)
    for call, error in (
        (lambda: cache.get_many(["a", []]), UnsupportedKeyError),
        (lambda: cache.remove_many(["a", {}]), UnsupportedKeyError),
        (lambda: cache.set_many({"a": 1, "b": lambda: 0}), TypeError),
        (lambda: cache.set_many({"a": 1}, ttl=-1), ValueError),
        (lambda: cache.get_with("a", lambda: 1, ttl=-1), ValueError),
        (lambda: cache.get_many(5), TypeError),  # type: ignore[arg-type]
        (lambda: cache.get_many(), TypeError),  # type: ignore[call-arg]
        (lambda: cache.remove_many(["a"], 1), TypeError),  # type: ignore[call-arg]
        (lambda: cache.set_many({}, 1, 2, 3), TypeError),  # type: ignore[call-arg]
    ):
        with pytest.raises(error):
            call()
    assert cache.stats().insertions == 0
    cache.set_many([("a", 1)], ttl=5)
    cache.set_many(entries={"b": 2}, tti=5)
    assert cache.get_many(keys=("a", "b")) == {"a": 1, "b": 2}
    assert cache.remaining("a") is not None
    assert cache.get_with(key="a", initializer=lambda: 3) == 1


def test_a_miss_is_counted_once() -> None:
    """``get_with`` looks a key up once, whether it computes or not, also where another computation ended meanwhile."""
    cache: Moka[str, int] = Moka(None)
    assert cache.get_with("a", lambda: 1) == 1
    assert cache.get_with("a", lambda: 2) == 1
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions) == (1, 1, 1)
    mark = cache._flights.mark
    cache.get_with("b", lambda: 1)
    assert cache._flights.mark is not mark
    with pytest.raises(KeyError):
        cache.get_with("c", lambda: {}[1])  # type: ignore[index]
    assert cache.get("c") is None


def test_an_entry_that_does_not_fit_stops_the_batch() -> None:
    """Those before it are stored, and the error is that of ``set``."""
    cache: Moka[int, str] = Moka(None, memory_limit=1 << 20)
    entries = {0: "a", 1: "x" * 600_000, 2: "b"}
    with pytest.raises(EntryTooLargeError, match="limit"):
        cache.set_many(entries)
    assert cache.get_many(entries) == {0: "a"}


def test_iterables_that_use_or_close_the_cache() -> None:
    """An iterable of keys runs before the batch: it may use the cache, and close it."""
    cache: Moka[int, int] = Moka(None)

    def using() -> Iterator[int]:
        for number in range(5):
            cache.set(number, number)
            yield number

    assert cache.get_many(using()) == {number: number for number in range(5)}
    assert cache.remove_many(using()) == 5

    def closing() -> Iterator[int]:
        yield 1
        cache.close()

    for call in (cache.get_many, cache.remove_many):
        with pytest.raises(ClosedError):
            call(closing())
    with pytest.raises(ClosedError):
        cache.set_many({1: 1})
    with pytest.raises(ClosedError):
        cache.get_with(1, lambda: 1)


def test_finalizers_in_the_middle_of_a_batch() -> None:
    """The garbage collector may run while an answer is taken apart, and what it runs may use the cache."""
    cache: Any = Moka(None)
    entries = {number: {"list": [number]} for number in range(2000)}
    cache.set_many(entries)
    runs = []

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            runs.append(cache.get_many([1, 2]))
            cache.set_many({"finalizer": len(runs)})

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            Cyclic()
            assert cache.get_many(entries) == entries
    finally:
        gc.set_threshold(*before)
    assert runs
    assert all(run == {1: entries[1], 2: entries[2]} for run in runs)


def rebind(channel: Any, answer: int, data: str = "") -> None:
    """Binds the extension to a guest that always answers this."""
    from moka_wasm._direct_channel import _Lane

    guest = channel._guest
    names = ("get_many", "set_many", "remove_many")
    many = " ".join(f'(func (export "{name}") {MANY} (i64.const {answer}))' for name in names)
    exports = instance_of(
        f'(module {many} (func (export "get") {GET} unreachable) (func (export "set") {SET} unreachable))', channel
    )
    functions = [exports[name] for name in names]
    guest.functions = {
        **guest.functions,
        **{name: ctypes.addressof(function._func) for name, function in zip(names, functions, strict=True)},
    }
    guest.kept = functions
    lane = _Lane(guest, hot.MAILBOX)
    hot.bind(channel.binding, guest, lane)


@pytest.mark.parametrize("answer", [(1 << 32) | 0xFFFF_FFFF, 0x3FFF_FFFF << 32, (10 << 32) | 0xF000_0000])
def test_an_answer_outside_of_the_memory(answer: int) -> None:
    """A guest that says that its answer lies where it has no memory gives a SandboxError, and is not believed."""
    cache: Any = Moka(8)
    rebind(cache._channel, answer)
    for call in (lambda: cache.get_many(["a"]), lambda: cache.set_many({"a": 1}), lambda: cache.remove_many(["a"])):
        with pytest.raises(SandboxError, match="memory up to"):
            call()


@pytest.mark.parametrize("length", [0, 3, 4, 8, 4000])
@pytest.mark.parametrize("byte", [0, 1, 0x7F, 0xFF])
def test_an_answer_that_makes_no_sense(length: int, byte: int) -> None:
    """Bytes that are no answer are left to Python, which asks the guest itself."""
    cache: Any = Moka(8)
    cache.set_many({"a": 1, "b": 2})
    guest = cache._channel._guest
    lane = cache._channel._lane([])
    lane.mailbox[:length] = bytes([byte]) * length
    rebind(cache._channel, (length << 32) | lane.address)
    assert cache.get_many(["a", "b", "c"]) in ({"a": 1, "b": 2}, {"b": 2}, {})
    assert cache.set_many({"d": 4}) is None
    assert cache.remove_many(["a"]) == 1
    assert guest is cache._channel._guest


def test_no_time_is_told_until_an_entry_has_a_deadline() -> None:
    """Of a cache without deadlines the extension reads no clock; once an entry gets one, time counts."""
    for give in (
        lambda cache: cache.set("a", 1, ttl=0.000_001),
        lambda cache: cache.set("a", 1, tti=0.000_001),
        lambda cache: (cache.set("a", 1), cache.expire("a", 0.000_001)),
        lambda cache: cache.set_many({"a": 1}, ttl=0.000_001),
        lambda cache: cache.get_with("a", lambda: 1, ttl=0.000_001),
    ):
        cache: Moka[str, int] = Moka(None)
        cache.set("b", 2)
        give(cache)
        while cache.get("a") is not None:
            pass
        assert cache.get_many(["a", "b"]) == {"b": 2}
