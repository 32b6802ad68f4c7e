"""The short run of ``memory_pressure``, proof that its checks can fail, and what it has found."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import contextlib
import gc
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from memory_pressure import (
    LIMITS,
    MIB,
    PAGE,
    Model,
    Refusing,
    Steps,
    WrongAnswerError,
    linear_memory,
    random_operations,
    refusals,
    under_limit,
)

from moka_wasm import EntryTooLargeError, GuestMemoryError, Moka, SandboxError
from moka_wasm._channel import CacheConfig, Entry
from moka_wasm._direct_channel import _MAILBOX, DirectChannel, _Lane


@pytest.mark.parametrize("limit", LIMITS)
def test_random_operations_under_a_limit(limit: int) -> None:
    """Whatever is stored under a memory limit, answers are right, the limit holds and nothing traps."""
    counts = under_limit(limit, 0, 1500)
    assert counts["stored"] > 100
    assert counts["present"] > 0


@pytest.mark.parametrize("limit", [None, 2 * MIB])
@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_memory_that_is_refused(limit: int | None, lasting: bool, seed: int) -> None:
    """A host that refuses memory at any point, for good or once, finds a cache that answers or refuses cleanly."""
    points = list(refusals(limit, seed * 50, lasting=lasting, seed=seed, step=6))
    assert not points[0][1].endswith(", 0 refused")
    assert points[-1][1].endswith(", 0 refused")


def test_refusals_from_the_opening_on() -> None:
    """A host that grants next to nothing beyond what there was when the cache was opened: reads and lookups, which come
    upon tables that are not made yet, never trap."""
    for seed in range(60):
        for pages in range(4):
            refusing = Refusing(None, seed % 2 * 50)
            refusing.cap(refusing.first + pages * PAGE)
            running = random_operations(refusing.model, Steps(), random.Random(seed), 2 * MIB)
            for _ in range(150):
                next(running)
            refusing.model.check_all()
            refusing.channel.close()


@pytest.mark.parametrize("operation", ["get_many", "lookup", "get", "set"])
def test_one_operation_with_no_more_memory(operation: str) -> None:
    """From the opening on the host grants nothing: the same operation with ever new keys is answered or refused."""
    refusing = Refusing(None)
    refusing.cap(refusing.first)
    channel = refusing.channel
    for number in range(3000):
        key = b"key %d" % number
        refusing.model.attempt(
            {
                "get_many": lambda key=key, number=number: channel.get_many([key, b"%d" % (number % 50)]),
                "lookup": lambda key=key: channel.lookup(key, 10**18),
                "get": lambda key=key: channel.get(key),
                "set": lambda key=key: channel.set(key, b"v"),
            }[operation]
        )
    assert channel.counters().restarts == 0


def test_a_lookup_without_memory_for_a_lease_is_a_miss() -> None:
    """It is counted, as any lookup that finds nothing."""
    refusing = Refusing(None)
    refusing.cap(refusing.first)
    lookups = 0

    def look_up_ever_new_keys() -> None:
        nonlocal lookups
        for lookups in range(1, 3000):
            refusing.channel.lookup(b"key %d" % lookups, 10**18)

    with pytest.raises(GuestMemoryError):
        look_up_ever_new_keys()
    assert refusing.channel.counters().misses == lookups


@pytest.mark.parametrize("operation", ["set", "expire"])
def test_the_first_deadline_without_memory(operation: str) -> None:
    """The first deadline of a large cache has all entries move: where there is no memory for that, it is refused, or
    costs its own entry alone."""
    refusing = Refusing(None)
    channel = refusing.channel
    for number in range(30_000):
        channel.set(b"%d" % number, b"v")
    refusing.cap(refusing.memory())
    if operation == "set":
        with pytest.raises(GuestMemoryError):
            channel.set(b"1", b"w", 1, 10**18)
        assert channel.get(b"1") == b"v"
    else:
        assert not channel.expire(b"1", 10**18)
        assert channel.get(b"1") is None
        assert channel.counters().size == 1
    assert channel.get(b"2") == b"v"
    assert channel.counters().restarts == 0
    refusing.cap(1 << 32)
    channel.set(b"1", b"w", 1, 10**18)
    assert channel.remaining(b"1") == 10**18


def test_a_large_cache_that_is_half_full() -> None:
    """When a cache is half full moka makes a sketch of how often keys were asked for, a large one for a large cache:
    where there is no memory for it, entries are refused before."""
    batches = [[Entry(b"%d" % (start + n), b"v") for n in range(1000)] for start in range(0, 210_000, 1000)]
    for pages in range(0, 48, 4):
        channel = DirectChannel(CacheConfig(capacity=400_000))
        for batch in batches[:190]:
            channel.set_many(batch)
        channel._guest.sandbox.store.set_limits(  # type: ignore[union-attr]
            memory_size=linear_memory(channel) + pages * PAGE
        )
        with contextlib.suppress(GuestMemoryError):
            for batch in batches[190:]:
                channel.set_many(batch)
        assert channel.get(b"1") == b"v"
        assert channel.counters().restarts == 0
        channel.close()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("limit", [None, 6 * MIB])
def test_shards_and_a_listener_where_memory_is_refused(limit: int | None, shards: int) -> None:
    """The whole package over sandboxes whose host refuses memory, with a listener that is told of what leaves."""
    told: list[str] = []
    for seed in range(4):
        for pages in (0, 1, 3, 12):
            with Moka[str, bytes](
                None, memory_limit=limit, shards=shards, eviction_listener=lambda key, value, cause: told.append(key)
            ) as cache:
                channel: Any = cache._channel
                for shard in getattr(channel, "_shards", [channel]):
                    sandbox = shard._guest.sandbox
                    sandbox.store.set_limits(memory_size=sandbox.memory_size() + pages * PAGE)
                _use(cache, random.Random(seed))
                assert cache.stats().restarts == 0
    assert told


def _use(cache: Moka[str, bytes], rng: random.Random) -> None:
    """Operations at random; those that there is no memory for may be refused."""

    def key() -> str:
        return f"k{rng.randrange(600)}"

    def value() -> bytes:
        return rng.randbytes(1) * int(200_000 ** rng.random())

    operations: list[Callable[[], object]] = [
        lambda: cache.set(key(), value()),
        lambda: cache.set(key(), value(), ttl=50.0),
        lambda: cache.set_many({key(): value() for _ in range(10)}),
        lambda: cache.get(key()),
        lambda: cache.get_with(key(), value),
        lambda: cache.get_many([key() for _ in range(20)]),
        lambda: cache.remove(key()),
        lambda: cache.expire(key(), 100),
        lambda: [*cache],
    ]
    for _ in range(400):
        with contextlib.suppress(GuestMemoryError, EntryTooLargeError):
            rng.choice(operations)()


class Defective(DirectChannel):
    """A channel with one defect."""


class Forgetful(Defective):
    def remove(self, key: bytes, /) -> bytes | None:
        return self.get(key)


class Mistaken(Defective):
    def get(self, key: bytes, /) -> bytes | None:
        found = super().get(key)
        return found if found is None or len(found) < 50 else found[:-1]


class Trapping(Defective):
    def contains(self, key: bytes, /) -> bool:
        raise AssertionError

    def expire(self, key: bytes, remaining: int | None, /) -> bool:
        raise SandboxError("a trap")


@pytest.mark.parametrize(
    ("defect", "error"), [(Forgetful, WrongAnswerError), (Mistaken, WrongAnswerError), (Trapping, SandboxError)]
)
def test_each_defect_is_found(defect: type[Defective], error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer and a trap end the run."""
    monkeypatch.setattr("memory_pressure.DirectChannel", defect)

    def run_with_many_seeds() -> None:
        for seed in range(50):
            under_limit(4 * MIB, seed, 2000)

    with pytest.raises(error):
        run_with_many_seeds()


