"""Threads, event loops, signal handlers, finalizers, listeners and forks: whoever comes in between finds a cache."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from test_cached import Clock
from test_single_flight import GUARD, Threads, run_async, until

from moka_wasm import ClosedError, Moka, SandboxError, cached
from moka_wasm import _direct_channel as direct
from moka_wasm._channel import CacheConfig

THREADS = 32


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Threads take turns every 50 microseconds, a hundred times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def in_threads(function: Callable[[int], Any], number: int = THREADS) -> list[Any]:
    """What the function answers in each of so many threads that begin together."""
    start = threading.Barrier(number)
    threads = Threads()

    def run(index: int) -> Any:
        start.wait(GUARD)
        return function(index)

    for index in range(number):
        threads.start(lambda index=index: run(index))  # type: ignore[misc]
    return threads.join()


def value_of(key: int, version: int = 0) -> dict[str, Any]:
    """A value that tells its key, of a size of its own."""
    return {"key": key, "version": version, "body": "x" * (key * 37 % 3000)}


def is_of(value: Any, key: int) -> bool:
    return value is None or (value["key"] == key and value["body"] == "x" * (key * 37 % 3000))


# Many threads.


def test_many_threads_on_one_cache() -> None:
    """32 threads that do everything at once to one cache never get another key's value."""
    cache: Moka[int, Any] = Moka(300)

    def work(index: int) -> None:
        for step in range(120):
            key = (index * 131 + step * 17) % 500
            kind = step % 10
            if kind < 3:
                cache.set(key, value_of(key, step))
            elif kind < 6:
                assert is_of(cache.get(key), key)
            elif kind == 6:
                assert is_of(cache.remove(key), key)
            elif kind == 7:
                found = cache.get_many(range(key, key + 10))
                assert all(is_of(value, number) for number, value in found.items())
            elif kind == 8:
                cache.set_many({number: value_of(number) for number in range(key, key + 5)})
            else:
                assert is_of(cache.get_with(key, lambda key=key: value_of(key)), key)  # type: ignore[misc]

    in_threads(work)
    assert all(is_of(value, key) for key, value in cache.items())
    assert len(cache) <= 300


def test_no_value_is_lost_without_a_bound() -> None:
    """What 32 threads set, each under its own keys, is all there, for them and for others."""
    cache: Moka[tuple[int, int], Any] = Moka(None)

    def work(index: int) -> None:
        for step in range(100):
            cache[index, step] = (index, step)
            assert cache[index, step] == (index, step)
            assert cache.get((index, step - 1)) == ((index, step - 1) if step else None)

    in_threads(work)
    assert dict(cache) == {(index, step): (index, step) for index in range(THREADS) for step in range(100)}
    stats = cache.stats()
    assert stats.insertions == 3200
    assert stats.hits + stats.misses == 3200 * 2 + len(cache)


def test_many_threads_on_many_caches() -> None:
    """Threads that share several caches find each value in its own cache only."""
    caches: list[Moka[int, Any]] = [Moka(None, name=str(number)) for number in range(8)]

    def work(index: int) -> None:
        for step in range(100):
            number = (index + step) % len(caches)
            caches[number][step] = (number, step)
            assert caches[number][step] == (number, step)

    in_threads(work)
    for number, cache in enumerate(caches):
        assert {value[0] for value in cache.values()} == {number}


def test_threads_that_open_and_close_caches() -> None:
    """Caches are opened, used and closed by 16 threads at once."""

    def work(index: int) -> None:
        for step in range(10):
            with Moka[int, Any](100, eviction_listener=lambda *removal: None) as cache:
                for key in range(20):
                    cache[key] = (index, step, key)
                assert cache[7] == (index, step, 7)

    in_threads(work, 16)


def test_large_values_of_many_threads() -> None:
    """Values larger than a mailbox, which grow and free mailboxes, do not get mixed up."""
    cache: Moka[int, bytes] = Moka(None, serializer="bytes")

    def work(index: int) -> None:
        value = bytes([index]) * (100_000 + index)
        for _ in range(10):
            cache[index] = value
            assert cache[index] == value
            other = cache.get((index + 1) % 12)
            assert other is None or other == bytes([(index + 1) % 12]) * (100_000 + (index + 1) % 12)

    in_threads(work, 12)


