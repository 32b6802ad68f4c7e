"""Never a wrong value: threads share a cache whose values say what they are, and check whatever comes out.

    never_a_wrong_value.py [--operations N] [--threads N] [--seed N]

What may come out of an operation is bounded by what was known (``known_versions``) before it began and after it ended:

* *key*, *bytes*: the value is of the key that was asked for, whole; a walk meets no key twice;
* *version*: it is not older than the last set that was complete before the operation began, nor one that a removal or a
  clear, complete before, has taken out; nor was it never set;
* *expiry*, *idle*: by the injected clock, neither its own time to live nor the cache's was over before the operation
  began, nor the cache's time to idle;
* *len*: there are no more entries than keys.

Sets, batches, walks, removals, clears, evictions, new deadlines, a clock that moves, listeners and sandboxes that trap
in the middle of operations all happen at once, under several configurations.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from known_versions import FOREVER, Clock, Dated, Known, Use, WrongValueError, pack, unpack
from trapping_guest import trap_soon, trapping_component

from moka_wasm import CacheStats, Moka, SandboxError

KEYS = 256


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
    def run_pending_tasks(self) -> None: ...
    def items(self) -> ItemsView[int, bytes]: ...
    def __contains__(self, key: object) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...


class Worker:
    """One thread's operations: it writes the keys that leave ``index`` when divided by ``workers``."""

    def __init__(
        self,
        cache: Cache,
        clock: Clock,
        known: Known,
        index: int,
        workers: int,
        *,
        seed: int,
        large: int,
        ttl: float | None,
        disturb: Callable[[], None] | None,
    ) -> None:
        self._cache, self._clock, self._known = cache, clock, known
        self._own = range(index, known.keys, workers)
        self._random = random.Random(seed * 1000 + index)
        self._large = large
        self._ttl = FOREVER if ttl is None else ttl
        self._disturb = disturb
        self.counts: Counter[str] = Counter()
        self._operations = self._choices()

    def _choices(self) -> list[Callable[[], None]]:
        weights = {
            self.get: 400,
            self.set: 240,
            self.set_default: 60,
            self.compute: 30,
            self.contains: 30,
            self.get_many: 60,
            self.set_many: 40,
            self.remove: 50,
            self.remove_many: 20,
            self.expire: 50,
            self.move_clock: 40,
            self.walk: 4,
            self.items: 2,
            self.count: 3,
            self.run_pending: 3,
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
            if number & 255 == 0 and self._disturb is not None:
                self._disturb()
            try:
                choices[int(pick() * len(choices))]()
            except SandboxError:
                # It stopped in the middle. What was under way may have come about or not.
                self.counts["stopped"] += 1
            except MemoryError:
                # Under a memory limit the bytes under way in many threads may be too many at once.
                self.counts["refused"] += 1

    # What is checked.

    def judge(self, key: int, value: object, least: int, now: float, use: Use) -> int:
        """Checks a value that came out of an operation on a key; answers its version.

        Args:
            key: What was asked for.
            value: What came.
            least: ``Known.least`` before the operation.
            now: The clock before the operation.
            use: Of this operation, which is under way.
        """
        found, version = unpack(value)
        if found != key:
            raise WrongValueError(f"key: asked for {key}, got version {version} of {found}")
        if version < least:
            raise WrongValueError(f"version: {version} of key {key} came out after {least} or its removal")
        if version > self._known.started[key]:
            raise WrongValueError(f"version: {version} of key {key} was never set")
        # Asked first: once it is dated, and nobody else uses it, its last use is known.
        idle_since = use.idle_since(key)
        # Read only now: a deadline that was moved meanwhile has replaced the old one.
        dated = self._known.dated[key]
        if dated.version == version:
            self._judge_deadline(key, dated, now)
            if idle_since is not None and dated.idles and self._known.tti is not None:
                self.counts["idle times"] += 1
                if now >= idle_since + self._known.tti:
                    raise WrongValueError(
                        f"idle: version {version} of key {key}, last used by {idle_since}, came at {now}"
                    )
        self.counts["values"] += 1
        return version

    def _judge_deadline(self, key: int, dated: Dated, now: float) -> None:
        version, deadline, _ = dated
        if deadline == FOREVER:
            return
        self.counts["deadlines"] += 1
        if now >= deadline:
            raise WrongValueError(f"expiry: version {version} of key {key}, dead by {deadline}, came out at {now}")

    def judge_key(self, key: object, least: Callable[[int], int], now: float) -> int:
        """Checks a key that is said to be there, as :meth:`judge` does a value; answers it."""
        if type(key) is not int or not 0 <= key < self._known.keys:
            raise WrongValueError(f"key: {key!r:.80} was never set")
        started = self._known.started[key]
        if started < least(key):
            raise WrongValueError(f"version: key {key} is there after the removal of {started}, its last version")
        dated = self._known.dated[key]
        # Else it may be another version that is there.
        if dated.version == started == least(key):
            self._judge_deadline(key, dated, now)
        self.counts["keys"] += 1
        return key

    # The operations.

    def _any(self) -> int:
        # Some keys are asked for far more often than others.
        return int(self._random.random() ** 2 * self._known.keys)

    def _mine(self) -> int:
        return self._own[int(self._random.random() * len(self._own))]

    def _life(self) -> float | None:
        return None if self._random.random() < 0.4 else float(1 + int(self._random.random() * 20))

    def _next(self, key: int) -> bytes:
        version = self._known.started[key] + 1
        self._known.started[key] = version
        size = int(self._random.random() ** 4 * self._large)
        return pack(key, version, size)

    def _use(self, keys: Collection[int]) -> Use:
        return Use(self._known, self._clock, keys)

    def _done(self, key: int, life: float | None) -> None:
        version = self._known.started[key]
        life = self._ttl if life is None else min(life, self._ttl)
        self._known.dated[key] = Dated(version, self._clock() + life, True)
        self._known.completed[key] = version

    def get(self) -> None:
        key = self._any()
        least, now = self._known.least(key), self._clock()
        with self._use((key,)) as use:
            value = self._cache.get(key)
            if value is None:
                self.counts["misses"] += 1
            else:
                self.judge(key, value, least, now, use)

    def contains(self) -> None:
        key = self._any()
        least, now = self._known.least(key), self._clock()
        if key in self._cache:
            self.judge_key(key, lambda _: least, now)

    def set(self) -> None:
        key, life = self._mine(), self._life()
        with self._use((key,)):
            self._cache.set(key, self._next(key), life)
            self._done(key, life)

    def _insert(self, insert: Callable[[int, bytes], bytes]) -> None:
        key = self._mine()
        least, now = self._known.least(key), self._clock()
        before = self._known.started[key]
        offered = self._next(key)
        with self._use((key,)) as use:
            version = self.judge(key, insert(key, offered), least, now, use)
            if version > before:
                self._done(key, None)

    def set_default(self) -> None:
        self._insert(self._cache.setdefault)

    def compute(self) -> None:
        self._insert(lambda key, value: self._cache.get_with(key, lambda: value))

    def get_many(self) -> None:
        keys = [self._any() for _ in range(5)]
        least, now = {key: self._known.least(key) for key in keys}, self._clock()
        with self._use(least) as use:
            for key, value in self._cache.get_many(keys).items():
                if key not in least:
                    raise WrongValueError(f"key: {key} came out of a batch that did not ask for it")
                self.judge(key, value, least[key], now, use)

    def set_many(self) -> None:
        life = self._life()
        keys = {self._mine() for _ in range(5)}
        with self._use(keys):
            self._cache.set_many({key: self._next(key) for key in keys}, life)
            for key in keys:
                self._done(key, life)

    def remove(self) -> None:
        key = self._any()
        before, least, now = self._known.completed[key], self._known.least(key), self._clock()
        with self._use((key,)) as use:
            value = self._cache.remove(key)
            self._known.take_out({key: before})
            if value is not None:
                self.judge(key, value, least, now, use)

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
        version = self._known.dated[key].version
        life = float(1 + int(self._random.random() * 20))
        # Meanwhile neither the old deadline nor the new one is certain.
        self._known.dated[key] = Dated(version, FOREVER, False)
        if self._cache.expire(key, life):
            self._known.dated[key] = Dated(version, self._clock() + life, False)

    def walk(self) -> None:
        least, now = [*map(self._known.least, range(self._known.keys))], self._clock()
        met: dict[int, None] = {}
        for key in self._cache:
            self._meet(key, met)
            self.judge_key(key, least.__getitem__, now)

    def items(self) -> None:
        keys = range(self._known.keys)
        least, now = [*map(self._known.least, keys)], self._clock()
        met: dict[int, None] = {}
        with self._use(keys) as use:
            for key, value in self._cache.items():
                self._meet(key, met)
                self.judge(key, value, least[key], now, use)

    @staticmethod
    def _meet(key: int, met: dict[int, None]) -> None:
        if key in met:
            raise WrongValueError(f"key: a walk came to {key} twice")
        met[key] = None

    def count(self) -> None:
        if not 0 <= (count := len(self._cache)) <= self._known.keys:
            raise WrongValueError(f"len: {count} entries of {self._known.keys} keys")

    def run_pending(self) -> None:
        self._cache.run_pending_tasks()

    def move_clock(self) -> None:
        self._clock.move(1.0)


@dataclass
class Setting:
    """A configuration to be tried."""

    name: str
    arguments: dict[str, Any]
    large: int = 300
    """The size of the largest values, in bytes."""
    keys: int = KEYS
    listens: bool = False
    traps: bool = False
    """Whether sandboxes trap now and then."""


SETTINGS = (
    Setting("unbounded", {"capacity": None}),
    Setting("tiny-lfu, evicting", {"capacity": KEYS // 3}),
    Setting("lru, evicting, ttl", {"capacity": KEYS // 3, "policy": "lru", "ttl": 15}),
    Setting("ttl and tti", {"capacity": None, "ttl": 40, "tti": 5}),
    Setting("memory limit, large values", {"capacity": None, "memory_limit": 2 << 20}, large=150_000),
    # More than 2 MiB: long calls let other threads run, and walks take several pages.
    Setting("long calls", {"capacity": None}, large=10_000, keys=3000),
    Setting("listener", {"capacity": KEYS // 2}, listens=True),
    Setting("shards", {"capacity": KEYS, "shards": 3, "ttl": 15}),
    Setting("traps", {"capacity": KEYS}, traps=True),
    Setting("traps in shards, retried", {"capacity": None, "shards": 3, "on_trap": "retry"}, traps=True),
)


def run(
    cache: Cache,
    clock: Clock,
    *,
    operations: int,
    threads: int = 8,
    seed: int = 0,
    large: int = 300,
    keys: int = KEYS,
    ttl: float | None = None,
    tti: float | None = None,
    disturb: Callable[[], None] | None = None,
) -> Counter[str]:
    """Lets threads use the cache and check it.

    Args:
        cache: Empty; its time is ``clock``.
        operations: How many in all.
        large: The size of the largest values, in bytes.
        keys: How many.
        ttl: The cache's, in seconds; ``None`` for none.
        tti: Likewise.
        disturb: Called by each thread before every 256th of its operations.

    Returns:
        How many values, keys, deadlines and idle times were checked, how many operations were stopped or refused, and
        how often there was no value.

    Raises:
        WrongValueError: The cache answered what it must not.
    """
    known = Known(keys, tti)
    failures: list[BaseException] = []
    workers = [
        Worker(cache, clock, known, index, threads, seed=seed, large=large, ttl=ttl, disturb=disturb)
        for index in range(threads)
    ]

    def work(worker: Worker) -> None:
        try:
            worker.run(operations // threads, lambda: bool(failures))
        except BaseException as failure:  # handed to the caller
            failures.append(failure)

    running = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
    return sum((worker.counts for worker in workers), Counter())


def run_setting(setting: Setting, *, operations: int, threads: int = 8, seed: int = 0) -> Counter[str]:
    """Lets threads use a :class:`Moka` of this configuration, and check it.

    Returns:
        What :func:`run` does, and how often a listener was told and a sandbox replaced after a trap, and the MiB of
        memory that were in use in the end.
    """
    clock = Clock()
    wrong: list[str] = []
    told = Counter[str]()
    rng = random.Random(seed)

    def listen(key: int, value: bytes, cause: str) -> None:
        told[cause] += 1
        # What a listener raises goes elsewhere.
        try:
            if unpack(value)[0] != key:
                wrong.append(f"key: the listener was told of {key} with another's value")
        except WrongValueError as error:
            wrong.append(f"the listener was told of {key} with {error}")

    arguments = setting.arguments | ({"eviction_listener": listen} if setting.listens else {})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with trapping_component() if setting.traps else contextlib.nullcontext():
            cache: Moka[int, bytes] = Moka(clock=clock, **arguments)
            try:
                counts = run(
                    cache,
                    clock,
                    operations=operations,
                    threads=threads,
                    seed=seed,
                    large=setting.large,
                    keys=setting.keys,
                    ttl=arguments.get("ttl"),
                    tti=arguments.get("tti"),
                    disturb=(lambda: trap_soon(cache, rng)) if setting.traps else None,
                )
                stats = _stats(cache)
            finally:
                cache.close()
    finally:
        sys.setswitchinterval(interval)
    if wrong:
        raise WrongValueError(wrong[0])
    more = {"told": sum(told.values()), "replaced sandboxes": stats.restarts, "MiB": stats.memory_bytes >> 20}
    return counts + Counter(more)


def _stats(cache: Moka[int, bytes]) -> CacheStats:
    try:
        return cache.stats()
    except SandboxError:
        # A trap that no operation had come to.
        return cache.stats()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000_000, help="in all (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.threads} threads")
    total = Counter[str]()
    each = -(-options.operations // len(SETTINGS))
    for setting in SETTINGS:
        try:
            counts = run_setting(setting, operations=each, threads=options.threads, seed=options.seed)
        except WrongValueError as error:
            print(f"WRONG under {setting.name!r}: {error}", file=sys.stderr)
            return 1
        print(f"{setting.name}: {each:,} operations,", ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())))
        if setting.traps and not counts["replaced sandboxes"]:
            print(f"FAILED: under {setting.name!r} no operation came to a trap", file=sys.stderr)
            return 1
        total += counts
    print(
        f"{each * len(SETTINGS):,} operations, {total['replaced sandboxes']:,} traps in the middle of them;"
        f" {total['values']:,} values, {total['keys']:,} keys of walks, {total['deadlines']:,} deadlines"
        f" and {total['idle times']:,} idle times checked: none was wrong"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
