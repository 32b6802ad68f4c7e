"""A channel that does once more what a trap broke off, on the empty cache that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ._channel import Counters, Entry, KeyCursor, Removal
from ._errors import SandboxError

if TYPE_CHECKING:
    from ._direct_channel import DirectChannel, _Guest, _Lane

P = ParamSpec("P")
T = TypeVar("T")


def _retry(operation: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    try:
        return operation(*arguments, **named)
    except SandboxError:
        return operation(*arguments, **named)


class RetryingChannel:
    """See :class:`~._channel.Channel`. An operation that traps twice raises the second trap's error."""

    def __init__(self, channel: DirectChannel) -> None:
        self._channel = channel

    @property
    def removals_wait(self) -> bool:
        return self._channel.removals_wait

    def finish_hot(self, lane: _Lane, error: int) -> bytes | None:
        """As the direct channel's. After a trap it answers None, and the extension leaves the operation to Python."""
        guest = lane.guest
        try:
            return self._channel.finish_hot(lane, error)
        except SandboxError:
            if self._channel.goes_to(guest):
                raise
            return None

    def goes_to(self, guest: _Guest) -> bool:
        """As the direct channel's."""
        return self._channel.goes_to(guest)

    def get(self, key: bytes, /) -> bytes | None:
        return _retry(self._channel.get, key)

    def contains(self, key: bytes, /) -> bool:
        return _retry(self._channel.contains, key)

    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /) -> None:
        _retry(self._channel.set, key, value, weight, ttl, tti)

    def get_or_insert(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bytes | None:
        return _retry(self._channel.get_or_insert, key, value, weight, ttl, tti)

    def expire(self, key: bytes, remaining: int | None, /) -> bool:
        return _retry(self._channel.expire, key, remaining)

    def remaining(self, key: bytes, /) -> int | None:
        return _retry(self._channel.remaining, key)

    def remove(self, key: bytes, /) -> bytes | None:
        return _retry(self._channel.remove, key)

    def clear(self) -> None:
        _retry(self._channel.clear)

    def run_pending_tasks(self) -> None:
        _retry(self._channel.run_pending_tasks)

    def counters(self) -> Counters:
        return _retry(self._channel.counters)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        return _retry(self._channel.get_many, keys)

    def set_many(self, entries: Sequence[Entry], /) -> None:
        _retry(self._channel.set_many, entries)

    def store(self, entries: Sequence[Entry]) -> Iterator[int]:
        """As the direct channel's; after a trap from the first entry on."""
        try:
            yield from self._channel.store(entries)
        except SandboxError:
            yield from self._channel.store(entries)

    def remove_many(self, keys: Sequence[bytes], /) -> int:
        return _retry(self._channel.remove_many, keys)

    def keys(self) -> KeyCursor:
        return _RetryingCursor(_retry(self._channel.keys))

    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        return _retry(self._channel.drain, limit)

    def lookup(self, key: bytes, lease_life: int, /) -> bytes | int | None:
        return _retry(self._channel.lookup, key, lease_life)

    def fill(
        self, lease: int, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bool:
        return _retry(self._channel.fill, lease, value, weight, ttl, tti)

    def release(self, lease: int, /) -> None:
        _retry(self._channel.release, lease)

    def close(self) -> None:
        self._channel.close()


class _RetryingCursor:
    """See :class:`~._channel.KeyCursor`; of a sandbox that trapped there are no further keys."""

    def __init__(self, cursor: KeyCursor) -> None:
        self._cursor = cursor

    def next(self, limit: int, /) -> list[bytes]:
        return _retry(self._cursor.next, limit)

    def close(self) -> None:
        self._cursor.close()
