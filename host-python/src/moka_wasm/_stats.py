"""What a cache counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheStats:
    """Counters since the cache was opened, and its size now."""

    hits: int
    """Lookups that found a live entry."""
    misses: int
    """Lookups that did not."""
    insertions: int
    """Values stored, new and overwriting."""
    expired: int
    """Entries removed because a deadline passed."""
    explicit: int
    """Entries removed by ``remove``, ``clear`` and the like."""
    replaced: int
    """Entries whose value was overwritten."""
    size: int
    """Entries evicted, or not let in, for the sake of the capacity or the memory limit."""
    removals_lost: int
    """Removals that the listener was not told of: with a memory limit, what is removed to make room may have to go at
    once."""
    entries: int
    """Entries now; exact after ``run_pending_tasks()``."""
    weight: int
    """Their weights, summed up; exact after ``run_pending_tasks()``."""
    memory_bytes: int
    """Bytes of memory that the sandbox holds. It never shrinks."""
    restarts: int = 0
    """How many times the sandbox stopped in the middle of an operation, and was replaced by an empty one. The counters
    above go on; what was lost with it is in none of them: its entries, and removals that the listener was yet to be
    told."""

    @property
    def hit_ratio(self) -> float:
        """Hits among all lookups, 0.0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0

    @property
    def evictions(self) -> int:
        """Entries that left by themselves: expired, or for the sake of size."""
        return self.expired + self.size
