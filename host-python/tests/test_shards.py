"""``shards=``: one cache over several sandboxes, whose shards nobody sees but for the room and the traps of each."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from test_single_flight import GUARD, Threads
from test_threads import in_child, in_threads, is_of, value_of

from moka_wasm import ClosedError, ConfigError, EntryTooLargeError, Moka, cached, cached_method
from moka_wasm import _sharded_channel as sharded
from moka_wasm._channel import CacheConfig, Entry
from moka_wasm._keys import encode_key

MIB = 1 << 20


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


SEVERAL = pytest.mark.parametrize("shards", [2, 7])


def shards_of(cache: Any) -> list[Any]:
    """The channel of each shard."""
    channel = getattr(cache, "_channel", cache)
    return [getattr(shard, "_channel", shard) for shard in channel._shards]


def shard_of(cache: Any, key: Any) -> Any:
    """The channel of this key's shard."""
    direct = cache._channel._shard(encode_key(key))
    return getattr(direct, "_channel", direct)


def key_in(cache: Any, shard: int, *, below: int = 10_000) -> int:
    """A key of this shard."""
    return next(key for key in range(below) if shard_of(cache, key) is shards_of(cache)[shard])


def a_channel(shards: int, **options: Any) -> sharded.ShardedChannel:
    return sharded.ShardedChannel(sharded.open_shards(CacheConfig(**options), shards))


# The same answers as one sandbox gives.

ENTRIES = {key: [key, "value"] for key in [*range(40), "text", ("a", 1), None, 2.5, b"bytes", frozenset({1})]}

ANSWERS: dict[str, Callable[[Moka[Any, Any], Clock], Any]] = {
    "get": lambda cache, _: [cache.get(key, 7) for key in [*ENTRIES, "absent"]],
    "equal keys": lambda cache, _: [cache[1], cache[1.0], cache[True]],
    "get item": lambda cache, _: cache["text"],
    "error: a missing item": lambda cache, _: cache["absent"],
    "error: a missing item to delete": lambda cache, _: cache.__delitem__("absent"),
    "delete": lambda cache, _: (cache.__delitem__("text"), "text" in cache, len(cache)),
    "in": lambda cache, _: ("text" in cache, "absent" in cache),
    "len and count": lambda cache, _: (len(cache), cache.count(), cache.weighted_size(), bool(cache)),
    "iteration": lambda cache, _: sorted(cache, key=repr),
    "keys, values and items": lambda cache, _: (
        cache.keys() == ENTRIES.keys(),
        sorted(cache.values(), key=repr),
        sorted(cache.items(), key=repr),
        ["absent", "value"] in cache.values(),
    ),
    "pop": lambda cache, _: (cache.pop(3), cache.pop(3, "gone"), len(cache)),
    "error: a pop of nothing": lambda cache, _: cache.pop("absent"),
    "popitem": lambda cache, _: (dict(cache.popitem() for _ in range(len(ENTRIES))) == ENTRIES, len(cache)),
    "error: a popitem of nothing": lambda cache, _: (cache.clear(), cache.popitem()),
    "setdefault": lambda cache, _: (cache.setdefault("new", 1), cache.setdefault("new", 2), cache.setdefault(3, 4)),
    "update": lambda cache, _: (cache.update({3: "three"}, four=4), cache[3], cache["four"]),
    "set": lambda cache, _: ([cache.set(key, "new") for key in ENTRIES], sorted(cache.values())),
    "set with lives": lambda cache, clock: (
        cache.set(1, "a", ttl=5),
        cache.set(2, "b", tti=5),
        clock.advance(3),
        cache[2],
        clock.advance(3),
        [cache.get(key) for key in (1, 2, 3)],
    ),
    "get_with": lambda cache, _: [cache.get_with(key, lambda: "computed") for key in (1, "new", "new", 2)],
    "error: get_with that raises": lambda cache, _: cache.get_with("new", lambda: {}["missing"]),
    "remove": lambda cache, _: [cache.remove(key, "gone") for key in (1, 1, "text", "absent")],
    "clear": lambda cache, _: (cache.clear(), len(cache), list(cache), cache.get(1)),
    "expire and remaining": lambda cache, clock: (
        [cache.expire(key, 2 * key + 1) for key in range(40)],
        clock.advance(20),
        [cache.remaining(key) for key in [*range(40), "text"]],
        cache.expire("absent", None),
        cache.expire(30, None),
        cache.remaining(30),
        len(cache),
    ),
    "get_many": lambda cache, _: list(cache.get_many(["absent", *reversed(ENTRIES), 1, 1.0]).items()),
    "set_many": lambda cache, _: (cache.set_many([(key, key) for key in range(60)]), cache.get_many(range(60))),
    "set_many with lives": lambda cache, clock: (
        cache.set_many({key: key for key in range(20)}, ttl=5),
        clock.advance(6),
        cache.get_many(ENTRIES),
    ),
    "remove_many": lambda cache, _: (cache.remove_many([*range(20), *range(10), "absent"]), sorted(cache, key=repr)),
    "empty batches": lambda cache, _: (cache.get_many([]), cache.set_many({}), cache.remove_many([]), len(cache)),
    "error: a bad key": lambda cache, _: cache.get([]),
    "error: a bad key in a batch": lambda cache, _: cache.get_many([1, []]),
    "error: a bad value in a batch": lambda cache, _: cache.set_many({1: 1, 2: lambda: 0}),
    "error: a bad life": lambda cache, _: cache.set(1, 1, ttl=-1),
}


