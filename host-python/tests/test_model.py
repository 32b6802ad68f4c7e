"""The property that every cache must keep: a key is absent or holds the model's last value, a dict with losses.

Hypothesis makes up sequences of operations; a dict with deadlines tells what may and what must not come out.
"""

# pyright: basic

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from moka_wasm import Moka
from moka_wasm._channel import UNLIMITED, CacheConfig, Channel, Entry
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel
from moka_wasm._sharded_channel import ShardedChannel, open_shards

# Nanoseconds that an entry may expire before its deadline.
RESOLUTION = 64
SECOND = 1_000_000_000

NEVER = math.inf

KEYS = st.integers(0, 7).map(lambda number: b"key %d" % number)
LIVES = st.none() | st.sampled_from([1, 63, 64, 65, 1000, SECOND, 5 * SECOND, 10**15]) | st.integers(1, 20 * SECOND)
STEPS = st.sampled_from([0, 1, 63, 64, 65, 1000, SECOND, 5 * SECOND, 10**15]) | st.integers(0, 20 * SECOND)
VALUES = st.binary(max_size=20) | st.integers(1, 500).map(lambda size: b"x" * size)
WEIGHTS = st.sampled_from([0, 1, 1, 1, 2, 5, 2**32 - 1])


@dataclass
class Modelled:
    """What the model knows of an entry; times in nanoseconds of the model's clock."""

    value: bytes
    weight: int
    die_at: float
    idle: float = NEVER
    idle_at: float = NEVER

    def deadline(self) -> float:
        return min(self.die_at, self.idle_at)

    def read(self, now: int) -> None:
        self.idle_at = now + self.idle


class Steps:
    """A clock that the machine moves, and that may be set back; the model's own only adds up the steps forward."""

    def __init__(self, start: int) -> None:
        self.shown = start

    def __call__(self) -> int:
        return self.shown


