"""Measures single operations of ``moka_wasm`` and moka-py.

Unless a row says otherwise: a cache of capacity 10,000, 1,000 live entries without ttl, str keys of 10 characters, str
values of 20 characters, asked for in a fixed random order with keys that equal the stored ones but are other objects.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, islice
from typing import Any

import moka_py
from rounds import Inputs, Side, time_in_passes
from section import Options, progress
from table import Goal, Row

import moka_wasm

CAPACITY = 10_000
LIVE = 1_000
VALUE = "x" * 20
BATCH = 100

SUBJECTS: tuple[tuple[str, Any], ...] = (("moka_wasm", moka_wasm), ("moka-py", moka_py))


def live_keys() -> list[str]:
    """The keys that are live, in the order in which they are asked for; new objects every time."""
    keys = [f"key:{number:06d}" for number in range(LIVE)]
    random.Random(1).shuffle(keys)
    return keys


def again_and_again(items: list[Any]) -> Callable[[int], Inputs]:
    """Inputs that go round these items."""
    return lambda number: list(islice(cycle(items), number))


def with_each(function: Callable[[Any], object]) -> Callable[[Inputs], None]:
    """Calls a function with each input."""

    def run(inputs: Inputs) -> None:
        for item in inputs:
            function(item)

    return run


def setting(store: Callable[[Any, Any], object], value: object) -> Callable[[Inputs], None]:
    """Stores one value under each key."""

    def run(keys: Inputs) -> None:
        for key in keys:
            store(key, value)

    return run


def filled(module: Any, value: object = VALUE, **options: Any) -> Any:
    """A cache with the live entries."""
    cache = module.Moka(CAPACITY, **options)
    for key in live_keys():
        cache.set(key, value)
    assert cache.get(live_keys()[0]) == value
    assert cache.get("absent") is None
    return cache


def absent_keys() -> list[str]:
    """Keys that are never there."""
    return [key.replace("key", "not") for key in live_keys()]


def get_hit(module: Any) -> Side:
    return Side(with_each(filled(module).get), again_and_again(live_keys()))


def get_miss(module: Any) -> Side:
    return Side(with_each(filled(module).get), again_and_again(absent_keys()))


def set_existing(module: Any) -> Side:
    return Side(setting(filled(module).set, VALUE), again_and_again(live_keys()))


def new_keys() -> Callable[[int], Inputs]:
    """Inputs that never were there before."""
    numbers = count()
    return lambda number: [f"new:{next(numbers):012d}" for _ in range(number)]


def set_new(module: Any) -> Side:
    cache = filled(module)
    keys = new_keys()
    store = setting(cache.set, VALUE)
    store(keys(2 * CAPACITY))
    return Side(store, keys)


def set_with_ttl(module: Any) -> Side:
    store = filled(module).set

    def run(keys: Inputs) -> None:
        for key in keys:
            store(key, VALUE, ttl=3600.0)

    return Side(run, again_and_again(live_keys()))


def set_and_tell(module: Any) -> Side:
    told = 0

    def listener(key: str, value: str, cause: str) -> None:
        nonlocal told
        told += 1

    cache = filled(module, eviction_listener=listener)
    cache.set(live_keys()[0], VALUE)
    assert told == 1
    return Side(setting(cache.set, VALUE), again_and_again(live_keys()))


def set_and_remove(module: Any) -> Side:
    cache = filled(module)
    store, remove = cache.set, cache.remove

    def run(keys: Inputs) -> None:
        for key in keys:
            store(key, VALUE)
            remove(key)

    return Side(run, again_and_again(absent_keys()))


def get_with_computed(module: Any) -> Side:
    get_with = filled(module).get_with

    def run(keys: Inputs) -> None:
        for key in keys:
            get_with(key, compute)

    def compute() -> str:
        return VALUE

    return Side(run, new_keys())


def get_with_hit(module: Any) -> Side:
    get_with = filled(module).get_with

    def run(keys: Inputs) -> None:
        for key in keys:
            get_with(key, compute)

    def compute() -> str:
        raise AssertionError("a hit computes nothing")

    return Side(run, again_and_again(live_keys()))


def get_dict(module: Any) -> Side:
    cache = filled(module, {"id": 12345, "name": "user12345", "score": 6172.5, "active": True})
    return Side(with_each(cache.get), again_and_again(live_keys()))


def cached_hit(ttl: float | None) -> Callable[[Any], Side]:
    def side(module: Any) -> Side:
        @module.cached(maxsize=CAPACITY, ttl=ttl)  # type: ignore[untyped-decorator]
        def add(a: int, b: int) -> int:
            return a + b

        pairs = [(number, number + 1) for number in range(LIVE)]
        random.Random(1).shuffle(pairs)

        def run(inputs: Inputs) -> None:
            for a, b in inputs:
                add(a, b)

        run(pairs)
        return Side(run, again_and_again(pairs))

    return side


def get_many(_: Any) -> Side:
    return Side(with_each(filled(moka_wasm).get_many), again_and_again(_batches()))


def get_one_by_one(module: Any) -> Side:
    get = filled(module).get
    return Side(with_each(lambda keys: {key: get(key) for key in keys}), again_and_again(_batches()))


def _batches() -> list[list[str]]:
    keys = live_keys()
    return [keys[start : start + BATCH] for start in range(0, LIVE, BATCH)]


OPERATIONS: tuple[tuple[str, Callable[[Any], Side], Goal], ...] = (
    ("get, hit", get_hit, Goal(10, 1.0)),
    ("get, miss", get_miss, Goal(native=1.0)),
    ("set, existing key", set_existing, Goal(4, 0.65)),
    ("set, new key with eviction", set_new, Goal(native=0.8)),
    ("set, existing key, own ttl", set_with_ttl, Goal()),
    ("set, existing key, a listener told", set_and_tell, Goal()),
    ("set, then remove", set_and_remove, Goal()),
    ("get_with, hit", get_with_hit, Goal(native=1.0)),
    ("get_with, computed", get_with_computed, Goal()),
    ("get, hit, dict of 4 fields", get_dict, Goal(native=2.5)),
    ("cached f(int, int), hit", cached_hit(None), Goal(native=0.6)),
    ("cached f(int, int), hit, with ttl", cached_hit(3600), Goal(native=0.6)),
)


def section(options: Options) -> Iterator[Row]:
    """Single operations, ours against moka-py's."""
    many = f"get_many of {BATCH} keys"
    rows: dict[str, Callable[[], dict[str, Side]]] = {
        operation: partial(sides_of, side) for operation, side, _ in OPERATIONS
    }
    rows[many] = lambda: {"get_many": get_many(None), **sides_of(get_one_by_one)}
    times = time_in_passes(rows, options.effort, options.passes, progress)
    for operation, _, goal in OPERATIONS:
        yield Row(operation, "moka-py", times[operation]["moka_wasm"], times[operation]["moka-py"], goal=goal)
    ours = times[many]["get_many"]
    yield Row(many, f"{BATCH} gets of moka_wasm", ours, times[many]["moka_wasm"])
    yield Row(many, f"{BATCH} gets of moka-py", ours, times[many]["moka-py"], goal=Goal(native=0.8))


def sides_of(side: Callable[[Any], Side]) -> dict[str, Side]:
    """One of each package."""
    return {name: side(module) for name, module in SUBJECTS}
