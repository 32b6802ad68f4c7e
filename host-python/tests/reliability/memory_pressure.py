"""Memory pressure: a cache whose memory ends answers correctly or with a clean error, and never traps.

    memory_pressure.py [--operations N] [--seed N]

Two ways for the memory to end:

* *limits*: random operations with keys and values of any size up to the limit, under each of :data:`LIMITS`, with the
  sandbox's own cap at the same size behind it;
* *refusals*: a fixed sequence of operations, and a host that refuses the guest's n-th page of memory, for good or
  only that once, for every n from the first to the last.

After each operation the answer must be what a dict with losses may answer, and the memory within its cap.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from moka_wasm import EntryTooLargeError, GuestMemoryError
from moka_wasm._channel import CacheConfig, Channel, Entry
from moka_wasm._direct_channel import DirectChannel

MIB = 1 << 20
PAGE = 1 << 16
SECOND = 10**9
LIMITS = tuple(int(size * MIB) for size in (1, 1.00001, 1.5, 2, 3, 5, 8, 16, 37, 64))


class WrongAnswerError(AssertionError):
    """The cache answered what a dict with losses cannot, or took more memory than it may."""


class Model:
    """A channel beside a dict of what may be in it. Every method raises WrongAnswerError if the two do not fit, and
    SandboxError if the guest trapped."""

    def __init__(self, channel: Channel, clock: Callable[[], int]) -> None:
        self.channel = channel
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self._entries: dict[bytes, tuple[bytes, float]] = {}

    def _put(self, key: bytes, value: bytes, ttl: int | None) -> None:
        self._entries[key] = (value, float("inf") if ttl is None else self.clock() + ttl)

    def _judge(self, key: bytes, found: bytes | None) -> None:
        if found is None:
            self._entries.pop(key, None)
            self.counts["absent"] += 1
            return
        value, deadline = self._entries.get(key, (None, 0))
        if value != found:
            raise WrongAnswerError(f"{key[:20]!r} is {found[:20]!r} ({len(found)} bytes), was never set so, or removed")
        if self.clock() >= deadline:
            raise WrongAnswerError(f"{key[:20]!r} outlived its deadline {deadline}")
        self.counts["present"] += 1

    def attempt(self, operation: Callable[[], Any]) -> bool:
        """Whether the operation was not refused by a clean error."""
        try:
            operation()
        except EntryTooLargeError:
            self.counts["too large"] += 1
        except GuestMemoryError:
            self.counts["out of memory"] += 1
        else:
            return True
        return False

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        if self.attempt(lambda: self.channel.set(key, value, 1, ttl)):
            self._put(key, value, ttl)
            self.counts["stored"] += 1

    def set_many(self, entries: list[tuple[bytes, bytes]]) -> None:
        if self.attempt(lambda: self.channel.set_many([Entry(*entry) for entry in entries])):
            for entry in entries:
                self._put(*entry, None)
            return
        # Those before the one that was refused are stored.
        for key, value in entries:
            self.attempt(lambda key=key, value=value: self._put_if_there(key, value))  # type: ignore[misc]

    def _put_if_there(self, key: bytes, value: bytes) -> None:
        if self.channel.get(key) == value:
            self._put(key, value, None)

    def get(self, key: bytes) -> None:
        found: list[bytes | None] = []
        if self.attempt(lambda: found.append(self.channel.get(key))):
            self._judge(key, found[0])

    def get_many(self, keys: list[bytes]) -> None:
        found: list[bytes | None] = []
        if self.attempt(lambda: found.extend(self.channel.get_many(keys))):
            if len(found) != len(keys):
                raise WrongAnswerError(f"{len(found)} answers to {len(keys)} keys")
            for key, value in zip(keys, found, strict=True):
                self._judge(key, value)

    def get_or_insert(self, key: bytes, value: bytes) -> None:
        found: list[bytes | None] = []
        if self.attempt(lambda: found.append(self.channel.get_or_insert(key, value))):
            if found[0] is None:
                self._put(key, value, None)
            else:
                self._judge(key, found[0])

    def compute(self, key: bytes, value: bytes) -> None:
        found: list[bytes | int | None] = []
        if not self.attempt(lambda: found.append(self.channel.lookup(key, SECOND))):
            return
        lease = found[0]
        if isinstance(lease, bytes):
            self._judge(key, lease)
        elif lease is not None:
            self._entries.pop(key, None)
            filled: list[bool] = []
            if self.attempt(lambda: filled.append(self.channel.fill(lease, value))) and filled[0]:
                self._put(key, value, None)

    def expire(self, key: bytes, remaining: int | None) -> None:
        found: list[bool] = []
        if self.attempt(lambda: found.append(self.channel.expire(key, remaining))):
            if found[0]:
                if key not in self._entries:
                    raise WrongAnswerError(f"{key[:20]!r} was given a deadline, but is not there")
                self._put(key, self._entries[key][0], remaining)
            else:
                self._entries.pop(key, None)

    def remove(self, key: bytes) -> None:
        found: list[bytes | None] = []
        if self.attempt(lambda: found.append(self.channel.remove(key))):
            self._judge(key, found[0])
            self._entries.pop(key, None)

    def walk(self, pages: int) -> None:
        def walk() -> None:
            cursor = self.channel.keys()
            try:
                for _ in range(pages):
                    for key in cursor.next(50):
                        if key not in self._entries:
                            raise WrongAnswerError(f"{key[:20]!r} came out of a walk, but is not there")
            finally:
                cursor.close()

        self.attempt(walk)

    def clear(self) -> None:
        if self.attempt(self.channel.clear):
            self._entries.clear()

    def check_all(self) -> None:
        """Looks at everything that may be there."""
        for key in [*self._entries]:
            self.get(key)


def linear_memory(channel: DirectChannel) -> int:
    """Bytes, by the host's own account."""
    return channel._guest.sandbox.memory_size()  # type: ignore[union-attr]