def outcome(question: Callable[[Moka[Any, Any], Clock], Any], shards: int) -> Any:
    """What comes of it, and what the cache then holds and has counted."""
    clock = Clock()
    cache: Moka[Any, Any] = Moka(10_000, clock=clock, shards=shards)
    cache.update(ENTRIES)
    try:
        answer = question(cache, clock)
    except Exception as error:
        answer = ("raised", type(error), str(error))
    stats = cache.stats()
    counted = (stats.hits, stats.misses, stats.insertions, stats.replaced, stats.expired + stats.entries)
    return answer, sorted(cache.items(), key=repr), counted


@SEVERAL
@pytest.mark.parametrize("question", ANSWERS)
def test_answers_are_those_of_one_sandbox(question: str, shards: int) -> None:
    """Every method answers, raises, stores and counts with shards as without."""
    expected = outcome(ANSWERS[question], 1)
    assert (type(expected[0]) is tuple and expected[0][0] == "raised") == question.startswith("error: "), expected[0]
    assert outcome(ANSWERS[question], shards) == expected


# Where keys go.


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize(
    "make", [int, lambda number: number * 1024, lambda number: f"user:{number:08}", lambda number: (number, "x")]
)
def test_keys_are_spread(make: Callable[[int], Any], count: int) -> None:
    """Whatever keys have in common, each shard has about as many as any other (by ten standard deviations)."""
    cache: Moka[Any, int] = Moka(None, shards=count)
    cache.update({make(number): number for number in range(8000)})
    if count == 1:
        assert len(cache) == 8000
        return
    held = [shard.counters().entries for shard in shards_of(cache)]
    assert sum(held) == 8000
    assert all(abs(entries - 8000 / count) < 10 * math.sqrt(8000 / count) for entries in held)


