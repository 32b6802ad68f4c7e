"""A cache in a few lines with the surface that the decorators need: real key encoding, pickled values, no sandbox."""

# pyright: basic
# Tests look at private state and at values of no declared type.

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from moka_wasm._keys import encode_key
from moka_wasm._single_flight import Request, ThreadFlights

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Stats:
    """What the decorators read of a cache's counters."""

    hits: int
    misses: int
    entries: int


class FakeMoka(Generic[K, V]):
    """Holds everything until its ttl has passed; ``clock`` answers seconds."""

    def __init__(
        self,
        capacity: int | None,
        ttl: float | None = None,
        tti: float | None = None,
        eviction_listener: Callable[..., object] | None = None,
        policy: str = "tiny_lfu",
        weigher: Callable[[Any, Any], int] | None = None,
        *,
        memory_limit: int | None = None,
        clock: Callable[[], float] | None = None,
        serializer: Any = None,
        name: str = "",
    ) -> None:
        if policy not in {"tiny_lfu", "lru"}:
            raise ValueError("policy must be 'tiny_lfu' or 'lru'")
        for field, duration in (("ttl", ttl), ("tti", tti)):
            if duration is not None and not duration > 0:
                raise ValueError(f"{field} must be positive")
        self.opened_with = {"capacity": capacity, "ttl": ttl, "tti": tti, "memory_limit": memory_limit, "name": name}
        self.flights = ThreadFlights()
        self.stored = 0
        self._ttl, self._tti, self._clock = ttl, tti, clock or (lambda: 0.0)
        self._weigher, self._listener = weigher, eviction_listener
        self._serializer = serializer or pickle
        self._entries: dict[bytes, tuple[K, bytes, float, float]] = {}
        self._hits = self._misses = 0

    def _encode_key(self, key: K) -> bytes:
        return encode_key(key)

    def _dumps(self, value: V) -> bytes:
        data: bytes = self._serializer.dumps(value)
        return data

    def _loads(self, data: bytes) -> V:
        value: V = self._serializer.loads(data)
        return value

    def _get_encoded(self, key_bytes: bytes) -> bytes | None:
        entry = self._entries.get(key_bytes)
        now = self._clock()
        if entry is not None and now < min(entry[2], entry[3]):
            self._hits += 1
            if self._tti is not None:
                self._entries[key_bytes] = (*entry[:3], now + self._tti)
            return entry[1]
        self._misses += 1
        return None

    def _set_encoded(self, key_bytes: bytes, key: K, value: V, data: bytes, ttl: Any, tti: Any) -> None:
        if self._weigher is not None and self._weigher(key, value) < 0:
            raise ValueError("the weigher must answer an int >= 0")
        now = self._clock()
        ttl, tti = ttl or self._ttl or float("inf"), tti or self._tti or float("inf")
        self._entries[key_bytes] = (key, data, now + ttl, now + tti)
        self.stored += 1

    def set(self, key: K, value: V, ttl: Any = None, tti: Any = None) -> None:
        self._set_encoded(self._encode_key(key), key, value, self._dumps(value), ttl, tti)

    def get(self, key: K, default: Any = None) -> Any:
        data = self._get_encoded(self._encode_key(key))
        return default if data is None else self._loads(data)

    def get_with(self, key: K, initializer: Callable[[], V], ttl: Any = None, tti: Any = None) -> V:
        return self.flights.run(Request(self, self._encode_key(key), key, ttl, tti), initializer)

    def remove(self, key: K, default: Any = None) -> Any:
        entry = self._entries.pop(self._encode_key(key), None)
        if entry is None:
            return default
        value = self._loads(entry[1])
        if self._listener is not None:
            self._listener(entry[0], value, "explicit")
        return value

    def __contains__(self, key: K) -> bool:
        return self._encode_key(key) in self._entries

    def clear(self) -> None:
        self._entries.clear()

    def count(self) -> int:
        return len(self._entries)

    def run_pending_tasks(self) -> None:
        pass

    def stats(self) -> Stats:
        return Stats(self._hits, self._misses, len(self._entries))
