"""A channel over several sandboxes: each key lives in one of them, told by a hash that nobody outside foresees.

A shard is a whole cache, with a store, a lock and 4 GiB of address space of its own; capacity and memory limit are
split among them. What concerns all of them is done in all of them, also if one raises; then its error is raised.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from . import _hot as hot
from ._channel import CacheConfig, Counters, Entry, KeyCursor, Removal
from ._direct_channel import DirectChannel

if TYPE_CHECKING:
    from ._direct_channel import _Lane
    from ._retrying_channel import RetryingChannel

    Shard = DirectChannel | RetryingChannel

T = TypeVar("T")


def open_shards(config: CacheConfig, count: int) -> list[DirectChannel]:
    """Opens the sandboxes of one cache; the parts of its capacity and of its memory limit sum up to the whole."""
    opened: list[DirectChannel] = []
    capacities, limits = _split(config.capacity, count), _split(config.memory_limit, count)
    try:
        for capacity, limit in zip(capacities, limits, strict=True):
            opened.append(DirectChannel(config._replace(capacity=capacity, memory_limit=limit)))
    except BaseException:
        for channel in opened:
            channel.close()
        raise
    return opened


def _split(total: int | None, count: int) -> list[int | None]:
    if total is None:
        return [None] * count
    part, rest = divmod(total, count)
    return [part + (number < rest) for number in range(count)]


class ShardedChannel:
    """See :class:`~._channel.Channel`. A trap leaves the entries of the other shards where they are."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = tuple(shards)
        self._count = len(self._shards)
        # Kept, as an entry is found by the hash that it was stored by.
        self._hash = hot.shard_hash()

    # What one shard does.

    def get(self, key: bytes, /) -> bytes | None:
        return self._shards[self._hash(key) % self._count].get(key)

    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /) -> None:
        self._shards[self._hash(key) % self._count].set(key, value, weight, ttl, tti)

    def _shard(self, key: bytes) -> Shard:
        return self._shards[self._hash(key) % self._count]

    def contains(self, key: bytes, /) -> bool:
        return self._shard(key).contains(key)

    def get_or_insert(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bytes | None:
        return self._shard(key).get_or_insert(key, value, weight, ttl, tti)

    def expire(self, key: bytes, remaining: int | None, /) -> bool:
        return self._shard(key).expire(key, remaining)

    def remaining(self, key: bytes, /) -> int | None:
        return self._shard(key).remaining(key)

    def remove(self, key: bytes, /) -> bytes | None:
        return self._shard(key).remove(key)

    def lookup(self, key: bytes, lease_life: int, /) -> bytes | int | None:
        number = self._hash(key) % self._count
        answer = self._shards[number].lookup(key, lease_life)
        # A lease is its shard's, and says which that is.
        return answer * self._count + number if isinstance(answer, int) else answer

    def fill(
        self, lease: int, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bool:
        lease, number = divmod(lease, self._count)
        return self._shards[number].fill(lease, value, weight, ttl, tti)

    def release(self, lease: int, /) -> None:
        lease, number = divmod(lease, self._count)
        self._shards[number].release(lease)

    def finish_hot(self, lane: _Lane, error: int) -> bytes | None:
        """As the direct channel's, of the shard whose lane it is; any of them knows a guest that was replaced."""
        for shard in self._shards:
            if shard.goes_to(lane.guest):
                return shard.finish_hot(lane, error)
        return self._shards[0].finish_hot(lane, error)

    # What all shards do.

    def _all(self, operation: Callable[[Shard], T]) -> list[T]:
        return _each(functools.partial(operation, shard) for shard in self._shards)

    def clear(self) -> None:
        self._all(lambda shard: shard.clear())

    def run_pending_tasks(self) -> None:
        self._all(lambda shard: shard.run_pending_tasks())

    def close(self) -> None:
        self._all(lambda shard: shard.close())

    def counters(self) -> Counters:
        return Counters._make(map(sum, zip(*self._all(lambda shard: shard.counters()), strict=True)))

    def keys(self) -> KeyCursor:
        # All of them now, as the walk is over what is live when it begins.
        cursors: list[KeyCursor] = []
        try:
            for shard in self._shards:
                cursors.append(shard.keys())
        except BaseException:
            _close(cursors)
            raise
        return _ShardedCursor(cursors)

    # Removals.

    @property
    def removals_wait(self) -> bool:
        # Asked after every operation: a loop takes half the time of any().
        for shard in self._shards:  # noqa: SIM110
            if shard.removals_wait:
                return True
        return False

    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        # One shard at a time: what was taken out of it must be told, whatever the next one does.
        for shard in self._shards:
            if shard.removals_wait:
                return shard.drain(limit)
        return [], 0

    # Batches: a part for each shard.

    def _parts(self, keys: Iterable[bytes]) -> Iterable[tuple[Shard, list[int]]]:
        """The shards of these keys, each with the positions of its keys in the batch, in order."""
        positions: list[list[int]] = [[] for _ in self._shards]
        for position, key in enumerate(keys):
            positions[self._hash(key) % self._count].append(position)
        return [(shard, part) for shard, part in zip(self._shards, positions, strict=True) if part]

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        values: list[bytes | None] = [None] * len(keys)
        for shard, part in self._parts(keys):
            for position, value in zip(part, shard.get_many([keys[position] for position in part]), strict=True):
                values[position] = value
        return values

    def set_many(self, entries: Sequence[Entry], /) -> None:
        refused: list[tuple[int, Exception]] = []
        for shard, part in self._parts(entry.key for entry in entries):
            stored = 0
            try:
                for count in shard.store([entries[position] for position in part]):
                    stored = count
            except Exception as error:
                # The other shards go on: whatever comes before the first entry that is refused must be there.
                if not refused or part[stored] < refused[0][0]:
                    refused = [(part[stored], error)]
        if refused:
            raise refused.pop()[1]  # as below

    def remove_many(self, keys: Sequence[bytes], /) -> int:
        parts = self._parts(keys)
        return sum(_each(functools.partial(shard.remove_many, [keys[at] for at in part]) for shard, part in parts))


def _each(operations: Iterable[Callable[[], T]]) -> list[T]:
    """What all of them answer; if some raise, all are done, and the first one's error is raised."""
    answers: list[T] = []
    failures: list[Exception] = []
    for operation in operations:
        try:
            answers.append(operation())
        except Exception as error:
            failures = failures or [error]
    if failures:
        # Not by a variable: exception, traceback and frame would hold each other.
        raise failures.pop()
    return answers


def _close(cursors: Iterable[KeyCursor]) -> None:
    """Closes all of them; the error that made their user give up is the one to tell."""
    for cursor in cursors:
        with contextlib.suppress(Exception):
            cursor.close()


class _ShardedCursor:
    """See :class:`~._channel.KeyCursor`."""

    def __init__(self, cursors: list[KeyCursor]) -> None:
        self._cursors = cursors

    def next(self, limit: int, /) -> list[bytes]:
        while self._cursors:
            page = self._cursors[0].next(limit)
            if page:
                return page
            self._cursors.pop(0)
        return []

    def close(self) -> None:
        _close(self._cursors)
