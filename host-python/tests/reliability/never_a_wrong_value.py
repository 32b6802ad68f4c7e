"""Never a wrong value: threads share a cache whose values say what they are, and check whatever comes out.

    never_a_wrong_value.py [--operations N] [--threads N] [--seed N]

A value carries its key, its version and a checksum. Each key is written by one thread, in rising versions, and read by
all. What may come out of an operation is bounded by what was known before it began and after it ended:

* *key*, *bytes*: the value is of the key that was asked for, whole;
* *version*: it is not older than the last set that was complete before the operation began, nor one that a removal or a
  clear, complete before, has taken out; nor was it never set;
* *expiry*: by the injected clock its deadline had not passed before the operation began.

Sets, batches, removals, clears, evictions, new deadlines, a clock that moves, listeners and the replacement of the
sandbox (what a trap leads to) all happen at once, under several configurations.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moka_wasm import Moka, SandboxError

KEYS = 256
FOREVER = float("inf")
_HEAD = struct.Struct("<IQ")
_SUM = struct.Struct("<I")


class WrongValueError(AssertionError):
    """A cache answered what it must not."""


class Cache(Protocol):
    """What is used of a cache. The keys are ints, the values bytes."""

    def set(self, key: int, value: bytes, ttl: float | None = None) -> None: ...
    def get(self, key: int) -> bytes | None: ...
    def setdefault(self, key: int, default: bytes) -> bytes: ...
    def get_with(self, key: int, initializer: Callable[[], bytes]) -> bytes: ...
    def remove(self, key: int) -> bytes | None: ...
    def clear(self) -> None: ...
    def expire(self, key: int, remaining: float) -> bool: ...
    def get_many(self, keys: Iterable[int]) -> Mapping[int, bytes]: ...
    def set_many(self, entries: Mapping[int, bytes], ttl: float | None = None) -> None: ...
    def remove_many(self, keys: Iterable[int]) -> int: ...


class Clock:
    """Whole seconds; moves only when it is told to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def move(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


def pack(key: int, version: int, size: int) -> bytes:
    """A value of about ``size`` bytes that says what it is."""
    body = _HEAD.pack(key, version) + bytes([version & 0xFF]) * size
    return body + _SUM.pack(zlib.crc32(body))


def unpack(value: object) -> tuple[int, int]:
    """Key and version of a value; WrongValueError unless it is whole."""
    if not isinstance(value, bytes) or len(value) < _HEAD.size + _SUM.size:
        raise WrongValueError(f"bytes: not a value that was ever stored: {value!r:.80}")
    body, (checksum,) = value[: -_SUM.size], _SUM.unpack(value[-_SUM.size :])
    if zlib.crc32(body) != checksum:
        raise WrongValueError(f"bytes: the checksum does not fit: {value!r:.80}")
    key, version = _HEAD.unpack_from(body)
    return key, version


@dataclass
class Known:
    """What is known of all keys; each list is by key."""

    started: list[int] = field(default_factory=lambda: [0] * KEYS)
    """The version of the last set that has begun. Only the key's writer changes it, as the next two."""
    completed: list[int] = field(default_factory=lambda: [0] * KEYS)
    deadlines: list[tuple[int, float]] = field(default_factory=lambda: [(0, FOREVER)] * KEYS)
    """A version, and a time at which it has expired for certain."""
    taken_out: list[int] = field(default_factory=lambda: [0] * KEYS)
    """The last version that a removal has taken out for certain, changed under the lock."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def least(self, key: int) -> int:
        """The lowest version that may come out of an operation that begins now."""
        return max(self.completed[key], self.taken_out[key] + 1)

    def take_out(self, versions: Mapping[int, int]) -> None:
        """Notes that these versions, complete before a removal began, were taken out by it."""
        with self.lock:
            for key, version in versions.items():
                self.taken_out[key] = max(self.taken_out[key], version)


class Worker:
    """One thread's operations: it writes the keys that leave ``index`` when divided by ``workers``."""

    def __init__(self, cache: Cache, clock: Clock, known: Known, index: int, workers: int, seed: int, large: int):
        self._cache, self._clock, self._known = cache, clock, known
        self._own = range(index, KEYS, workers)
        self._random = random.Random(seed * 1000 + index)
        self._large = large
        self.counts: Counter[str] = Counter()
        self._operations = self._choices()

    def _choices(self) -> list[Callable[[], None]]:
        weights = {
            self.get: 40,
            self.set: 24,
            self.set_default: 6,
            self.compute: 3,
            self.get_many: 6,
            self.set_many: 4,
            self.remove: 5,
            self.remove_many: 2,
            self.expire: 5,
            self.move_clock: 4,
        }
        return [operation for operation, weight in weights.items() for _ in range(weight)]

    def run(self, operations: int, stop: Callable[[], bool]) -> None:
        """Performs that many operations, or fewer when told to stop."""
        choices, pick = self._operations, self._random.random
        for number in range(operations):
            if number & 1023 == 0:
                if stop():
                    return
                self.clear()
            try:
                choices[int(pick() * len(choices))]()
            except SandboxError:
                # The sandbox was replaced in the middle. What was under way may have come about or not.
                self.counts["stopped"] += 1
            except MemoryError:
                # Under a memory limit the bytes under way in many threads may be too many at once.
                self.counts["refused"] += 1

    # What is checked.

    def judge(self, key: int, value: object, least: int, now: float) -> int:
        """Checks a value that came out of an operation on a key; answers its version.

        Args:
            key: What was asked for.
            value: What came.
            least: ``Known.least`` before the operation.
            now: The clock before the operation.
        """
        found, version = unpack(value)
        if found != key:
            raise WrongValueError(f"key: asked for {key}, got version {version} of {found}")
        if version < least:
            raise WrongValueError(f"version: {version} of key {key} came out after {least} or its removal")
        if version > self._known.started[key]:
            raise WrongValueError(f"version: {version} of key {key} was never set")
        # Read only now: a deadline that was moved meanwhile has replaced the old one.
        dated, deadline = self._known.deadlines[key]
        if dated == version:
            self.counts["deadlines"] += 1
            if now >= deadline:
                raise WrongValueError(f"expiry: version {version} of key {key}, dead by {deadline}, came out at {now}")
        self.counts["values"] += 1
        return version

    # The operations.

    def _any(self) -> int:
        # Some keys are asked for far more often than others.
        return int(self._random.random() ** 2 * KEYS)

    def _mine(self) -> int:
        return self._own[int(self._random.random() * len(self._own))]

    def _life(self) -> float | None:
        return None if self._random.random() < 0.4 else float(1 + int(self._random.random() * 20))

    def _next(self, key: int) -> bytes:
        version = self._known.started[key] + 1
        self._known.started[key] = version
        size = int(self._random.random() ** 4 * self._large)
        return pack(key, version, size)

    def _done(self, key: int, life: float | None) -> None:
        version = self._known.started[key]
        self._known.deadlines[key] = (version, FOREVER if life is None else self._clock() + life)
        self._known.completed[key] = version

    def get(self) -> None:
        key = self._any()
        least, now = self._known.least(key), self._clock()
        value = self._cache.get(key)
        if value is None:
            self.counts["misses"] += 1
        else:
            self.judge(key, value, least, now)

    def set(self) -> None:
        key, life = self._mine(), self._life()
        self._cache.set(key, self._next(key), life)
        self._done(key, life)

    def _insert(self, insert: Callable[[int, bytes], bytes]) -> None:
        key = self._mine()
        least, now = self._known.least(key), self._clock()
        before = self._known.started[key]
        offered = self._next(key)
        version = self.judge(key, insert(key, offered), least, now)
        if version > before:
            self._done(key, None)

    def set_default(self) -> None:
        self._insert(self._cache.setdefault)

    def compute(self) -> None:
        self._insert(lambda key, value: self._cache.get_with(key, lambda: value))

    def get_many(self) -> None:
        keys = [self._any() for _ in range(5)]
        least, now = {key: self._known.least(key) for key in keys}, self._clock()
        for key, value in self._cache.get_many(keys).items():
            if key not in least:
                raise WrongValueError(f"key: {key} came out of a batch that did not ask for it")
            self.judge(key, value, least[key], now)

    def set_many(self) -> None:
        life = self._life()
        keys = {self._mine() for _ in range(5)}
        self._cache.set_many({key: self._next(key) for key in keys}, life)
        for key in keys:
            self._done(key, life)

    def remove(self) -> None:
        key = self._any()
        before, least, now = self._known.completed[key], self._known.least(key), self._clock()
        value = self._cache.remove(key)
        self._known.take_out({key: before})
        if value is not None:
            self.judge(key, value, least, now)

    def remove_many(self) -> None:
        before = {key: self._known.completed[key] for key in (self._any(), self._any())}
        self._cache.remove_many(before)
        self._known.take_out(before)

    def clear(self) -> None:
        before = dict(enumerate(self._known.completed))
        try:
            self._cache.clear()
        except SandboxError:
            self.counts["stopped"] += 1
        else:
            self._known.take_out(before)

    def expire(self) -> None:
        key = self._mine()
        version = self._known.started[key]
        life = float(1 + int(self._random.random() * 20))
        # Meanwhile neither the old deadline nor the new one is certain.
        self._known.deadlines[key] = (version, FOREVER)
        if self._cache.expire(key, life):
            self._known.deadlines[key] = (version, self._clock() + life)

    def move_clock(self) -> None:
        self._clock.move(1.0)


@dataclass
class Setting:
    """A configuration to be tried."""

    name: str
    arguments: dict[str, Any]
    large: int = 300
    """The size of the largest values, in bytes."""
    listens: bool = False
    replaces: bool = False
    """Whether the sandbox is replaced now and then, as after a trap."""


SETTINGS = (
    Setting("unbounded", {"capacity": None}),
    Setting("tiny-lfu, evicting", {"capacity": KEYS // 3}),
    Setting("lru, evicting, ttl", {"capacity": KEYS // 3, "policy": "lru", "ttl": 15}),
    Setting("memory limit, large values", {"capacity": None, "memory_limit": 2 << 20}, large=150_000),
    Setting("listener", {"capacity": KEYS // 2}, listens=True),
    Setting("sandbox replaced", {"capacity": KEYS}, replaces=True),
)


def replace_sandbox(cache: Moka[int, bytes]) -> None:
    """Does what a trap leads to: a new, empty sandbox takes the place of the old one."""
    channel: Any = cache._channel
    channel.replace(channel._guest)


def run(
    cache: Cache,
    clock: Clock,
    *,
    operations: int,
    threads: int = 8,
    seed: int = 0,
    large: int = 300,
    disturb: Callable[[], None] | None = None,
) -> Counter[str]:
    """Lets threads use the cache and check it.

    Args:
        cache: Empty; its time is ``clock``.
        operations: How many in all.
        disturb: Called again and again from a thread of its own.

    Returns:
        How many values and deadlines were checked, and how often there was no value.

    Raises:
        WrongValueError: The cache answered what it must not.
    """
    known = Known()
    failures: list[BaseException] = []
    workers = [Worker(cache, clock, known, index, threads, seed, large) for index in range(threads)]
    done = threading.Event()

    def work(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:  # handed to the caller
            failures.append(failure)

    def disturb_until_done() -> None:
        while disturb is not None and not done.wait(0.01):
            disturb()

    def jobs() -> Iterable[Callable[[], None]]:
        for worker in workers:
            yield lambda worker=worker: worker.run(operations // threads, lambda: bool(failures))  # type: ignore[misc]

    running = [threading.Thread(target=work, args=(job,)) for job in jobs()]
    disturber = threading.Thread(target=work, args=(disturb_until_done,))
    for thread in [*running, disturber]:
        thread.start()
    for thread in running:
        thread.join()
    done.set()
    disturber.join()
    if failures:
        raise failures[0]
    return sum((worker.counts for worker in workers), Counter())


def run_setting(setting: Setting, *, operations: int, threads: int = 8, seed: int = 0) -> Counter[str]:
    """Lets threads use a :class:`Moka` of this configuration, and check it."""
    clock = Clock()
    wrong: list[str] = []
    told = Counter[str]()

    def listen(key: int, value: bytes, cause: str) -> None:
        told[cause] += 1
        # What a listener raises goes elsewhere.
        try:
            if unpack(value)[0] != key:
                wrong.append(f"key: the listener was told of {key} with another's value")
        except WrongValueError as error:
            wrong.append(f"the listener was told of {key} with {error}")

    arguments = setting.arguments | ({"eviction_listener": listen} if setting.listens else {})
    cache: Moka[int, bytes] = Moka(clock=clock, **arguments)
    disturb = (lambda: replace_sandbox(cache)) if setting.replaces else None
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        counts = run(
            cache, clock, operations=operations, threads=threads, seed=seed, large=setting.large, disturb=disturb
        )
    finally:
        sys.setswitchinterval(interval)
        cache.close()
    if wrong:
        raise WrongValueError(wrong[0])
    return counts + Counter({"told": sum(told.values())})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000_000, help="in all (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.threads} threads")
    values = deadlines = 0
    each = -(-options.operations // len(SETTINGS))
    for setting in SETTINGS:
        try:
            counts = run_setting(setting, operations=each, threads=options.threads, seed=options.seed)
        except WrongValueError as error:
            print(f"WRONG under {setting.name!r}: {error}", file=sys.stderr)
            return 1
        print(f"{setting.name}: {each:,} operations,", ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())))
        values += counts["values"]
        deadlines += counts["deadlines"]
    print(f"{each * len(SETTINGS):,} operations, {values:,} values and {deadlines:,} deadlines checked: none was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