def test_a_memory_limit_holds_with_many_threads() -> None:
    """The memory limit holds, and nothing raises, whatever many threads put in."""
    limit = 12 << 20
    cache: Moka[int, bytes] = Moka(None, memory_limit=limit, serializer="bytes")

    def work(index: int) -> None:
        for step in range(200):
            key = index * 1000 + step
            cache[key] = bytes([index]) * (step * 40)
            assert cache.get(key) in (None, bytes([index]) * (step * 40))

    in_threads(work, 16)
    assert cache.stats().memory_bytes <= limit


def test_a_walk_while_threads_change_the_cache() -> None:
    """Walks go on while other threads set, remove and clear."""
    cache: Moka[int, int] = Moka(None)
    cache.update({number: number for number in range(2000)})
    over = threading.Event()

    def work(index: int) -> None:
        if index < 4:
            for _ in range(5):
                assert all(key == value for key, value in cache.items())
                keys = list(cache)
                assert len(keys) == len(set(keys))
            if index == 0:
                over.set()
            return
        step = 0
        while not over.is_set():
            step += 1
            cache[(step * 7 + index) % 3000] = (step * 7 + index) % 3000
            cache.pop((step * 11) % 3000, None)
            if step % 500 == 0:
                cache.clear()

    in_threads(work, 8)


def test_every_insertion_is_told_once_among_threads() -> None:
    """A listener hears of every removal once, on one of the threads that use the cache."""
    told: list[Any] = []
    told_on: set[int] = set()
    users: set[int] = set()

    def listener(*removal: Any) -> None:
        told.append(removal)
        told_on.add(threading.get_ident())

    cache: Moka[int, Any] = Moka(50, eviction_listener=listener)

    def work(index: int) -> None:
        users.add(threading.get_ident())
        for step in range(100):
            cache[(index * 7 + step) % 200] = (index, step)

    in_threads(work, 16)
    users.add(threading.get_ident())
    cache.run_pending_tasks()
    here = [value for _, value in cache.items()]
    gone = [value for _, value, _ in told]
    assert Counter(here + gone) == Counter((index, step) for index in range(16) for step in range(100))
    assert told_on <= users


# Time.


def test_a_late_reading_of_the_clock_makes_no_time_go_by() -> None:
    """A thread that read the clock, and was kept from the sandbox while others used it, does not make time run faster:
    between two moments the cache sees the time that went by between them, however the readings are ordered."""
    clock = Clock()
    interrupting = False

    def now() -> float:
        nonlocal interrupting
        reading = clock.now
        if interrupting:
            # As if the thread were switched here, and another one worked for a while.
            interrupting = False
            clock.now += 1
            cache.get("by another thread")
            interrupting = True
        return reading

    cache: Moka[str, int] = Moka(8, clock=now)
    cache.set("k", 1, ttl=1000)
    interrupting = True
    for _ in range(100):
        cache.get("late")
    interrupting = False
    assert cache.remaining("k") == pytest.approx(900, abs=1.5)


# Single flight.


def test_single_flight_computes_each_key_once() -> None:
    """Among 32 threads that ask for the same keys, each key is computed exactly once."""
    cache: Moka[int, Any] = Moka(None)
    computed: list[int] = []

    def compute(key: int) -> Any:
        computed.append(key)
        return value_of(key)

    def work(index: int) -> None:
        for step in range(60):
            key = (step * 7 + index % 4) % 60
            assert is_of(cache.get_with(key, functools.partial(compute, key)), key)

    in_threads(work)
    assert Counter(computed) == Counter(dict.fromkeys(computed, 1))


def test_single_flight_of_decorated_functions() -> None:
    """``cached(wait_concurrent=True)`` calls the function once for each argument, whatever threads call it."""
    calls: list[int] = []

    @cached(maxsize=None, wait_concurrent=True)
    def function(x: int) -> int:
        calls.append(x)
        return x * x

    assert in_threads(lambda index: [function(x) for x in range(50)]) == [[x * x for x in range(50)]] * THREADS
    assert sorted(calls) == list(range(50))


def test_two_event_loops_in_two_threads_share_a_computation() -> None:
    """Tasks in event loops of two threads wait for one computation, whichever loop runs it."""
    calls: list[int] = []
    both_are_here = threading.Barrier(2)

    @cached(maxsize=None, wait_concurrent=True)
    async def function(x: int) -> list[int]:
        calls.append(x)
        for _ in range(20):
            await asyncio.sleep(0)
        return [x]

    async def ask() -> list[Any]:
        both_are_here.wait(GUARD)
        return await asyncio.gather(*[function(x % 10) for x in range(100)])

    def work(index: int) -> Any:
        return asyncio.run(ask())

    results = in_threads(work, 2)
    assert results == [[[x % 10] for x in range(100)]] * 2
    assert sorted(calls) == list(range(10))


