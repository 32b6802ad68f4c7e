"""What a channel into the sandbox can do. Keys and values are bytes, times nanoseconds; no wasmtime type crosses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

CAUSES = ("expired", "explicit", "replaced", "size")

UNLIMITED = -1
"""What :meth:`Channel.remaining` answers for an entry without a deadline."""


class CacheConfig(NamedTuple):
    """How a cache is opened; see the WIT record ``config``."""

    name: str = ""
    capacity: int | None = None
    ttl: int | None = None
    """Nanoseconds."""
    tti: int | None = None
    """Nanoseconds."""
    policy: str = "tiny_lfu"
    memory_limit: int | None = None
    """Bytes."""
    removal_log: int = 0
    """How many removals are kept to be drained; 0: none."""
    clock: Callable[[], int] | None = None
    """Answers nanoseconds; ``None``: the system's monotonic clock."""
    operation_timeout: int | None = None
    """Nanoseconds after which an operation is stopped. Of the direct channel only."""


class Entry(NamedTuple):
    """One entry of :meth:`Channel.set_many`; ttl and tti in nanoseconds."""

    key: bytes
    value: bytes
    weight: int = 1
    ttl: int | None = None
    tti: int | None = None


class Counters(NamedTuple):
    """The WIT record ``stats``, and what the host counts."""

    hits: int
    misses: int
    insertions: int
    expired: int
    explicit: int
    replaced: int
    size: int
    removals_lost: int
    entries: int
    weight: int
    memory_bytes: int
    restarts: int = 0
    """How many times the guest was replaced by an empty one. The totals of those before it are included."""


def totals(counters: Counters) -> tuple[int, ...]:
    """The counters that only ever go up."""
    return counters[: Counters._fields.index("entries")]


def together(before: Counters, now: Counters) -> Counters:
    """What all guests have counted, and what the last one holds."""
    summed = [one + other for one, other in zip(totals(before), totals(now), strict=True)]
    return Counters._make([*summed, *now[len(summed) : -1], before.restarts])


class Removal(NamedTuple):
    """An entry that left, and why: an index into :data:`CAUSES`."""

    cause: int
    key: bytes
    value: bytes


class KeyCursor(Protocol):
    """A walk over the keys that were live when it began."""

    def next(self, limit: int, /) -> list[bytes]:
        """Up to ``limit`` further keys that are still live; none: the walk is over."""
        ...

    def close(self) -> None: ...


class Channel(Protocol):
    """One open cache behind a sandbox's border. May be used by several threads, and again from within its own calls
    (signal handlers, finalizers).

    Every method may raise :class:`~._errors.SandboxError` after a trap, and, where something is stored,
    :class:`~._errors.EntryTooLargeError` and :class:`~._errors.GuestMemoryError`. After a trap there is a new, empty
    sandbox: cursors into the old one have no further keys, its leases have ended, what it had to tell is gone.
    """

    @property
    def removals_wait(self) -> bool:
        """Whether :meth:`drain` has something to tell."""
        ...

    def get(self, key: bytes, /) -> bytes | None: ...
    def contains(self, key: bytes, /) -> bool: ...
    def set(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> None: ...
    def get_or_insert(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bytes | None:
        """The live value, or ``None`` if this one was inserted."""
        ...

    def expire(self, key: bytes, remaining: int | None, /) -> bool: ...
    def remaining(self, key: bytes, /) -> int | None:
        """Nanoseconds, :data:`UNLIMITED`, or ``None`` if absent."""
        ...

    def remove(self, key: bytes, /) -> bytes | None: ...
    def clear(self) -> None: ...
    def run_pending_tasks(self) -> None: ...
    def counters(self) -> Counters: ...
    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]: ...
    def set_many(self, entries: Sequence[Entry], /) -> None: ...
    def remove_many(self, keys: Sequence[bytes], /) -> int: ...
    def keys(self) -> KeyCursor: ...
    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        """Up to ``limit`` removals, and how many were lost since the last call."""
        ...

    def lookup(self, key: bytes, lease_life: int, /) -> bytes | int | None:
        """The value; a lease, if the caller leads; ``None`` if another does."""
        ...

    def fill(
        self, lease: int, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bool:
        """False if the lease had ended."""
        ...

    def release(self, lease: int, /) -> None: ...
    def close(self) -> None: ...