class Steps:
    """Nanoseconds, moved by hand."""

    now = 0

    def __call__(self) -> int:
        return self.now


def _size(rng: random.Random, limit: int) -> int:
    """Mostly small, and up to the limit and beyond."""
    return int(limit ** rng.random()) - 1 if rng.random() < 0.95 else rng.randrange(limit * 5 // 4)


def random_operations(model: Model, clock: Steps, rng: random.Random, limit: int) -> Iterator[None]:
    """Performs operations at random, one each time it is asked, for ever."""
    population = rng.choice([3, 30, 300, 3000])
    largest = rng.choice([100, 4096, 40_000, limit // 8, limit])

    def key() -> bytes:
        number = rng.randrange(population)
        # A few keys are long; a number always makes the same key.
        return b"%d" % number + b"k" * (largest // 50 if number % 11 == 0 else number % 30)

    def value() -> bytes:
        return rng.randbytes(4) * (_size(rng, largest) // 4 + 1) if rng.random() < 0.98 else b""

    def life() -> int | None:
        return rng.choice([None, None, SECOND, 3 * SECOND])

    operations: list[tuple[int, Callable[[], object]]] = [
        (40, lambda: model.set(key(), value(), life())),
        (15, lambda: model.get(key())),
        (5, lambda: model.set_many([(key(), value()) for _ in range(rng.randrange(20))])),
        (5, lambda: model.get_many([key() for _ in range(rng.randrange(20))])),
        (8, lambda: model.get_or_insert(key(), value())),
        (5, lambda: model.compute(key(), value())),
        (8, lambda: model.expire(key(), life())),
        (4, lambda: model.remove(key())),
        (1, lambda: model.walk(rng.randrange(5))),
        (1, lambda: model.attempt(model.channel.run_pending_tasks)),
    ]
    weighted = [operation for weight, operation in operations for _ in range(weight)]
    while True:
        if rng.random() < 0.02:
            clock.now += SECOND // 4
        if rng.random() < 0.0005:
            model.clear()
        rng.choice(weighted)()
        yield


def under_limit(limit: int, seed: int, operations: int) -> Counter[str]:
    """Random operations under a memory limit, with the sandbox's cap behind it.

    Raises:
        WrongAnswerError: An answer, or the memory.
        SandboxError: The guest trapped.
    """
    rng, clock = random.Random(f"{limit} {seed}"), Steps()
    config = CacheConfig(
        memory_limit=limit,
        clock=clock,
        capacity=rng.choice([None, None, 10, 10_000]),
        policy=rng.choice(["tiny_lfu", "lru"]),
        ttl=rng.choice([None, 10 * SECOND]),
        removal_log=rng.choice([0, 0, 100, 2**32 - 1]),
    )
    channel = DirectChannel(config)
    model = Model(channel, clock)
    running = random_operations(model, clock, rng, limit)
    try:
        for _ in range(operations):
            next(running)
            if channel.removals_wait and rng.random() < 0.5:
                model.attempt(lambda: channel.drain(100))
            memory = linear_memory(channel)
            if memory > limit:
                raise WrongAnswerError(f"{memory} bytes of memory under a limit of {limit}")
        model.check_all()
    finally:
        channel.close()
    return model.counts


def fixed_operations(model: Model, seed: int) -> Iterator[None]:
    """A sequence in which memory grows by all that can make it grow; pauses after each operation. With an odd seed what
    comes at random comes first, into tables that are not made yet."""
    rng, clock = random.Random(seed), Steps()
    running = random_operations(model, clock, rng, 2 * MIB)
    if seed % 2:
        for _ in range(200):
            next(running)
            yield
    for number in range(600):
        model.set(b"small %d" % number, b"s" * 600)
        yield
    for number in range(12):
        model.set(b"large %d" % number, bytes([number]) * 150_000)
        yield
        model.expire(b"large %d" % number, None if number % 2 else 10**15)
        yield
    for _ in range(400):
        next(running)
        yield


class Refusing:
    """A channel of which the host refuses requests for memory beyond a cap."""

    def __init__(self, limit: int | None, removal_log: int = 0, ttl: int | None = None) -> None:
        config = CacheConfig(memory_limit=limit, ttl=ttl, clock=Steps(), removal_log=removal_log)
        self.channel = DirectChannel(config)
        self.model = Model(self.channel, lambda: 0)
        self.first = self.memory()

    def memory(self) -> int:
        return linear_memory(self.channel)

    def cap(self, size: int) -> None:
        self.channel._guest.sandbox.store.set_limits(memory_size=size)  # type: ignore[union-attr]


def refusals(
    limit: int | None, removal_log: int = 0, *, lasting: bool, seed: int = 0, step: int = 1
) -> Iterator[tuple[int, str]]:
    """Refuses the guest memory beyond n pages more than it begins with, for each n (or every ``step``-th) from 0 until
    it asks for no more.

    Args:
        limit: The cache's memory limit.
        removal_log: How many removals it logs.
        seed: Of the operations that are chosen at random.
        lasting: Whether the host refuses for good, or grants everything once an operation has been refused something.

    Yields:
        Each n, and what became of it.
    """
    pages = 0
    while True:
        refusing = Refusing(limit, removal_log)
        model, cap = refusing.model, refusing.first + pages * PAGE
        refusing.cap(cap)
        try:
            for _ in fixed_operations(model, seed):
                if refusing.memory() > cap:
                    if lasting:
                        raise WrongAnswerError(f"{refusing.memory()} bytes of memory under a cap of {cap}")
                elif not lasting and model.counts["out of memory"]:
                    refusing.cap(1 << 32)
            model.check_all()
            at_its_cap = refusing.memory() == cap
        finally:
            refusing.channel.close()
        counts = model.counts
        yield pages, f"{counts['stored']} stored, {counts['out of memory']} refused"
        if not at_its_cap and not counts["out of memory"]:
            return
        pages += step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000, help="for each limit and seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="of each (default: %(default)s)")
    options = parser.parse_args()
    for limit in LIMITS:
        counts: Counter[str] = Counter()
        for seed in range(options.seeds):
            counts += under_limit(limit, seed, options.operations)
        print(f"limit {limit / MIB:g} MiB:", ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())))
    for limit in (None, 2 * MIB, 4 * MIB):
        for lasting in (True, False):
            for seed in range(options.seeds):
                points = list(refusals(limit, seed % 3 * 50, lasting=lasting, seed=seed))
                size = "none" if limit is None else f"{limit / MIB:g} MiB"
                kind = "for good" if lasting else "once"
                print(
                    f"memory limit {size}, seed {seed}, refused {kind} at each of {len(points)} pages: answered or "
                    "refused cleanly"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