def test_memory_beyond_the_cap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that takes more than its limit ends the run."""
    monkeypatch.setattr("memory_pressure.linear_memory", lambda channel: 4 * MIB + PAGE)
    with pytest.raises(WrongAnswerError, match="under a limit of"):
        under_limit(4 * MIB, 0, 10)


def full(limit: int, **config: Any) -> DirectChannel:
    """A channel that is filled up to its limit."""
    channel = DirectChannel(CacheConfig(memory_limit=limit, clock=Steps(), **config))
    for number in range(limit // 500):
        channel.set(b"%d" % number, b"v" * 500)
    return channel


def test_a_deadline_for_large_values_without_memory_for_another_copy() -> None:
    """``expire`` of large values in a full cache may cost the entry, and never traps."""
    channel = full(2 * MIB)
    for number in range(40):
        key = b"large %d" % number
        channel.set(key, b"l" * 120_000)
        if channel.expire(key, 10**9):
            assert channel.get(key) == b"l" * 120_000


def test_a_key_as_large_as_an_entry_may_be() -> None:
    """Making room for an entry with a very long key takes no second key's memory."""
    model = Model(full(2 * MIB), Steps())
    for number in range(200):
        key = b"%d" % number + b"k" * 280_000
        model.set(key, b"v")
        model.get(key)
    assert model.counts["stored"] == 200


@pytest.mark.parametrize("limit", [MIB, 2 * MIB, 8 * MIB])
@pytest.mark.parametrize("long", ["key", "value"])
def test_an_entry_as_large_as_the_error_allows_is_stored(limit: int, long: str) -> None:
    """Whatever smaller entries were there before it, whose memory lies in pieces."""
    for number in range(5):
        channel = full(limit)
        with pytest.raises(EntryTooLargeError) as error:
            channel.set(b"k", bytes(limit))
        taken, largest = map(int, re.findall(r"\d+", str(error.value)))
        for eighths in range(1, 9):
            lengths = {"key": 6, "value": 1}
            lengths[long] = 0
            lengths[long] = largest * eighths // 8 - (taken - limit - 1) - sum(lengths.values())
            key = b"%d %d" % (number, eighths)
            channel.set(key.ljust(lengths["key"], b"k"), bytes(lengths["value"]))