class CacheMachine(RuleBasedStateMachine):
    """Operations on one channel, beside a dict."""

    leases = Bundle("leases")

    def open(self, config: CacheConfig) -> Channel:
        raise NotImplementedError

    @initialize(
        capacity=st.none() | st.sampled_from([0, 1, 2, 5, 1000]),
        ttl=LIVES,
        tti=LIVES,
        policy=st.sampled_from(["tiny_lfu", "lru"]),
        log=st.sampled_from([0, 1000]),
        start=st.sampled_from([0, 10**13, 2**63]),
    )
    def begin(self, capacity: int | None, ttl: int | None, tti: int | None, policy: str, log: int, start: int) -> None:
        self.capacity, self.ttl, self.tti = capacity, ttl, tti
        self.clock = Steps(start)
        self.now = 0
        self.model: dict[bytes, Modelled] = {}
        self.stored = 0
        self.channel = self.open(
            CacheConfig(capacity=capacity, ttl=ttl, tti=tti, policy=policy, removal_log=log, clock=self.clock)
        )
        self.channel.get(b"the first reading of the clock")
        self.misses = 1
        self.hits = 0

    def teardown(self) -> None:
        if hasattr(self, "channel"):
            self.channel.close()

    # The model.

    def put(self, key: bytes, value: bytes, weight: int, ttl: int | None, tti: int | None) -> None:
        lives = [life for life in (ttl, self.ttl) if life is not None]
        idles = [life for life in (tti, self.tti) if life is not None]
        entry = Modelled(value, weight, self.now + min(lives, default=NEVER), min(idles, default=NEVER))
        entry.read(self.now)
        self.model[key] = entry
        self.stored += 1

    def may_be_lost(self, entry: Modelled) -> bool:
        return self.capacity is not None or self.now >= entry.deadline() - RESOLUTION

    def judge(self, key: bytes, found: bytes | None, *, uses: bool = True) -> None:
        """Compares what came out with what may."""
        entry = self.model.get(key)
        if found is None:
            assert entry is None or self.may_be_lost(entry), f"{key!r} was lost"
            self.model.pop(key, None)
            return
        assert entry is not None, f"{key!r} should be absent"
        assert found == entry.value
        assert self.now < entry.deadline(), f"{key!r} outlived its deadline"
        if uses:
            entry.read(self.now)

    # The operations.

    @rule(key=KEYS, value=VALUES, weight=WEIGHTS, ttl=LIVES, tti=LIVES)
    def set(self, key: bytes, value: bytes, weight: int, ttl: int | None, tti: int | None) -> None:
        self.channel.set(key, value, weight, ttl, tti)
        self.put(key, value, weight, ttl, tti)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        found = self.channel.get(key)
        self.judge(key, found)
        self.count(found is not None)

    def count(self, hit: bool) -> None:
        self.hits += hit
        self.misses += not hit

    @rule(key=KEYS)
    def contains(self, key: bytes) -> None:
        found = self.channel.contains(key)
        value = self.model[key].value if found and key in self.model else b"" if found else None
        self.judge(key, value, uses=False)

    @rule(key=KEYS, value=VALUES, weight=WEIGHTS, ttl=LIVES, tti=LIVES)
    def get_or_insert(self, key: bytes, value: bytes, weight: int, ttl: int | None, tti: int | None) -> None:
        found = self.channel.get_or_insert(key, value, weight, ttl, tti)
        self.judge(key, found)
        self.count(found is not None)
        if found is None:
            self.put(key, value, weight, ttl, tti)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        self.judge(key, self.channel.remove(key))
        self.model.pop(key, None)

    @rule(key=KEYS, life=LIVES)
    def expire(self, key: bytes, life: int | None) -> None:
        if self.channel.expire(key, life):
            entry = self.model[key]
            assert self.now < entry.deadline()
            entry.die_at, entry.idle, entry.idle_at = self.now + (NEVER if life is None else life), NEVER, NEVER
        else:
            self.judge(key, None)

    @rule(key=KEYS)
    def remaining(self, key: bytes) -> None:
        life = self.channel.remaining(key)
        if life is None:
            self.judge(key, None)
        elif life == UNLIMITED:
            assert self.model[key].deadline() == NEVER
        else:
            exact = self.model[key].deadline() - self.now
            assert exact - RESOLUTION <= life <= exact
            assert exact > 0

    @rule()
    def clear(self) -> None:
        self.channel.clear()
        self.model.clear()

    @rule()
    def run_pending_tasks(self) -> None:
        self.channel.run_pending_tasks()
        if self.capacity is not None:
            assert self.channel.counters().weight <= self.capacity

    @rule(
        entries=st.lists(st.tuples(KEYS, VALUES, WEIGHTS, LIVES, LIVES), max_size=6),
    )
    def set_many(self, entries: list[Any]) -> None:
        self.channel.set_many([Entry(*entry) for entry in entries])
        for entry in entries:
            self.put(*entry)

    @rule(keys=st.lists(KEYS, max_size=12))
    def get_many(self, keys: list[bytes]) -> None:
        found = self.channel.get_many(keys)
        assert len(found) == len(keys)
        for key, value in zip(keys, found, strict=True):
            self.judge(key, value)
            self.count(value is not None)

    @rule(keys=st.lists(KEYS, max_size=6))
    def remove_many(self, keys: list[bytes]) -> None:
        removed = self.channel.remove_many(keys)
        here = [self.model.pop(key) for key in set(keys) if key in self.model]
        assert removed <= sum(self.now < entry.deadline() for entry in here)
        assert removed >= sum(not self.may_be_lost(entry) for entry in here)

    @rule()
    def walk(self) -> None:
        cursor = self.channel.keys()
        met: list[bytes] = []
        while page := cursor.next(3):
            met += page
        cursor.close()
        assert len(met) == len(set(met))
        for key in met:
            assert self.now < self.model[key].deadline()
        for key in set(self.model) - set(met):
            self.judge(key, None)

    @rule(target=leases, key=KEYS)
    def lookup(self, key: bytes) -> Any:
        found = self.channel.lookup(key, 1000 * SECOND)
        self.judge(key, found if isinstance(found, bytes) else None)
        self.count(isinstance(found, bytes))
        return (key, found) if isinstance(found, int) else None

    @rule(lease=leases, value=VALUES, weight=WEIGHTS, ttl=LIVES, tti=LIVES)
    def fill(self, lease: Any, value: bytes, weight: int, ttl: int | None, tti: int | None) -> None:
        if lease is not None and self.channel.fill(lease[1], value, weight, ttl, tti):
            self.put(lease[0], value, weight, ttl, tti)

    @rule()
    def drain(self) -> None:
        removals, lost = self.channel.drain(10)
        assert lost == 0
        assert len(removals) <= 10

    # Time.

    @rule(step=STEPS)
    def advance(self, step: int) -> None:
        self.clock.shown += step
        self.channel.contains(b"a reading")
        self.now += step

    # By less than a minute it would be a late reading, at which time stands still.
    @precondition(lambda self: getattr(self, "back", False) and self.clock.shown >= 3600 * SECOND)
    @rule(step=st.integers(3600 * SECOND, 10**12 * SECOND))
    def set_the_clock_back(self, step: int) -> None:
        self.clock.shown -= min(step, self.clock.shown)
        self.channel.contains(b"a reading")

    @invariant()
    def the_counters_are_right(self) -> None:
        if not hasattr(self, "channel"):
            return
        counters = self.channel.counters()
        assert (counters.hits, counters.misses, counters.insertions) == (self.hits, self.misses, self.stored)
        gone = counters.expired + counters.explicit + counters.replaced + counters.size
        assert counters.insertions == gone + counters.entries