def test_the_spread_is_another_one_in_each_process() -> None:
    """Nobody can find out in one process which keys go to one shard in another."""
    program = """
        from moka_wasm import Moka
        cache = Moka(None, shards=256)
        print([cache._channel._hash(b"%d" % key) % 256 for key in range(20)])
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    seen = {subprocess.run(command, env=environment, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(seen) == 2


# Room.


@pytest.mark.parametrize("shards", [1, 2, 7, 256])
@pytest.mark.parametrize("capacity", [0, 256, 257, 1000, 2**64 - 2, None])
def test_the_parts_sum_up_to_the_capacity(capacity: int | None, shards: int) -> None:
    """No weight of the capacity is lost or given twice, and no two parts differ by more than 1."""
    parts = sharded._split(capacity, shards)
    assert len(parts) == shards
    if capacity is None:
        assert set(parts) == {None}
    else:
        numbers = [part for part in parts if part is not None]
        assert sum(numbers) == capacity
        assert max(numbers) - min(numbers) <= 1


@SEVERAL
@pytest.mark.parametrize("policy", ["lru", "tiny_lfu"])
@pytest.mark.parametrize("capacity", [7, 10, 100])
def test_the_capacity_holds(capacity: int, policy: Any, shards: int) -> None:
    """The cache never has more entries than its capacity once the pending tasks are done."""
    cache: Moka[int, int] = Moka(capacity, policy=policy, shards=shards)
    for key in range(1000):
        cache[key] = key
        if key % 50 == 0:
            assert len(cache) <= capacity
    assert len(cache) <= capacity
    assert cache.weighted_size() <= capacity
    assert cache.stats().size == 1000 - len(cache)
    if policy == "lru":
        assert len(cache) == capacity


@SEVERAL
def test_no_capacity_at_all(shards: int) -> None:
    """A capacity of 0 keeps nothing, with any number of shards."""
    cache: Moka[int, int] = Moka(0, shards=shards)
    cache.update({key: key for key in range(100)})
    assert len(cache) == 0


@SEVERAL
def test_weights(shards: int) -> None:
    """An entry that is heavier than its shard's part of the capacity is removed at once, with cause "size"; as heavy as
    that it stays."""
    told: list[Any] = []
    cache: Moka[int, int] = Moka(
        10 * shards,
        eviction_listener=lambda *removal: told.append(removal),
        weigher=lambda _, value: value,
        shards=shards,
    )
    keys = [key_in(cache, shard) for shard in range(shards)]
    for key in keys:
        cache[key] = 10
    assert (len(cache), cache.weighted_size(), told) == (shards, 10 * shards, [])
    cache.clear()
    told.clear()
    cache[keys[0]] = 11
    cache.run_pending_tasks()
    assert (len(cache), told) == (0, [(keys[0], 11, "size")])


@SEVERAL
def test_the_memory_limit_holds(shards: int) -> None:
    """The shards together take no more memory than the limit, and evict instead of failing."""
    limit = shards * MIB + 5
    cache: Moka[int, bytes] = Moka(None, memory_limit=limit, shards=shards)
    assert sum(shard._config.memory_limit for shard in shards_of(cache)) == limit
    for key in range(4000):
        cache[key] = b"x" * 4000
    assert cache.stats().memory_bytes <= limit
    assert 0 < len(cache) < 4000
    assert cache.stats().size > 0


# Batches.


@SEVERAL
def test_batches_of_any_size(shards: int) -> None:
    """As many keys and as large values as one likes go to all shards at once; answers are in the order of the keys."""
    cache: Moka[Any, Any] = Moka(None, shards=shards)
    for entries in (
        {number: str(number) for number in range(5000)},
        {f"{number}" + "k" * 300: ["v" * 500, number] for number in range(500)},
        {number: "x" * (40_000 if number % 3 else 5) for number in range(50)},
    ):
        cache.set_many(entries)
        keys = [*reversed(entries), "absent"]
        assert list(cache.get_many(keys)) == keys[:-1]
        assert cache.get_many(keys) == entries
        assert {number: value for number, value in cache.items() if number in entries} == entries
        assert cache.remove_many(keys) == len(entries)
        assert cache.get_many(keys) == {}
    assert len(cache) == 0


@SEVERAL
def test_the_same_key_twice_in_a_batch(shards: int) -> None:
    """Of several values for one key the last one stays."""
    cache: Moka[int, int] = Moka(None, shards=shards)
    pairs = [(key % 20, key) for key in range(100)]
    cache.set_many(pairs)
    assert cache.get_many(range(20)) == dict(pairs)
    channel = a_channel(shards)
    channel.set_many([Entry(b"%d" % key, b"%d" % value) for key, value in pairs])
    assert channel.get_many([b"3", b"3", b"absent", b"4"]) == [b"83", b"83", None, b"84"]


@SEVERAL
@pytest.mark.parametrize("as_dict", [True, False])
def test_an_entry_that_does_not_fit_in_a_batch(as_dict: bool, shards: int) -> None:
    """The error is that of the first entry that is refused, and every entry before it is stored, in whatever shard."""
    for first in range(5, 40, 7):
        cache: Moka[int, bytes] = Moka(None, memory_limit=shards * MIB, shards=shards)
        entries = dict.fromkeys(range(60), b"small")
        entries[first] = b"x" * 2_000_000
        # Others, later on, in every shard.
        entries.update(dict.fromkeys(range(first + 1, 60, 2), b"x" * 3000000))
        with pytest.raises(EntryTooLargeError) as alone:
            cache.set(first, entries[first])
        with pytest.raises(EntryTooLargeError) as together:
            cache.set_many(entries if as_dict else list(entries.items()))
        assert str(together.value) == str(alone.value)
        assert cache.get_many(range(first)) == dict.fromkeys(range(first), b"small")
        assert set(cache.values()) == {b"small"}


# Removals.


@SEVERAL
def test_every_removal_is_told_once(shards: int) -> None:
    """The listener is told of each entry that left, once and with its cause, whichever shard it was in."""
    told: list[Any] = []
    clock = Clock()
    cache: Moka[int, str] = Moka(
        210, eviction_listener=lambda *removal: told.append(removal), clock=clock, policy="lru", shards=shards
    )
    cache.set_many(dict.fromkeys(range(60), "old"))
    cache.set_many(dict.fromkeys(range(30), "new"))
    assert Counter(told) == Counter((key, "old", "replaced") for key in range(30))
    told.clear()
    assert cache.remove_many(range(10)) == 10
    del cache[10]
    assert Counter(told) == Counter((key, "new", "explicit") for key in range(11))
    told.clear()
    for key in range(11, 20):
        cache.expire(key, 5)
    clock.advance(60)
    cache.run_pending_tasks()
    assert Counter(told) == Counter((key, "new", "expired") for key in range(11, 20))
    told.clear()
    cache.set_many(dict.fromkeys(range(1000, 3000), "more"))
    left = len(cache)
    assert left == 210
    assert {cause for _, _, cause in told} == {"size"}
    assert len(told) == len(set(told)) == 2000 + 40 - 210
    told.clear()
    cache.clear()
    assert len(told) == len(set(told)) == 210
    assert {cause for _, _, cause in told} == {"explicit"}
    cache.run_pending_tasks()
    assert len(told) == 210
    stats = cache.stats()
    assert stats.insertions == stats.explicit + stats.replaced + stats.expired + stats.size


@SEVERAL
def test_a_listener_that_is_interrupted(shards: int) -> None:
    """What was not told when an interrupt left the listener, is told with a later operation."""
    told: list[int] = []

    def listener(key: int, _: int, __: str) -> None:
        told.append(key)
        if len(told) in (100, 300):
            raise KeyboardInterrupt

    cache: Moka[int, int] = Moka(None, eviction_listener=listener, shards=shards)
    cache.update({number: number for number in range(600)})
    with pytest.raises(KeyboardInterrupt):
        cache.clear()
    with pytest.raises(KeyboardInterrupt):
        cache.get(0)
    cache.get(0)
    assert sorted(told) == list(range(600))


@SEVERAL
def test_a_listener_that_uses_the_cache(shards: int) -> None:
    """A listener may change the cache; what leaves by that is told, too."""
    told: list[Any] = []

    def listener(key: int, value: int, cause: str) -> None:
        told.append((key, cause))
        if key < 100:
            cache[key + 100] = value
            del cache[key + 100]

    cache: Moka[int, int] = Moka(None, eviction_listener=listener, shards=shards)
    cache.update({number: number for number in range(100)})
    cache.clear()
    assert sorted(told) == [(number, "explicit") for number in range(200)]


@SEVERAL
def test_draining_by_parts(shards: int) -> None:
    """However few removals are asked for at once, all come out, once."""
    channel = a_channel(shards, removal_log=10_000)
    channel.set_many([Entry(b"%d" % key, b"") for key in range(300)])
    channel.clear()
    drained: list[bytes] = []
    while channel.removals_wait:
        removals, lost = channel.drain(7)
        assert len(removals) <= 7
        assert lost == 0
        drained += [removal.key for removal in removals]
    assert sorted(drained) == sorted(b"%d" % key for key in range(300))
    assert channel.drain(7) == ([], 0)


# Walks.


@SEVERAL
def test_a_walk_over_a_cache_that_changes(shards: int) -> None:
    """Each key that was live when the walk began and stays is met once; new ones are not met, removed ones may be left
    out."""
    cache: Moka[int, int] = Moka(None, shards=shards)
    cache.update({key: key for key in range(5000)})
    met: list[int] = []
    for key in cache:
        met.append(key)
        cache[10_000 + key] = key
        cache[key] = -key
        cache.remove((key * 7 + 1) % 5000 if key % 2 else -1)
    assert len(met) == len(set(met))
    assert set(met) <= set(range(5000))
    assert set(met) >= {key for key in range(5000) if key in cache}
    cache.clear()
    assert list(cache) == []


@SEVERAL
def test_a_walk_that_is_given_up(shards: int) -> None:
    """A cursor that is closed early, or twice, leaves nothing behind, and others go on."""
    channel = a_channel(shards)
    channel.set_many([Entry(b"%d" % key, b"") for key in range(100)])
    given_up, other = channel.keys(), channel.keys()
    assert 1 <= len(given_up.next(10)) <= 10
    given_up.close()
    given_up.close()
    met: list[bytes] = []
    while page := other.next(9):
        assert len(page) <= 9
        met += page
    assert other.next(9) == []
    assert sorted(met) == sorted(b"%d" % key for key in range(100))


# Counters.


@SEVERAL
def test_counters_are_summed_up(shards: int) -> None:
    """Each counter is that of the whole cache, and so is the memory."""
    cache: Moka[int, int] = Moka(None, shards=shards)
    cache.update({key: key for key in range(100)})
    cache.update({key: key for key in range(50)})
    for key in range(150):
        cache.get(key)
    cache.remove_many(range(30))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.insertions) == (100, 50, 150)
    assert (stats.explicit, stats.replaced, stats.expired, stats.size) == (30, 50, 0, 0)
    assert (stats.entries, stats.weight, stats.restarts, stats.removals_lost) == (70, 70, 0, 0)
    assert stats.memory_bytes == sum(shard.counters().memory_bytes for shard in shards_of(cache))


# Arguments.


@pytest.mark.parametrize("wrong", [True, 1.0, "2", None, [1]])
def test_a_number_of_shards_that_is_no_int(wrong: Any) -> None:
    """A TypeError names the argument and what it got."""
    with pytest.raises(TypeError, match=f"shards must be an int, got {type(wrong).__name__}"):
        Moka(None, shards=wrong)
    with pytest.raises(TypeError, match="shards"):
        cached(shards=wrong)(lambda: None)


@pytest.mark.parametrize("wrong", [0, -1, 257, 2**70])
def test_a_number_of_shards_that_is_out_of_range(wrong: int) -> None:
    """A ValueError names the argument, its range and what it got."""
    with pytest.raises(ConfigError, match=f"shards must be from 1 to 256, got {wrong}"):
        Moka(None, shards=wrong)
    with pytest.raises(ValueError, match="shards"):
        cached_method(shards=wrong)(lambda self: None)


def test_too_little_for_so_many_shards() -> None:
    """A capacity, or a memory limit, of which a shard would get nothing is a ValueError that names both arguments and
    the remedy."""
    with pytest.raises(ConfigError, match=r"capacity=6 and shards=7; use a larger capacity or fewer shards"):
        Moka(6, shards=7)
    with pytest.raises(ConfigError, match=r"capacity=128 and shards=129"):
        cached(shards=129)(lambda: None)
    with pytest.raises(
        ConfigError, match=rf"memory_limit={2 * MIB - 1} and shards=2; use a larger memory_limit or fewer"
    ):
        Moka(None, memory_limit=2 * MIB - 1, shards=2)
    with pytest.raises(ConfigError, match=r"memory_limit=0 and shards=2"):
        Moka(None, memory_limit=0, shards=2)
    for cache in (Moka[int, int](7, shards=7), Moka[int, int](0, shards=7), Moka[int, int](1, shards=1)):
        cache.close()
    Moka[int, int](None, memory_limit=2 * MIB, shards=2).close()


def test_a_shard_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one of the sandboxes cannot be had, the error is told and the others are given back."""
    opened: list[Any] = []
    works = sharded.DirectChannel

    def open_three(config: CacheConfig) -> Any:
        if len(opened) == 3:
            raise MemoryError("no address space")
        opened.append(works(config))
        return opened[-1]

    monkeypatch.setattr(sharded, "DirectChannel", open_three)
    with pytest.raises(MemoryError, match="no address space"):
        Moka(None, shards=7)
    assert [channel._guest for channel in opened] == [None] * 3


