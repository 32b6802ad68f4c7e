"""Arguments of the public API, checked and turned into what a channel takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from ._errors import ConfigError

_Function = TypeVar("_Function")

NANOSECONDS = 1_000_000_000
# The longest duration of the direct ABI, 584 years: 2**64 - 1 stands for none.
_LONGEST = 2**64 - 2
# Beyond this many seconds a duration is refused, as in moka-py, whose durations are Rust's.
_SECONDS_LIMIT = 2.0**64
_HEAVIEST = 2**32 - 1
_COUNT_LIMIT = 2**64 - 1
_MOST_SHARDS = 256
_LEAST_MEMORY = 1 << 20  # of a sandbox, in bytes
# Added to the readings of a clock, which may be negative.
_CLOCK_START = 2**63
_LAST_READING = _COUNT_LIMIT - 1  # the guest takes a greater one for none


def nanoseconds(name: str, duration: float | timedelta | None) -> int | None:
    """A duration in seconds, or as a timedelta, in nanoseconds.

    Args:
        name: The argument's name, for the error's text.
        duration: ``None`` for none.

    Raises:
        ConfigError: It is not positive and finite, or is 2**64 seconds or more.
        TypeError: It is no number.
    """
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be seconds (int or float), a timedelta or None, got {type(duration).__name__}")
    # Comparisons, as an int may be too large for a float.
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name} must be positive and finite, in seconds, got {duration!r}: use None for no limit")
    if seconds >= _SECONDS_LIMIT:
        raise ConfigError(f"{name} is out of range: {duration!r} seconds; use None for no limit")
    if isinstance(duration, timedelta):
        exact = ((duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds) * 1_000
    else:
        exact = duration * NANOSECONDS if isinstance(duration, int) else int(duration * NANOSECONDS)
    return min(max(exact, 1), _LONGEST)


def capacity(value: int | None) -> int | None:
    """The bound on the total weight.

    Raises:
        ConfigError: It is negative or 2**64 - 1 or more.
        TypeError: It is no integer.
    """
    return _count("capacity", value)


def memory_limit(value: int | None) -> int | None:
    """The bound on the guest's memory, in bytes; the guest says what is too little.

    Raises:
        ConfigError: It is negative or 2**64 - 1 or more.
        TypeError: It is no integer.
    """
    return _count("memory_limit", value)


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, got {type(value).__name__}")
    if not 0 <= value < _COUNT_LIMIT:
        raise ConfigError(f"{name} must be at least 0 and below 2**64 - 1, got {value}: use None for no bound")
    return value


def shards(value: int, capacity: int | None, memory_limit: int | None) -> int:
    """The number of sandboxes that a cache is spread over, each with its part of the capacity and of the memory.

    Raises:
        ConfigError: It is out of range, or too large for the capacity or for the memory limit.
        TypeError: It is no integer.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"shards must be an int, got {type(value).__name__}")
    if not 1 <= value <= _MOST_SHARDS:
        raise ConfigError(f"shards must be from 1 to {_MOST_SHARDS}, got {value}: 1 is one sandbox, as without it")
    if capacity is not None and 0 < capacity < value:
        raise ConfigError(
            f"capacity is split among the shards, at least 1 each: got capacity={capacity} and shards={value}; use a"
            " larger capacity or fewer shards"
        )
    if memory_limit is not None and value > 1 and memory_limit // value < _LEAST_MEMORY:
        raise ConfigError(
            f"memory_limit is split among the shards, at least {_LEAST_MEMORY} bytes (1 MiB) each: got"
            f" memory_limit={memory_limit} and shards={value}; use a larger memory_limit or fewer shards"
        )
    return value


def name(value: str) -> str:
    """A cache's name.

    Raises:
        TypeError: It is no str.
    """
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, got {type(value).__name__}")
    return value


def function(name: str, value: _Function) -> _Function:
    """A function, or None.

    Raises:
        TypeError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {type(value).__name__}")
    return value


def policy(value: str) -> str:
    """The name of a policy.

    Raises:
        ConfigError: There is no such policy.
    """
    if value not in ("tiny_lfu", "lru"):
        raise ConfigError(f"policy must be 'tiny_lfu' or 'lru', got {value!r}")
    return value


def on_trap(value: str) -> str:
    """What an operation does in which the sandbox stops.

    Raises:
        ConfigError: There is no such choice.
    """
    if value not in ("raise", "retry"):
        raise ConfigError(f"on_trap must be 'raise' or 'retry', got {value!r}")
    return value


def weight(value: Any) -> int:
    """What a weigher answered, as a weight: what is above 2**32 - 1 counts as that.

    Raises:
        ConfigError: It is negative.
        TypeError: It is no integer.
    """
    if not isinstance(value, int):
        raise TypeError(f"the weigher must return an int, got {type(value).__name__}")
    if value < 0:
        raise ConfigError(f"the weigher must return a non-negative int, got {value}")
    return min(int(value), _HEAVIEST)


def clock(seconds: Callable[[], float] | None) -> Callable[[], int] | None:
    """A clock in seconds, as one in nanoseconds."""
    if seconds is None:
        return None
    if not callable(seconds):
        raise TypeError(f"clock must be a callable that returns seconds, got {type(seconds).__name__}")

    start = _CLOCK_START

    def nanoseconds() -> int:
        nonlocal start
        reading = int(seconds() * NANOSECONDS)
        shown = start + reading
        if 0 <= shown <= _LAST_READING:
            return shown
        # A leap over the end of the range: shown as one up to there, and time goes on from the middle. The guest takes
        # the way back, as any step back, for none.
        start = _CLOCK_START - reading
        return _LAST_READING if shown > 0 else _CLOCK_START

    return nanoseconds