def test_after_a_refusal_no_more_memory_is_asked_for_than_lacks() -> None:
    """What is free at the memory's end is part of what is handed out, though more was refused before."""
    refusing = Refusing(None, 0)
    refusing.cap(8 * MIB)
    lane = new_lane(refusing)
    with pytest.raises(GuestMemoryError):
        lane.resize(20 * MIB)
    lane.resize(3 * MIB)
    lane.resize(0)
    lane.resize(6 * MIB)
    assert linear_memory(refusing.channel) <= 8 * MIB


OPERATIONS: dict[str, Callable[[DirectChannel], object]] = {
    "get": lambda channel: channel.get(b"1"),
    "remove": lambda channel: channel.remove(b"1"),
    "counters": lambda channel: channel.counters(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_without_memory_for_a_lane_of_the_usual_size(name: str) -> None:
    """Where there is no memory for another lane's mailbox of 64 KiB, a small operation does without."""
    refusing = Refusing(None, 0)
    lanes = [refusing.channel._lanes.pop()]
    large = new_lane(refusing)
    large.resize(100_000)
    refusing.cap(refusing.memory())
    for room in (_MAILBOX, 0):
        take_lanes(refusing, room, lanes)
    # What this leaves is room for one more lane of the usual size, and for a small one.
    large.resize(0)
    take_lanes(refusing, _MAILBOX, lanes)
    OPERATIONS[name](refusing.channel)


@pytest.mark.parametrize("config", [{}, {"ttl": 10**12}, {"removal_log": 100}], ids=["plain", "ttl", "log"])
def test_clearing_with_all_memory_used_up(config: dict[str, Any]) -> None:
    """``clear`` is what one does when memory ends: it needs none."""
    refusing = Refusing(None, **config)
    channel = refusing.channel
    for number in range(3000):
        channel.set(b"%d" % number, b"v" * 100)
    lanes: list[Any] = []
    refusing.cap(refusing.memory())
    for room in (_MAILBOX, 0):
        take_lanes(refusing, room, lanes)
    for _ in range(3):
        channel.clear()
        counters = channel.counters()
        assert (counters.entries, counters.explicit, counters.restarts) == (0, 3000, 0)
    lanes.clear()
    refusing.cap(1 << 32)
    channel.set(b"k", b"v")
    assert channel.get(b"k") == b"v"


@pytest.mark.parametrize(
    ("size", "rooms"),
    [(300_000, ()), *((100_000, rooms) for rooms in [(100_000, 20_000), (100_000, 30_000), (100_000, 20_000, 9_000)])],
    ids=["too large", "out of memory", "tables stay", "eviction has little memory"],
)
def test_refusals_take_no_memory(size: int, rooms: tuple[int, ...]) -> None:
    """However many operations were refused, even if their exceptions are kept, the guest's memory is the cache's: once
    others have given back what they took, in pieces of this room, all can be stored, on a clock that stands still.
    """
    channel = DirectChannel(CacheConfig(memory_limit=MIB, policy="lru", clock=Steps()))
    assert channel._guest is not None
    for number in range(1000):
        channel.set(b"%d" % number, b"v" * 20)
    taken: list[Any] = []

    def take_all(room: int) -> None:
        while True:
            taken.append(_Lane(channel._guest, room))  # type: ignore[arg-type]

    for room in rooms:
        with pytest.raises(GuestMemoryError):
            take_all(room)
    before = len(channel._guest.free_lanes)
    kept: list[Exception] = []
    gc.disable()
    try:
        for number in range(50):
            for refused in (
                lambda key=b"%d" % number: channel.set(key, bytes(size)),
                lambda key=b"%d" % number: channel.get_or_insert(key, bytes(size)),
                lambda: channel.get(bytes(size)),
            ):
                try:
                    refused()  # type: ignore[no-untyped-call]
                except (EntryTooLargeError, GuestMemoryError) as error:
                    kept.append(error)
        assert len(kept) >= 50
        assert len(channel._guest.free_lanes) >= before - 1
        for lane in taken:
            lane.resize(0)
        for number in range(1000):
            channel.set(b"%d" % number, b"v" * 20)
        assert channel.get(b"999") == b"v" * 20
    finally:
        gc.enable()


def take_lanes(refusing: Refusing, room: int, lanes: list[Any]) -> None:
    """Takes lanes of this room until there is no memory for another one."""

    def take_all() -> None:
        while True:
            lanes.append(_Lane(refusing.channel._guest, room))  # type: ignore[arg-type]

    with pytest.raises(GuestMemoryError):
        take_all()


def new_lane(refusing: Refusing) -> Any:
    assert refusing.channel._guest is not None
    return _Lane(refusing.channel._guest)


def test_the_model_counts_what_was_refused() -> None:
    """A clean error is an answer; whatever else is raised goes on."""
    model = Model(DirectChannel(CacheConfig(memory_limit=MIB)), Steps())
    model.set(b"k", bytes(MIB))
    assert model.counts == {"too large": 1}
    with pytest.raises(ZeroDivisionError):
        model.attempt(lambda: 1 // 0)
