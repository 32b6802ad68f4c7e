"""Has an extension that counts its branches do what caches do most.

    profile_native.py EXTENSION

The extension is built by ``scripts/profile-native``. It writes what it counted when the interpreter ends, to where the
environment variable ``LLVM_PROFILE_FILE`` says.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROUNDS = 200
LIVE = 1_000
CAPACITY = 10_000


def use_extension(path: Path) -> ModuleType:
    """The package ``moka_wasm``, with this extension in the place of its own."""
    name = "moka_wasm._native"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    sys.modules[name] = extension
    spec.loader.exec_module(extension)

    import moka_wasm

    return moka_wasm


def exercise(cache: Any, keys: list[Any], absent: list[Any], value: Any, rounds: int) -> None:
    """Reads and writes of keys of one type."""
    cache.set_many(dict.fromkeys(keys, value))
    for _ in range(rounds):
        for _ in range(10):
            for key in keys:
                cache.get(key)
        for _ in range(5):
            for key in absent:
                cache.get(key)
        for _ in range(3):
            for key in keys:
                cache.set(key, value)
        for key in keys:
            cache.get_with(key, lambda: value)
            cache[key]
            assert key in cache
            cache.remove(key)
            cache.get_with(key, lambda: value)
        for start in range(0, len(keys), 100):
            cache.get_many(keys[start : start + 100])
            cache.set_many(dict.fromkeys(keys[start : start + 100], value))
    cache.remove_many(keys)


def give_lives(cache: Any, keys: list[Any], rounds: int) -> None:
    """Entries with deadlines of their own: from the first one on, every operation reads the clock."""
    for _ in range(rounds):
        for key in keys:
            cache.set(key, "x" * 20, 3600.0)
            cache.set(key, "x" * 20, ttl=3600)
            cache.get(key)
            cache.get_with(key, str, ttl=3600)


def call(function: Callable[[int, int], int], rounds: int) -> None:
    """Calls of a cached function."""
    for _ in range(rounds):
        for number in range(LIVE):
            function(number, number + 1)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    moka_wasm = use_extension(Path(sys.argv[1]))
    texts = [f"key:{number:06d}" for number in range(LIVE)]
    absent = [f"not:{number:06d}" for number in range(LIVE)]
    numbers = list(range(LIVE))
    pairs = [(text, number) for text, number in zip(texts, numbers, strict=True)]
    record = {"id": 12345, "name": "user12345", "score": 6172.5, "active": True}

    exercise(moka_wasm.Moka(CAPACITY), texts, absent, "x" * 20, ROUNDS)
    exercise(moka_wasm.Moka(CAPACITY, ttl=3600), texts, absent, "x" * 20, ROUNDS // 10)
    exercise(moka_wasm.Moka(CAPACITY, shards=2), texts, absent, "x" * 20, ROUNDS // 10)
    exercise(moka_wasm.Moka(CAPACITY), numbers, absent, 42, ROUNDS // 10)
    exercise(moka_wasm.Moka(CAPACITY), pairs, absent, b"x" * 100, ROUNDS // 10)
    for value in (record, [record] * 3, "é" * 20, 1.5, None, (1, "two", 3.0)):
        exercise(moka_wasm.Moka(CAPACITY), texts, absent, value, ROUNDS // 20)
    give_lives(moka_wasm.Moka(CAPACITY), texts, ROUNDS // 10)
    cache = moka_wasm.Moka(CAPACITY)
    for number in range(ROUNDS * LIVE):
        cache.set(f"new:{number:012d}", "x" * 20)

    def add(a: int, b: int) -> int:
        return a + b

    call(moka_wasm.cached(maxsize=CAPACITY)(add), ROUNDS)
    call(moka_wasm.cached(maxsize=CAPACITY, ttl=3600)(add), ROUNDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
