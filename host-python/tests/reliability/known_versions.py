"""What threads know of the entries of a cache that they share: which versions were set, taken out, and by when dead.

A value says what it is: it carries its key, its version and a checksum. Each key is written by one thread, in rising
versions, and read by all.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

FOREVER = float("inf")
_HEAD = struct.Struct("<IQ")
_SUM = struct.Struct("<I")


class WrongValueError(AssertionError):
    """A cache answered what it must not."""


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


class Dated(NamedTuple):
    """When a version ends."""

    version: int
    deadline: float
    """A time at which it has expired for certain."""
    idles: bool
    """Whether the cache's time to idle holds for it."""


class Known:
    """What is known of all keys, which are numbers from 0 on; each list is by key.

    Args:
        keys: How many.
        tti: The cache's time to idle, in seconds; ``None`` for none.
    """

    def __init__(self, keys: int, tti: float | None = None) -> None:
        self.keys = keys
        self.tti = tti
        self.started = [0] * keys
        """The version of the last set that has begun. Only the key's writer changes it, as the next two."""
        self.completed = [0] * keys
        self.dated = [Dated(0, FOREVER, False)] * keys
        self.taken_out = [0] * keys
        """The last version that a removal has taken out for certain, changed under the lock."""
        self.lock = threading.Lock()
        # Of a cache with a time to idle, likewise: how many uses have begun, how many of them have not ended, and a
        # time that is not before any use that has.
        self.uses_begun = [0] * keys
        self.uses_under_way = [0] * keys
        self.last_used = [0.0] * keys

    def least(self, key: int) -> int:
        """The lowest version that may come out of an operation that begins now."""
        return max(self.completed[key], self.taken_out[key] + 1)

    def take_out(self, versions: Mapping[int, int]) -> None:
        """Notes that these versions, complete before a removal began, were taken out by it."""
        with self.lock:
            for key, version in versions.items():
                self.taken_out[key] = max(self.taken_out[key], version)


class Use:
    """An operation that may read or set these keys, and so has their idle time begin anew.

    Only while no other thread uses a key is it certain since when it has been idle.
    """

    def __init__(self, known: Known, clock: Callable[[], float], keys: Collection[int]) -> None:
        self._known, self._clock = known, clock
        self._keys = keys if known.tti is not None else ()
        self._alone: dict[int, tuple[int, float]] = {}

    def __enter__(self) -> Use:
        known = self._known
        if self._keys:
            with known.lock:
                for key in self._keys:
                    known.uses_begun[key] += 1
                    if not known.uses_under_way[key]:
                        self._alone[key] = (known.uses_begun[key], known.last_used[key])
                    known.uses_under_way[key] += 1
        return self

    def idle_since(self, key: int) -> float | None:
        """When the key was last used, at the latest, before this operation; ``None`` if that is not certain."""
        begun, last_used = self._alone.get(key, (0, 0.0))
        return last_used if begun and begun == self._known.uses_begun[key] else None

    def __exit__(self, *_: object) -> None:
        known = self._known
        if self._keys:
            with known.lock:
                now = self._clock()
                for key in self._keys:
                    known.uses_under_way[key] -= 1
                    known.last_used[key] = max(known.last_used[key], now)
