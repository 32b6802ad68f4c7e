"""Fuzzing of the component's two faces: any operations are answered alike by the component face and by the direct ABI.

    fuzz_faces.py [--executions N] [--seed N]

An execution opens a cache by each face, with the same configuration and the same clock, and puts one list of random
operations to both. What they answer, refuse, count and tell of removals is compared. No cache evicts, as what is
evicted depends on a hash that is keyed at random: ``test_model.py`` and the targets in ``fuzz/`` see to that.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from moka_wasm import MokaError
from moka_wasm._channel import CacheConfig, Channel, Entry
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel

OPERATIONS = 60
SECOND = 1_000_000_000
LIVES = (None, None, 1, 63, 64, 65, 1000, SECOND, 5 * SECOND, 10**15, 2**63, 2**64 - 2)
STEPS = (0, 1, 63, 64, 1000, SECOND, 5 * SECOND, 10**15)


class DefectError(AssertionError):
    """The faces did not answer alike."""


class Clock:
    """Nanoseconds; moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def _walk(channel: Channel, page: int) -> list[bytes]:
    cursor = channel.keys()
    keys: list[bytes] = []
    while more := cursor.next(page):
        if len(more) > page:
            raise DefectError(f"a page of {len(more)} keys, and {page} were asked for")
        keys += more
    cursor.close()
    # The order is the hash's.
    return sorted(keys)


def _removals(channel: Channel, limit: int) -> tuple[list[Any], int]:
    removals: list[Any] = []
    lost = 0
    channel.run_pending_tasks()
    while True:
        page, more_lost = channel.drain(limit)
        if len(page) > limit:
            raise DefectError(f"{len(page)} removals, and {limit} were asked for")
        removals += page
        lost += more_lost
        if not page:
            # Those of a clear come in the order of the hash.
            return sorted(removals), lost