# The end.


@SEVERAL
def test_a_closed_cache(shards: int) -> None:
    """After close, which may come again, no shard keeps its sandbox, and every use is a ClosedError."""
    with Moka[int, int](None, shards=shards, eviction_listener=lambda *_: None) as cache:
        cache.update({key: key for key in range(100)})
        walk = iter(cache)
        next(walk)
    cache.close()
    assert [shard._guest for shard in shards_of(cache)] == [None] * shards
    uses: list[Callable[[], Any]] = [
        lambda: cache.get(1), lambda: cache.set(1, 1), lambda: cache[1], lambda: 1 in cache, lambda: len(cache),
        lambda: list(cache), lambda: cache.get_many([1, 2]), lambda: cache.set_many({1: 1}), cache.clear, cache.stats,
        lambda: cache.remove_many([1, 2]), lambda: cache.get_with(1, lambda: 1), lambda: cache.expire(1, 1),
        lambda: cache.remaining(1), cache.run_pending_tasks, cache.__enter__,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ClosedError):
            use()


# Leases.


@SEVERAL
def test_leases_belong_to_their_shards(shards: int) -> None:
    """Leases of all shards are different, and each one fills, or releases, its own key's entry."""
    channel = a_channel(shards)
    keys = [b"%d" % key for key in range(50)]
    leases: dict[bytes, Any] = {key: channel.lookup(key, 10**15) for key in keys}
    assert all(isinstance(lease, int) for lease in leases.values())
    assert len(set(leases.values())) == 50
    assert [channel.lookup(key, 10**15) for key in keys] == [None] * 50
    for key in keys[:25]:
        assert channel.fill(leases[key], b"value of " + key) is True
        assert channel.fill(leases[key], b"again") is False
    for key in keys[25:]:
        channel.release(leases[key])
        channel.release(leases[key])
    assert channel.get_many(keys) == [b"value of " + key for key in keys[:25]] + [None] * 25
    assert all(isinstance(channel.lookup(key, 1), bytes) for key in keys[:25])
    assert all(isinstance(channel.lookup(key, 1), int) for key in keys[25:])
    channel.close()
    assert channel.fill(leases[keys[30]], b"late") is False
    channel.release(leases[keys[30]])