def test_two_event_loops_share_a_failure() -> None:
    """A computation that fails fails for the tasks of both loops that wait for it, and is not kept."""
    waiting = threading.Event()
    calls: list[str] = []

    @cached(wait_concurrent=True)
    async def function() -> str:
        calls.append("call")
        if len(calls) > 1:
            return "second"
        for _ in range(2000):
            if waiting.is_set():
                break
            await asyncio.sleep(0.001)
        raise LookupError("first")

    async def lead() -> str:
        with pytest.raises(LookupError):
            await function()
        return await function()

    async def follow() -> str:
        while not calls:
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.02, waiting.set)
        try:
            return await function()
        except LookupError:
            return "failed"

    results = in_threads(lambda index: asyncio.run(follow() if index else lead()), 2)
    assert sorted(results) in (["failed", "second"], ["second", "second"])
    assert len(calls) == 2


# Whatever comes in the middle of an operation, on the same thread.


class Interrupter:
    """Runs a function between the bytecodes of this package, as a signal handler or a finalizer would, at every place
    in turn."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.place = 0
        self.at = 0
        self.inside = False

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        if self.inside or not name.startswith("moka_wasm"):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self.place += 1
            if self.place == self.at:
                self.inside = True
                try:
                    self.function()
                finally:
                    self.inside = False
        return self._trace

    def run(self, operation: Callable[[], Any], check: Callable[[Any], None]) -> int:
        """Runs the operation again and again, interrupted at its first bytecode, its second and so on to the last."""
        # First uninterrupted: CPython 3.13.0 traces the bytecodes of a function only from its next call on.
        for self.at in range(100_000):
            self.place = 0
            before = sys.gettrace()
            sys.settrace(self._trace)
            try:
                result = operation()
            finally:
                sys.settrace(before)
            check(result)
            if self.place < self.at:
                return self.at
        raise AssertionError("the operation does not end")


def everything(cache: Moka[Any, Any]) -> None:
    """Uses the cache in every way, under keys of its own."""
    cache.set("handler", "h" * 300)
    assert cache.get("handler") == "h" * 300
    cache.set_many({"handler 2": 2, "handler 3": "x" * 70_000})
    assert cache.get_many(["handler 2", "handler"]) == {"handler 2": 2, "handler": "h" * 300}
    assert cache.pop("handler 3") == "x" * 70_000
    assert cache.remaining("handler 2") is not None
    assert cache.get_with("handler 4", lambda: [4]) == [4]
    assert "handler" in list(cache)
    cache.stats()


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize(
    "name", ["get", "miss", "set", "set large", "set ttl", "remove", "get_many", "set_many", "items", "get_with", "len"]
)
def test_an_operation_may_be_interrupted_anywhere_by_another(name: str, listens: bool) -> None:
    """A handler that uses the cache at any point in the middle of an operation changes nothing for that operation."""
    told: list[Any] = []
    cache: Moka[Any, Any] = Moka(None, eviction_listener=(lambda *removal: told.append(removal)) if listens else None)
    large = "y" * 100_000

    def prepare() -> None:
        cache.set("k", "value")
        cache.set("l", large)

    operations: dict[str, tuple[Callable[[], Any], Any]] = {
        "get": (lambda: cache.get("k"), "value"),
        "miss": (lambda: cache.get("absent"), None),
        "set": (lambda: (cache.set("k", "new"), cache.get("k"))[1], "new"),
        "set large": (lambda: (cache.set("l", large), cache.get("l"))[1], large),
        "set ttl": (lambda: (cache.set("k", "new", ttl=50), cache.get("k"))[1], "new"),
        "remove": (lambda: cache.remove("k"), "value"),
        "get_many": (lambda: cache.get_many(["k", "absent", "l"]), {"k": "value", "l": large}),
        "set_many": (lambda: (cache.set_many({"m": 1, "n": large}), cache["m"], cache["n"])[1:], (1, large)),
        "items": (lambda: {key: value for key, value in cache.items() if "handler" not in key}, None),
        "get_with": (lambda: cache.get_with("k", lambda: "computed"), "value"),
        "len": (lambda: len(cache) >= 2, True),
    }
    operation, expected = operations[name]
    if name == "items":
        expected = {"k": "value", "l": large}

    def check(result: Any) -> None:
        assert result == expected
        prepare()

    prepare()
    places = Interrupter(lambda: everything(cache)).run(operation, check)
    assert places > (20 if name == "items" else 0), "the extension runs few bytecodes, or none"
    if listens:
        assert len(told) > places
    assert len(cache._channel._lanes) < 20  # type: ignore[attr-defined]


def test_a_nested_interruption_uses_lanes_of_its_own() -> None:
    """Handlers may interrupt handlers; each operation under way has a lane of its own, and all come back."""
    depth = 0

    def clock() -> float:
        nonlocal depth
        if 0 < depth < 30:
            depth += 1
            level = depth
            assert cache.get("k") == "value"
            cache.set(f"deep {level}", level)
        return 1.0

    cache: Moka[str, Any] = Moka(None, clock=clock)
    cache.set("k", "value")
    depth = 1
    assert cache.get("k") == "value"
    depth = 0
    assert cache.get_many(f"deep {level}" for level in range(2, 31)) == {
        f"deep {level}": level for level in range(2, 31)
    }


def test_more_operations_under_way_than_lanes_is_an_error() -> None:
    """The 257th operation under way at once is refused; those before it end well, and the cache keeps its entries."""
    errors: list[str] = []
    depth = 0

    def clock() -> int:
        nonlocal depth
        if 0 < depth < 400:
            depth += 1
            try:
                channel.get(b"k")
            except SandboxError as error:
                errors.append(str(error))
                depth = 1000
        return 1

    channel = direct.DirectChannel(CacheConfig(clock=clock))
    channel.set(b"k", b"value")
    depth = 1
    frames = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 5000)
    try:
        assert channel.get(b"k") == b"value"
    finally:
        sys.setrecursionlimit(frames)
    depth = 0
    assert len(errors) == 1
    assert "256" in errors[0]
    assert channel.get(b"k") == b"value"
    assert channel.counters().entries == 1


def test_a_finalizer_of_the_same_garbage_uses_the_cache() -> None:
    """An object that became garbage together with its cache still finds what is in it, in its finalizer."""
    found: list[int | None] = []

    class Owner:
        def __init__(self, cache: Moka[str, int]) -> None:
            self.me, self.cache = self, cache

        def __del__(self) -> None:
            found.append(self.cache.get("k"))
            self.cache.set("another", 1)
            self.cache.run_pending_tasks()

    for number in range(20):
        cache: Moka[str, int] = Moka(10)  # older than its owner, so that its finalizers come first
        cache.set("k", number)
        Owner(cache)
        del cache
        gc.collect()
    assert found == list(range(20))


def test_a_signal_handler_uses_the_cache() -> None:
    """A handler of a signal that comes again and again uses the cache in the middle of its operations."""
    cache: Moka[Any, Any] = Moka(None)
    handled = 0
    handling = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal handled, handling
        if handling:  # a handler inside of a handler would take out what the outer one has just put in
            return
        handling = True
        try:
            everything(cache)
        finally:
            handled += 1
            handling = False

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        step = 0
        while handled < 100:
            step += 1
            cache.set(step % 100, (step, "x" * (step % 100)))
            found = cache.get(step % 100)
            assert found == (step, "x" * (step % 100))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert cache.get("handler") == "h" * 300


class Interrupt(BaseException):
    """What a handler raises, as Ctrl-C raises KeyboardInterrupt."""


@pytest.mark.parametrize("name", ["get", "set", "set large", "get_many", "remove", "items"])
def test_an_interrupt_anywhere_leaves_a_cache_that_works(name: str) -> None:
    """An exception that a signal handler raises at any point of an operation leaves no lane or key locked."""
    cache: Moka[Any, Any] = Moka(None)
    large = "y" * 100_000
    operations: dict[str, Callable[[], Any]] = {
        "get": lambda: cache.get("k"),
        "set": lambda: cache.set("k", "value"),
        "set large": lambda: cache.set("l", large),
        "get_many": lambda: cache.get_many(["k", "l"]),
        "remove": lambda: cache.remove("absent"),
        "items": lambda: dict(cache.items()),
    }

    def handler() -> None:
        raise Interrupt

    def operation() -> None:
        with contextlib.suppress(Interrupt):
            operations[name]()

    def check(result: Any) -> None:
        cache.set("other", "o")
        assert cache.get("other") == "o"
        assert cache.get_many(["k", "l"]) == {"k": "value", "l": large}

    cache.set("k", "value")
    cache.set("l", large)
    places = Interrupter(handler).run(operation, check)
    assert places > (20 if name == "items" else 0), "the extension runs few bytecodes, or none"
    guest = cache._channel._guest  # type: ignore[attr-defined]
    assert len(guest.free_lanes) > direct._LANES - 10


def test_a_finalizer_uses_the_cache() -> None:
    """A ``__del__`` that the garbage collector runs in the middle of an operation may use the same cache."""
    cache: Moka[Any, Any] = Moka(None)
    finalized = 0

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal finalized
            finalized += 1
            everything(cache)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for step in range(200):
            Cyclic()
            cache.set(step % 10, [step, [step]])
            assert cache.get(step % 10) == [step, [step]]
    finally:
        gc.set_threshold(*threshold)
    assert finalized > 50


# Listeners.


def test_a_listener_may_use_the_cache() -> None:
    """A listener may get, set, remove and clear; what that removes is told once it has returned, once."""
    told: list[Any] = []

    def listener(key: Any, value: Any, cause: str) -> None:
        told.append((key, value, cause))
        if isinstance(key, int) and key < 5:
            assert key not in cache or cause == "replaced"
            cache.set(key + 100, value)
            cache.set(key + 100, value)
            assert cache.get(key + 100) == value
            cache.remove(key + 100)

    cache: Moka[Any, Any] = Moka(None, eviction_listener=listener)
    cache.update({number: -number for number in range(5)})
    cache.remove(0)
    assert told == [(0, 0, "explicit"), (100, 0, "replaced"), (100, 0, "explicit")]
    told.clear()
    cache.clear()
    assert sorted(told) == sorted(
        entry
        for number in range(1, 5)
        for entry in (
            (number, -number, "explicit"),
            (number + 100, -number, "replaced"),
            (number + 100, -number, "explicit"),
        )
    )


def test_a_listener_may_clear_the_cache() -> None:
    """A listener that clears the cache hears of what it cleared."""
    told: list[Any] = []

    def listener(*removal: Any) -> None:
        told.append(removal)
        cache.clear()

    cache: Moka[str, int] = Moka(None, eviction_listener=listener)
    cache.update(a=1, b=2, c=3)
    cache.remove("a")
    assert told[0] == ("a", 1, "explicit")
    assert sorted(told) == [("a", 1, "explicit"), ("b", 2, "explicit"), ("c", 3, "explicit")]
    assert len(cache) == 0


@pytest.mark.parametrize("operation", ["remove", "set", "get", "set_many", "pop", "run_pending_tasks", "len", "clear"])
def test_a_listener_may_close_the_cache(operation: str) -> None:
    """If a listener closes the cache, the operation that called it still ends well; the next one says closed."""
    clock = Clock()
    told: list[Any] = []

    def listener(*removal: Any) -> None:
        told.append(removal)
        cache.close()

    cache: Moka[str, int] = Moka(None, eviction_listener=listener, clock=clock)
    cache.set("a", 1)
    for key in "bc":
        cache.set(key, 1, ttl=1)
    operations: dict[str, Callable[[], Any]] = {
        "remove": lambda: cache.remove("a"),
        "set": lambda: cache.set("a", 2),
        "get": lambda: cache.get("a"),
        "set_many": lambda: cache.set_many({"a": 2, "d": 3}),
        "pop": lambda: cache.pop("a"),
        "run_pending_tasks": lambda: cache.run_pending_tasks(),
        "clear": lambda: cache.clear(),
        "len": lambda: cache.remove("a"),
    }
    clock.now += 2
    operations[operation]()
    for _ in range(100):
        if told:
            break
        cache.run_pending_tasks()
    assert told
    with pytest.raises(ClosedError):
        cache.get("a")


def test_what_a_listener_raises_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener's exception goes to ``sys.unraisablehook``, with the listener; all else goes on."""
    reported: list[Any] = []
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def listener(key: int, value: int, cause: str) -> None:
        told.append(key)
        raise LookupError(key)

    cache: Moka[int, int] = Moka(None, eviction_listener=listener)
    cache.update({number: number for number in range(600)})
    assert cache.remove_many(range(600)) == 600
    assert sorted(told) == list(range(600))
    assert sorted(report.exc_value.args[0] for report in reported) == list(range(600))
    assert {report.object for report in reported} == {listener}