class Execution:
    """One list of operations, put to two channels.

    Args:
        rng: What to choose by.
        open_channels: Open the two channels.
    """

    def __init__(self, rng: random.Random, *open_channels: Callable[[CacheConfig], Channel]) -> None:
        self._rng = rng
        self._clock = Clock()
        config = CacheConfig(
            name=rng.choice(("", "name", "\u00e4" * 300)),
            capacity=rng.choice((None, None, 2**40)),
            ttl=rng.choice(LIVES),
            tti=rng.choice(LIVES),
            policy=rng.choice(("tiny_lfu", "lru")),
            memory_limit=rng.choice((None,) * 9 + (1000,)),
            removal_log=rng.choice((0, 10_000)),
            clock=self._clock,
        )
        self._channels: list[Channel] = []
        self._leases: list[tuple[Any, ...]] = []
        self.counts: Counter[str] = Counter()
        opened = self._ask(
            "open", [functools.partial(self._open, config, open_channel) for open_channel in open_channels]
        )
        if opened == "refused":
            self._channels.clear()

    def _open(self, config: CacheConfig, open_channel: Callable[[CacheConfig], Channel]) -> None:
        self._channels.append(open_channel(config))

    def run(self) -> None:
        """Raises DefectError if the channels do not answer alike."""
        if not self._channels:
            return
        for _ in range(OPERATIONS):
            self._operate()
        self._both("removals", lambda channel: _removals(channel, 10_000))
        self._both("counters", self._counters)
        for channel in self._channels:
            channel.close()

    def _ask(self, name: str, calls: list[Callable[[], Any]]) -> Any:
        answers: list[Any] = []
        for call in calls:
            try:
                answers.append(call())
            except (MokaError, OverflowError) as error:
                answers.append(("refused", type(error).__name__))
        first, second = answers
        if first != second:
            raise DefectError(f"{name}: {first!r:.200} and {second!r:.200}")
        self.counts[name] += 1
        if isinstance(first, tuple) and first[:1] == ("refused",):
            self.counts["refused"] += 1
            return "refused"
        return first

    def _both(self, name: str, call: Callable[[Channel], Any]) -> Any:
        return self._ask(name, [functools.partial(call, channel) for channel in self._channels])

    @staticmethod
    def _counters(channel: Channel) -> Any:
        # When an entry that has expired is taken out is up to the cache.
        channel.run_pending_tasks()
        # Memory is another with each face's own buffers.
        return channel.counters()._replace(memory_bytes=0)

    def _key(self) -> bytes:
        number = self._rng.randrange(24)
        # Some are longer than what lies inside of moka's own entries.
        return bytes([number]) * (300 if number == 23 else number)

    def _entry(self) -> Entry:
        rng = self._rng
        # Few are large: by the component face a byte takes a microsecond.
        value = rng.randbytes(rng.choice((0, 1, 7, 8, 9, 30, 30, 30, 300, 300, 2000)))
        weight = rng.choice((0, 1, 1, 1, 5, 2**32 - 1))
        return Entry(self._key(), value, weight, rng.choice(LIVES), rng.choice(LIVES))

    def _operate(self) -> None:
        rng, key, entry = self._rng, self._key(), self._entry()
        keys = [self._key() for _ in range(rng.randrange(6))]
        entries = [self._entry() for _ in range(rng.randrange(6))]
        life, size = rng.choice(LIVES), rng.choice((1, 2, 3, 100))
        operations: dict[str, tuple[int, Callable[[Channel], Any]]] = {
            "set": (10, lambda channel: channel.set(*entry)),
            "get": (10, lambda channel: channel.get(key)),
            "contains": (2, lambda channel: channel.contains(key)),
            "get_or_insert": (4, lambda channel: channel.get_or_insert(*entry)),
            "expire": (4, lambda channel: channel.expire(key, life)),
            "remaining": (4, lambda channel: channel.remaining(key)),
            "remove": (4, lambda channel: channel.remove(key)),
            "clear": (1, lambda channel: channel.clear()),
            "run_pending_tasks": (2, lambda channel: channel.run_pending_tasks()),
            "counters": (3, self._counters),
            "get_many": (3, lambda channel: channel.get_many(keys)),
            "set_many": (3, lambda channel: channel.set_many(entries)),
            "remove_many": (2, lambda channel: channel.remove_many(keys)),
            "walk": (2, lambda channel: _walk(channel, size)),
            "removals": (2, lambda channel: _removals(channel, size)),
        }
        names = [*operations, "lookup", "fill", "release", "step"]
        weights = [weight for weight, _ in operations.values()] + [4, 3, 1, 8]
        (name,) = rng.choices(names, weights)
        if name == "step":
            self._clock.now += rng.choice(STEPS)
        elif name == "lookup":
            self._look_up(key, rng.choice((0, 1000, 10**15)))
        elif name in ("fill", "release"):
            self._end_lease(name, entry)
        else:
            self._both(name, operations[name][1])

    def _look_up(self, key: bytes, life: int) -> None:
        leases: list[Any] = []

        def look_up(channel: Channel) -> Any:
            found = channel.lookup(key, life)
            leases.append(found)
            # The faces number leases each in its own way.
            return "a lease" if isinstance(found, int) else found

        if self._both("lookup", look_up) == "a lease":
            self._leases.append(tuple(leases))

    def _end_lease(self, name: str, entry: Entry) -> None:
        if not self._leases:
            return
        leases = iter(self._leases.pop(self._rng.randrange(len(self._leases))))
        if name == "fill":
            self._both(name, lambda channel: channel.fill(next(leases), *entry[1:]))
        else:
            self._both(name, lambda channel: channel.release(next(leases)))


def run(executions: int, seed: int, *faces: Callable[[CacheConfig], Channel]) -> Counter[str]:
    """Puts so many lists of operations to both faces; answers how many operations of each kind were compared."""
    rng = random.Random(seed)
    counts = Counter[str]()
    for _ in range(executions):
        execution = Execution(rng, *(faces or (ComponentChannel, DirectChannel)))
        execution.run()
        counts += execution.counts
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=5_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    try:
        counts = run(options.executions, options.seed)
    except DefectError as error:
        print(f"NOT ALIKE: {error}", file=sys.stderr)
        return 1
    refused = counts.pop("refused", 0)
    print(f"{options.executions:,} executions, {counts.total():,} answers compared, {refused:,} refusals: no defect")
    return 0


if __name__ == "__main__":
    sys.exit(main())