class DirectMachine(CacheMachine):
    def open(self, config: CacheConfig) -> Channel:
        return DirectChannel(config)


class ShardedMachine(CacheMachine):
    def open(self, config: CacheConfig) -> Channel:
        return ShardedChannel(open_shards(config, 3))


class SetBackMachine(DirectMachine):
    back = True


class ComponentMachine(CacheMachine):
    def open(self, config: CacheConfig) -> Channel:
        return ComponentChannel(config)


class MokaMachine(RuleBasedStateMachine):
    """The same for the class ``Moka``: values of any kind, seconds, batches, a weigher, lookups by ``get_with``."""

    KEYS = st.sampled_from(["a", "b", "c", 1, 2.5, (1, "x"), None])
    VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
    LIVES = st.none() | st.sampled_from([0.5, 1, 2, 8])
    shards = 1

    @initialize(
        capacity=st.none() | st.sampled_from([1, 3, 100]),
        ttl=LIVES,
        tti=LIVES,
        policy=st.sampled_from(["tiny_lfu", "lru"]),
        listens=st.booleans(),
        limit=st.sampled_from([None, 4 << 20]),
    )
    def begin(self, capacity: Any, ttl: Any, tti: Any, policy: Any, listens: bool, limit: Any) -> None:
        self.now = 0.0
        if capacity is not None:
            # Each shard has at least 1.
            capacity = max(capacity, self.shards)
        self.lossy = capacity is not None
        self.ttl, self.tti = ttl, tti
        self.told: list[Any] | None = [] if listens else None
        self.model: dict[Any, Modelled] = {}
        self.stored = 0
        listener = (lambda *removal: self.told.append(removal)) if listens else None  # type: ignore[union-attr]
        self.cache: Moka[Any, Any] = Moka(
            capacity, ttl, tti, listener, policy, memory_limit=limit, clock=lambda: self.now, shards=self.shards
        )
        self.cache.get("absent")

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()

    def put(self, key: Any, value: Any, ttl: Any, tti: Any) -> None:
        lives = [life for life in (ttl, self.ttl) if life is not None]
        idles = [life for life in (tti, self.tti) if life is not None]
        entry = Modelled(value, 1, self.now + min(lives, default=NEVER), min(idles, default=NEVER))
        entry.idle_at = self.now + entry.idle
        self.model[key] = entry
        self.stored += 1

    def judge(self, key: Any, value: Any, present: bool) -> None:
        entry = self.model.get(key)
        if not present:
            assert entry is None or self.lossy or self.now >= entry.deadline() - 1e-6
            self.model.pop(key, None)
            return
        assert entry is not None
        assert value == entry.value
        assert type(value) is type(entry.value)
        assert self.now < entry.deadline() + 1e-6
        entry.idle_at = self.now + entry.idle

    @rule(key=KEYS, value=VALUES, ttl=LIVES, tti=LIVES)
    def set(self, key: Any, value: Any, ttl: Any, tti: Any) -> None:
        self.cache.set(key, value, ttl, tti)
        self.put(key, value, ttl, tti)

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        missing = object()
        value = self.cache.get(key, missing)
        self.judge(key, value, value is not missing)

    @rule(key=KEYS, value=VALUES, ttl=LIVES)
    def get_with(self, key: Any, value: Any, ttl: Any) -> None:
        computed = []

        def initializer() -> Any:
            computed.append(1)
            return value

        answer = self.cache.get_with(key, initializer, ttl)
        self.judge(key, answer, not computed)
        if computed:
            assert answer is value
            self.put(key, value, ttl, None)

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        before = self.cache.stats().insertions
        answer = self.cache.setdefault(key, value)
        inserted = self.cache.stats().insertions > before
        self.judge(key, answer, not inserted)
        if inserted:
            assert answer is value
            self.put(key, value, None, None)

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        missing = object()
        value = self.cache.pop(key, missing)
        self.judge(key, value, value is not missing)
        self.model.pop(key, None)

    @rule(entries=st.dictionaries(KEYS, VALUES, max_size=5), ttl=LIVES)
    def set_many(self, entries: Any, ttl: Any) -> None:
        self.cache.set_many(entries, ttl)
        for key, value in entries.items():
            self.put(key, value, ttl, None)

    @rule(keys=st.lists(KEYS, max_size=8))
    def get_many(self, keys: Any) -> None:
        found = self.cache.get_many(keys)
        for key in keys:
            self.judge(key, found.get(key), key in found)

    @rule(keys=st.lists(KEYS, max_size=4))
    def remove_many(self, keys: Any) -> None:
        assert self.cache.remove_many(keys) <= len(set(keys) & set(self.model))
        for key in keys:
            self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(key=KEYS, life=LIVES)
    def expire(self, key: Any, life: Any) -> None:
        if self.cache.expire(key, life):
            entry = self.model[key]
            entry.die_at, entry.idle, entry.idle_at = self.now + (NEVER if life is None else life), NEVER, NEVER
        else:
            self.judge(key, None, False)

    @rule()
    def items(self) -> None:
        found = dict(self.cache.items())
        for key in set(self.model) | set(found):
            self.judge(key, found.get(key), key in found)
        assert len(self.model) == len(found)
        assert len(self.cache) <= len(found) if self.lossy else len(self.cache) == len(found)

    @rule(step=st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0]))
    def advance(self, step: float) -> None:
        self.now += step
        assert "absent" not in self.cache

    @invariant()
    def every_entry_is_told_once(self) -> None:
        if getattr(self, "told", None) is not None:
            self.cache.run_pending_tasks()
            stats = self.cache.stats()
            assert stats.insertions == self.stored == len(self.told) + stats.entries  # type: ignore[arg-type]


class ShardedMokaMachine(MokaMachine):
    shards = 3


FEW = settings(max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))

TestDirectChannel = DirectMachine.TestCase
TestDirectChannel.settings = MANY
TestClockSetBack = SetBackMachine.TestCase
TestClockSetBack.settings = MANY
TestComponentChannel = ComponentMachine.TestCase
TestComponentChannel.settings = FEW
TestShardedChannel = ShardedMachine.TestCase
TestShardedChannel.settings = MANY
TestMoka = MokaMachine.TestCase
TestMoka.settings = MANY
TestShardedMoka = ShardedMokaMachine.TestCase
TestShardedMoka.settings = MANY