def test_an_interrupt_in_a_listener_loses_no_removal() -> None:
    """Ctrl-C in a listener reaches the caller; what was not told yet is told by the next operation."""
    told: list[Any] = []

    def listener(key: int, value: int, cause: str) -> None:
        told.append(key)
        if len(told) in (1, 300):
            raise KeyboardInterrupt

    cache: Moka[int, int] = Moka(None, eviction_listener=listener)
    cache.update({number: number for number in range(600)})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cache.clear()
    cache.get(0)
    assert sorted(told) == list(range(600))


# Forks.


def in_child(function: Callable[[], None]) -> int:
    """Forks, runs the function in the child, and answers its exit status: 0 if all went well."""
    child = os.fork()
    if child:
        for _ in range(int(GUARD / 0.01)):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            threading.Event().wait(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
    status = 1
    try:
        function()
        status = 0
    except BaseException as error:
        sys.stderr.write(f"in the child: {error!r}\n")
    finally:
        os._exit(status)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_threads_use_the_cache() -> None:
    """After a fork in a process whose threads use a cache, the cache works in the child and in the parent, apart."""
    cache: Moka[int, Any] = Moka(None)
    cache.update({number: value_of(number) for number in range(200)})
    over = threading.Event()
    threads = Threads()

    def use() -> str:
        step = 0
        while not over.is_set():
            step += 1
            cache[step % 200] = value_of(step % 200, step)
            assert is_of(cache[(step * 7) % 200], (step * 7) % 200)
        return "fine"

    def child() -> None:
        for key in range(200):
            assert is_of(cache[key], key)
            cache[key] = "child"
        assert set(cache.values()) == {"child"}
        assert len(cache) == 200
        assert cache.get_with("new", lambda: 1) == 1  # type: ignore[arg-type]
        with Moka[int, int](8) as another:
            another[1] = 2
            assert another[1] == 2

    threads.start(use, 4)
    statuses = [in_child(child) for _ in range(10)]
    over.set()
    assert threads.join() == ["fine"] * 4
    assert statuses == [0] * 10
    assert all(is_of(value, key) for key, value in cache.items())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_a_thread_computes() -> None:
    """A child does not wait for a computation whose thread exists in the parent only: it computes itself."""
    cache: Moka[str, str] = Moka(None)
    going_on = threading.Event()
    computing = threading.Event()
    threads = Threads()

    def compute() -> str:
        computing.set()
        assert going_on.wait(GUARD)
        return "parent"

    def child() -> None:
        assert cache.get_with("k", lambda: "child") == "child"
        assert cache.get("k") == "child"

    threads.start(lambda: cache.get_with("k", compute))
    assert computing.wait(GUARD)
    status = in_child(child)
    going_on.set()
    assert threads.join() == ["parent"]
    assert status == 0
    assert cache.get("k") == "parent"


def test_a_child_process_that_ends_as_usual() -> None:
    """A forked child that has used the parent's caches exits as usual, with its finalizers, and does not hang."""
    program = """
        import os
        from moka_wasm import Moka
        cache = Moka(None, eviction_listener=lambda *removal: None)
        cache["a"] = 1
        child = os.fork()
        cache["a"] = 2
        assert cache["a"] == 2
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def assert_ends_quietly(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interpreter_that_ends_with_caches_in_use() -> None:
    """An interpreter ends quietly whatever caches, walks, listeners and daemon threads there are."""
    program = """
        import sys, threading
        from moka_wasm import Moka, cached
        cache = Moka(100, eviction_listener=lambda *removal: None)
        walk = iter(cache)
        cache.update({number: number for number in range(2000)})
        walk = iter(cache)
        next(walk)

        class Late:
            def __del__(self):
                cache["late"] = 1
                assert cache["late"] == 1

        late = sys.modules["late"] = Late()
        threading.Thread(target=lambda: [cache.get(1) for _ in iter(int, 1)], daemon=True).start()
    """
    assert_ends_quietly(program)


def test_an_interpreter_that_ends_with_a_cache_in_the_package() -> None:
    """A cache that outlives the names of the package's own module ends quietly too."""
    program = """
        from moka_wasm import Moka, _sandbox
        cache = Moka(10)
        _sandbox.engine = lambda interruptible: cache
    """
    assert_ends_quietly(program)


def test_run_async_is_the_guarded_runner() -> None:
    """An event loop may use a plain cache between its steps."""
    cache: Moka[int, int] = Moka(None)

    async def work(number: int) -> None:
        for step in range(20):
            cache[number] = step
            await asyncio.sleep(0)
            assert cache[number] == step

    async def main() -> None:
        await asyncio.gather(*[work(number) for number in range(20)])

    run_async(main())
    until(lambda: len(cache) == 20)