# Threads, tasks and forks.


@SEVERAL
def test_threads(shards: int) -> None:
    """Threads that use all shards at once find each key with a value of its own, or without one."""
    cache: Moka[int, Any] = Moka(150, shards=shards)

    def use(thread: int) -> None:
        for step in range(60):
            key = (thread * 13 + step * 7) % 200
            cache[key] = value_of(key, step)
            assert all(is_of(value, key) for key, value in cache.get_many(range(key, key + 5)).items())
            assert is_of(cache.get_with(key, lambda key=key: value_of(key)), key)
            if step % 20 == 0:
                assert all(is_of(value, key) for key, value in cache.items())
                cache.remove(key)

    assert in_threads(use, 8) == [None] * 8
    assert len(cache) <= 150


@SEVERAL
def test_one_computation_a_key(shards: int) -> None:
    """``get_with`` computes once for all threads that ask for a key at the same time."""
    cache: Moka[int, int] = Moka(None, shards=shards)
    computed: list[int] = []

    def compute(key: int) -> int:
        computed.append(key)
        return key

    def use(_: int) -> list[int]:
        return [cache.get_with(key, lambda key=key: compute(key)) for key in range(50)]  # type: ignore[misc]

    assert in_threads(use, 8) == [list(range(50))] * 8
    assert sorted(computed) == list(range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("timeout", [None, 600])
def test_a_fork(timeout: float | None) -> None:
    """A child finds every entry in its shard, and changes them for itself alone."""
    cache: Moka[int, int] = Moka(None, shards=7, operation_timeout=timeout)
    cache.update({key: key for key in range(100)})

    def child() -> None:
        assert cache.get_many(range(100)) == {key: key for key in range(100)}
        assert [cache[key] for key in range(100)] == list(range(100))
        cache.clear()
        cache.update({key: -key for key in range(100)})
        assert sum(cache.values()) == -4950

    assert in_child(child) == 0
    assert [cache[key] for key in range(100)] == list(range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("timeout", [None, 600])
def test_a_fork_while_threads_use_the_shards(timeout: float | None) -> None:
    """A child that was forked while threads were inside of all shards has a cache that works in each of them, and can
    open and close others; the parent's goes on, apart from it."""
    cache: Moka[int, Any] = Moka(None, shards=3, operation_timeout=timeout)
    keys = range(150)
    cache.update({key: value_of(key) for key in keys})
    over = threading.Event()
    inside = [threading.Event() for _ in range(3)]
    threads = Threads()

    def use(event: threading.Event, start: int) -> str:
        step = start
        while not over.is_set():
            step += 1
            key = step % 150
            cache[key] = value_of(key, step)
            assert is_of(cache[step * 7 % 150], step * 7 % 150)
            cache.set_many({other: value_of(other) for other in range(key, min(key + 9, 150))})
            assert all(is_of(value, other) for other, value in cache.get_many(range(key, key + 9)).items())
            if step % 50 == 0:
                assert set(cache) == set(keys)
            event.set()
        return "fine"

    def child() -> None:
        for key in keys:
            assert is_of(cache[key], key)
            cache[key] = "child"
        assert cache.get_many(keys) == dict.fromkeys(keys, "child")
        assert set(cache.values()) == {"child"}
        assert len(cache) == 150
        assert cache.get_with(1000, lambda: 1) == 1
        assert cache.remove_many(keys) == 150
        with Moka[int, int](8, shards=3) as another:
            another[1] = 2
            assert another[1] == 2
        cache.clear()
        cache.close()
        with pytest.raises(ClosedError):
            cache.get(1)

    for number, event in enumerate(inside):
        threads.start(lambda event=event, number=number: use(event, number * 50))  # type: ignore[misc]
    try:
        assert all(event.wait(GUARD) for event in inside)
        statuses = [in_child(child) for _ in range(10)]
    finally:
        over.set()
    assert threads.join() == ["fine"] * 3
    assert statuses == [0] * 10
    assert {key for key, value in cache.items() if is_of(value, key)} == set(keys)


# Decorators.


@SEVERAL
@pytest.mark.parametrize("wait", [False, True])
def test_cached_functions(wait: bool, shards: int) -> None:
    """``cached`` computes each call once, tells its shards, and clears and invalidates in all of them."""
    calls: list[int] = []

    @cached(maxsize=None, wait_concurrent=wait, shards=shards)
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    for _ in range(3):
        assert [double(number) for number in range(50)] == [2 * number for number in range(50)]
    assert calls == list(range(50))
    assert double.cache_info() == (100, 50, None, 50)
    assert double.cache_parameters()["shards"] == shards
    assert len(shards_of(double.cache)) == shards
    assert [double.cache_invalidate(number) for number in (3, 3)] == [True, False]
    assert double(3) == 6
    assert len(calls) == 51
    double.cache_clear()
    assert double.cache_info() == (0, 0, None, 0)


def test_cached_functions_have_one_shard_unless_they_ask_for_more() -> None:
    """Without the argument there is one sandbox, reached as directly as before."""
    function = cached(lambda: 1)
    assert function.cache_parameters()["shards"] == 1
    assert not hasattr(function.cache._channel, "_shards")


@SEVERAL
def test_cached_coroutines_and_methods(shards: int) -> None:
    """Coroutine functions, and methods for each instance, are cached in shards as in one sandbox."""
    calls: list[Any] = []

    @cached(wait_concurrent=True, shards=shards)
    async def double(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        return 2 * number

    async def main() -> list[int]:
        return await asyncio.gather(*(double(number % 10) for number in range(50)))

    assert asyncio.run(main()) == [2 * (number % 10) for number in range(50)]
    assert sorted(calls) == list(range(10))
    calls.clear()

    class Rates:
        @cached_method(shards=shards)
        def of(self, number: int) -> int:
            calls.append(number)
            return number

    one, other = Rates(), Rates()
    for _ in range(2):
        assert [one.of(number) for number in range(10)] == [other.of(number) for number in range(10)]
    assert len(calls) == 20
    del other
    assert Rates.of.cache_info().currsize == 10
    assert Rates.of.cache_parameters()["shards"] == shards
