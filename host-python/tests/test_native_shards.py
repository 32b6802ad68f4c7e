"""The extension's ways into a cache with shards: the same shards as in Python, and really taken."""

# pyright: basic

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native import KEYS, SERIALIZER, VALUES, types
from test_shards import shard_of, shards_of

import moka_wasm._hot as hot
from moka_wasm import Moka, cached
from moka_wasm._direct_channel import DirectChannel
from moka_wasm._keys import encode_key

pytestmark = pytest.mark.skipif(hot._native is None, reason="the extension is not here, or is turned off")


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whatever goes the long way."""

    def refuse(*_: object) -> None:
        raise AssertionError("this went the long way")

    for name in ("get", "set", "get_many", "store", "set_many", "remove_many", "_operate"):
        monkeypatch.setattr(DirectChannel, name, refuse)


@pytest.fixture(scope="module")
def shared() -> Moka[Any, Any]:
    cache: Moka[Any, Any] = Moka(100, shards=5)
    assert all(shard.binding.bound for shard in shards_of(cache))
    return cache


@pytest.mark.usefixtures("no_python")
@pytest.mark.parametrize("shards", [1, 2, 7, 256])
def test_the_short_ways_are_taken(shards: int) -> None:
    """Nothing of what is common is done in Python, hit or miss."""
    cache: Any = Moka(None, shards=shards)
    for key in range(50):
        assert cache.get(key) is None
        cache.set(key, key)
        cache[("t", key)] = [key]
        assert cache.get(key) == cache[key] == cache.get_with(key, lambda: "computed") == key
        assert cache._get_encoded(encode_key(key)) == SERIALIZER.dumps(key)
    keys = [*range(50), *(("t", key) for key in range(50))]
    cache.set_many(dict.fromkeys(keys, "new"))
    assert cache.get_many([*keys, "absent"]) == dict.fromkeys(keys, "new")
    assert cache.remove_many([*keys, "absent"]) == 100
    assert cache.get_many(keys) == {}


def test_cached_functions_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hits is answered by the extension."""
    calls: list[int] = []

    @cached(maxsize=None, shards=7)
    def function(number: int, *, named: str = "") -> str:
        calls.append(number)
        return f"{number}{named}"

    assert type(function).__name__ == "CachedFunction"
    expected = [function(number, named="x") for number in range(30)]

    def refuse(*_: object) -> None:
        raise AssertionError("this went the long way")

    monkeypatch.setattr(DirectChannel, "get", refuse)
    assert [function(number, named="x") for number in range(30)] == expected
    assert calls == list(range(30))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=300)
@given(KEYS, VALUES)
def test_python_finds_what_the_extension_stored(shared: Moka[Any, Any], key: Any, value: Any) -> None:
    """Both look for any key in the same shard."""
    shared.set(key, value)
    assert shard_of(shared, key).get(encode_key(key)) == SERIALIZER.dumps(value)
    assert types(shared.get(key)) == types(value)
    shared.clear()
    shared._channel.set(encode_key(key), SERIALIZER.dumps(value))
    assert types(shared.get(key)) == types(shared[key]) == types(value)
    assert types(shared.get_many([key])) == types({key: value})
    assert shared.remove_many([key]) == 1
    shared.set_many({key: value})
    assert shard_of(shared, key).get(encode_key(key)) == SERIALIZER.dumps(value)


@pytest.mark.parametrize("size", [0, 254, 255, 256, 257, 16_000, 16_384, 100_000])
def test_long_keys(shared: Moka[Any, Any], size: int) -> None:
    """A key that is too long for the short way is in its shard as well."""
    for key in ("x" * size, ("x" * size, 1)):
        shared.set(key, size)
        assert shared.get(key) == shared[key] == size
        assert shared.get_many([key]) == {key: size}
        assert shard_of(shared, key).get(encode_key(key)) == SERIALIZER.dumps(size)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=30), st.lists(KEYS, max_size=10), st.sets(st.integers(0, 2)))
def test_batches_do_what_python_does(entries: list[tuple[Any, Any]], others: list[Any], unbound: set[int]) -> None:
    """The same entries, answers, exceptions and counters, whichever of the shards the extension has a way into."""
    caches: list[Any] = [Moka(None, shards=3), Moka(None, shards=3)]
    for number in range(3):
        shards_of(caches[1])[number].binding.unbind()
        if number in unbound:
            shards_of(caches[0])[number].binding.unbind()
    keys = [key for key, _ in entries]
    calls: tuple[Callable[[Any], Any], ...] = (
        lambda cache: cache.set_many(dict(entries)),
        lambda cache: list(cache.get_many([*others, *keys, *keys]).items()),
        lambda cache: [cache.get_with(key, lambda: "computed") for key in [*others, *keys]],
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


def test_finalizers_in_the_middle_of_a_batch() -> None:
    """The garbage collector may run while an answer is taken apart, and what it runs may use the cache."""
    cache: Any = Moka(None, shards=3)
    entries = {number: {"list": [number]} for number in range(500)}
    cache.set_many(entries)
    runs = []

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            runs.append(cache.get_many([1, 2, 3]))
            cache.set_many({"finalizer": len(runs), "other": 1})

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            Cyclic()
            assert cache.get_many(entries) == entries
    finally:
        gc.set_threshold(*before)
    assert runs
    assert all(run == {key: entries[key] for key in (1, 2, 3)} for run in runs)


def test_a_cache_in_a_cycle_is_collected() -> None:
    """A clock that refers to the cache keeps none of its shards alive."""
    import weakref

    class Clock:
        cache: Any = None

        def __call__(self) -> float:
            return 1.0

    clock = Clock()
    clock.cache = Moka(8, clock=clock, shards=3)
    reference = weakref.ref(clock)
    del clock
    gc.collect()
    assert reference() is None


def test_a_cache_without_a_way_in_is_refused() -> None:
    """The extension takes no empty list of shards."""
    cache: Any = Moka(8, serializer="pickle")
    with pytest.raises(ValueError, match="binding"):
        cache._attach([], True, repr, [], None)
