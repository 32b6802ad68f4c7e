"""Faults of the host: interrupts anywhere, callbacks that raise, block, come back or close, odd clocks, exits."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
import wasmtime
from test_single_flight import Threads
from test_threads import Interrupt, Interrupter, everything
from test_trap import broken, broken_file, stop, use_file

from moka_wasm import ClosedError, Moka, SandboxError, cached
from moka_wasm._channel import UNLIMITED, CacheConfig
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import _LANES, DirectChannel
from moka_wasm._keys import encode_key

__all__ = ["broken", "broken_file", "use_file"]

GUARD = 60
YEAR = 365 * 86_400


# Interrupts.

OPERATIONS: dict[str, Callable[[Moka[Any, Any]], Any]] = {
    "get": lambda cache: cache.get("k"),
    "get item": lambda cache: cache["k"],
    "in": lambda cache: "k" in cache,
    "set": lambda cache: cache.set("k", "value"),
    "set with lives": lambda cache: cache.set("k", "value", ttl=50, tti=60),
    "set item": lambda cache: cache.__setitem__("k", "value"),
    "get_with": lambda cache: cache.get_with("k", lambda: "value"),
    "get_with that computes": lambda cache: (cache.remove("n"), cache.get_with("n", lambda: "new")),
    "remove": lambda cache: cache.remove("gone"),
    "pop": lambda cache: cache.pop("gone", None),
    "popitem": lambda cache: cache.set(*cache.popitem()),
    "del": lambda cache: (cache.set("m", 1), cache.pop("m", None)),
    "setdefault": lambda cache: cache.setdefault("k", "value"),
    "update": lambda cache: cache.update({"k": "value"}, l="value"),
    "get_many": lambda cache: cache.get_many(["k", "l", "gone"]),
    "set_many": lambda cache: cache.set_many({"k": "value", "l": "value"}),
    "remove_many": lambda cache: cache.remove_many(["gone", "m"]),
    "expire": lambda cache: cache.expire("k", None),
    "remaining": lambda cache: cache.remaining("k"),
    "iteration": lambda cache: list(cache),
    # Walks that are given up; whole ones are before and after.
    "keys": lambda cache: next(iter(cache.keys())),
    "values": lambda cache: next(iter(cache.values())),
    "items": lambda cache: list(cache.items()),
    "len": lambda cache: len(cache),
    "count": lambda cache: cache.count(),
    "weighted_size": lambda cache: cache.weighted_size(),
    "run_pending_tasks": lambda cache: cache.run_pending_tasks(),
    "stats": lambda cache: cache.stats(),
    "repr": lambda cache: repr(cache),
    "clear": lambda cache: (cache.clear(), cache.update(k="value", l="value")),
}

# Public methods that are not among them, and why.
EXCEPTIONS = {
    "close": "test_an_interrupt_anywhere_while_a_cache_is_opened_or_closed",
}


def test_every_public_method_is_interrupted() -> None:
    """The list of operations above names every public method, but for those with a test of their own."""
    named = {name.split()[0] for name in OPERATIONS}
    public = {name for name in dir(Moka) if not name.startswith("_")}
    assert public - named == set(EXCEPTIONS)
    assert set(EXCEPTIONS.values()) <= set(globals())


@pytest.fixture
def interrupted_finalizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what is raised in finalizers; pytest's own hook would keep it, and with it the lanes in its frames."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "listener": {"eviction_listener": lambda *_: None},
    "timeout": {"operation_timeout": 600},
    "shards": {"shards": 3},
    "shards and listener": {"shards": 3, "eviction_listener": lambda *_: None},
}


def interrupt() -> None:
    raise Interrupt


def assert_lanes_are_free(cache: Any) -> None:
    """Hardly a lane of any shard is lost."""
    channel = cache._channel
    for shard in getattr(channel, "_shards", (channel,)):
        assert len(shard._guest.free_lanes) > _LANES - 10


@pytest.mark.usefixtures("interrupted_finalizers")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_interrupt_anywhere_in_any_method(name: str, options: str) -> None:
    """Ctrl-C at any bytecode of any method leaves a cache that works, no key in computation and hardly a lane lost."""
    cache: Moka[Any, Any] = Moka(None, **OPTIONS[options])
    entries = {"k": "value", "l": "value"}
    cache.update(entries)

    def operation() -> None:
        with contextlib.suppress(Interrupt, KeyError):
            OPERATIONS[name](cache)

    def check(_: Any) -> None:
        cache.update(entries)
        assert cache.get_many(entries) == entries
        assert cache.get_with("computed", lambda: 1) == 1
        assert cache._flights._flights == {}

    Interrupter(interrupt).run(operation, check)
    assert_lanes_are_free(cache)
    assert cache.stats().restarts == 0


CACHED_CALLS: dict[str, Callable[[Any], Any]] = {
    "hit": lambda function: function(1),
    "miss": lambda function: (function.cache_invalidate(2), function(2)),
    "hit with keywords": lambda function: function(x=1),
    "cache_clear": lambda function: function.cache_clear(),
    "cache_invalidate": lambda function: (function.cache_invalidate(1), function.cache_invalidate(1)),
    "cache_info": lambda function: function.cache_info(),
    "cache_key": lambda function: function.cache_key(1),
    "cache_parameters": lambda function: function.cache_parameters(),
}


@pytest.mark.usefixtures("interrupted_finalizers")
@pytest.mark.parametrize(("wait", "shards"), [(False, 1), (True, 1), (True, 3)])
@pytest.mark.parametrize("name", CACHED_CALLS)
def test_an_interrupt_anywhere_in_a_cached_function(name: str, wait: bool, shards: int) -> None:
    """Ctrl-C at any bytecode of a cached function's call, or of its attributes, leaves a function that answers, is
    cached and can be cleared, and no key in computation."""

    @cached(wait_concurrent=wait, shards=shards)
    def double(x: int) -> list[int]:
        return [2 * x]

    def operation() -> None:
        with contextlib.suppress(Interrupt):
            CACHED_CALLS[name](double)

    def check(_: Any) -> None:
        assert [double(1), double(x=1), double(2), double(3)] == [[2], [2], [4], [6]]
        before = double.cache_info()
        assert double(1) == [2]
        assert double.cache_info() == before._replace(hits=before.hits + 1)
        assert double.cache_invalidate(3)
        assert not double.cache_invalidate(3)
        assert double.cache._flights._flights == {}

    double(1)
    places = Interrupter(interrupt).run(operation, check)
    assert places > (0 if "hit" in name else 5), "the extension runs few bytecodes, or none, of a call that hits"
    assert_lanes_are_free(double.cache)
    assert double.cache.stats().restarts == 0
    double.cache_clear()
    assert double.cache_info() == (0, 0, 128, 0)


@pytest.mark.usefixtures("interrupted_finalizers")
def test_an_interrupt_anywhere_while_a_cache_is_opened_or_closed() -> None:
    """Ctrl-C while a cache is opened leaves nothing behind; while it is closed, it can be closed again."""

    def life() -> Moka[Any, Any] | None:
        with contextlib.suppress(Interrupt), Moka[Any, Any](8, eviction_listener=lambda *_: None) as cache:
            cache.set("k", 1)
            return cache
        return None

    def check(cache: Moka[Any, Any] | None) -> None:
        if cache is not None:
            cache.close()
            with pytest.raises(ClosedError):
                cache.get("k")

    assert Interrupter(interrupt).run(life, check) > 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_no_random_numbers_for_a_cache_that_is_opened(error: type[BaseException], monkeypatch: Any) -> None:
    """What is raised while the guest asks for random numbers reaches the caller, once: no later call sees it."""

    def urandom(_: int) -> bytes:
        raise error("no entropy")

    with monkeypatch.context() as patch:
        patch.setattr("moka_wasm._sandbox.os.urandom", urandom)
        with pytest.raises(error if error is KeyboardInterrupt else SandboxError) as raised:
            Moka(8)
    if error is OSError:
        assert isinstance(raised.value.__cause__, OSError)
    cache: Moka[str, int] = Moka(8, operation_timeout=60)
    with pytest.raises(wasmtime.WasmtimeError, match="expected"):
        wasmtime.Module(wasmtime.Engine(), b"not wasm")
    store = wasmtime.Store()
    with pytest.raises(wasmtime.Trap):
        wasmtime.Instance(store, wasmtime.Module(store.engine, "(module (func $f unreachable) (start $f))"), [])
    cache.close()


@pytest.mark.usefixtures("broken", "interrupted_finalizers")
def test_an_interrupt_anywhere_while_a_sandbox_is_replaced() -> None:
    """Ctrl-C while a trap is dealt with leaves a cache that goes on with the next operation, or the one after it."""
    cache: Moka[Any, Any] = Moka(8)

    def operation() -> None:
        with contextlib.suppress(Interrupt, SandboxError):
            cache.set_many({"k": 1})

    def check(_: Any) -> None:
        for _ in range(3):
            with contextlib.suppress(SandboxError):
                cache.set_many({"other": 1})
                cache.get("other")
        cache.set("k", 1)
        assert cache.get_many(["k"]) == {"k": 1}
        stop(cache, "set_many")

    check(None)
    assert Interrupter(interrupt).run(operation, check) > 20
    assert cache.stats().restarts > 20


@pytest.mark.usefixtures("broken")
def test_a_handler_uses_the_cache_while_its_sandbox_is_replaced() -> None:
    """A signal handler amid the replacement uses the cache, which is replaced once, by whoever is first."""
    cache: Moka[Any, Any] = Moka(None)
    before = 0

    def handler() -> None:
        # Whatever it stores may be gone with the sandbox at once.
        for _ in range(3):
            with contextlib.suppress(SandboxError):
                cache.set("handler", 1)
                assert cache.get("handler") in (1, None)
                cache.set_many({"handler": 2})
                assert cache.remove("handler") in (2, None)

    def operation() -> None:
        with contextlib.suppress(SandboxError):
            cache.get_many(["k"])

    def check(_: Any) -> None:
        nonlocal before
        everything(cache)
        restarts = cache.stats().restarts
        assert restarts == before + 1, "one trap, one replacement"
        before = restarts
        stop(cache, "get_many")

    everything(cache)
    stop(cache, "get_many")
    assert Interrupter(handler).run(operation, check) > 20
    assert before > 20


# Callbacks.


SHARDS = pytest.mark.parametrize("shards", [1, 3])


def fail() -> None:
    raise LookupError("no")


class Odd:
    """A serializer of text that first does what it was given to do, once."""

    def __init__(self) -> None:
        self.dumping: list[Callable[[], object]] = []
        self.loading: list[Callable[[], object]] = []

    def dumps(self, value: Any) -> bytes:
        if self.dumping:
            self.dumping.pop()()
        return str(value).encode()

    def loads(self, data: bytes) -> Any:
        if self.loading:
            self.loading.pop()()
        return data.decode()


# What calls the serializer and what the weigher, with what it answers on a cache that has "v" under "k" alone.
STORES: dict[str, tuple[Callable[[Moka[Any, Any]], Any], Any]] = {
    "set": (lambda cache: cache.set("k", "w"), None),
    "set item": (lambda cache: cache.__setitem__("new", "w"), None),
    "set with a ttl": (lambda cache: cache.set("k", "w", ttl=50), None),
    "set_many": (lambda cache: cache.set_many({"k": "w", "new": "w"}), None),
    "update": (lambda cache: cache.update(k="w"), None),
    "get_with": (lambda cache: cache.get_with("new", lambda: "w"), "w"),
    "setdefault": (lambda cache: cache.setdefault("new", "w"), "w"),
}
LOADS: dict[str, tuple[Callable[[Moka[Any, Any]], Any], Any]] = {
    "get": (lambda cache: cache.get("k"), "v"),
    "get item": (lambda cache: cache["k"], "v"),
    "get_many": (lambda cache: cache.get_many(["k", "new"]), {"k": "v"}),
    "get_with": (lambda cache: cache.get_with("k", lambda: "w"), "v"),
    "setdefault": (lambda cache: cache.setdefault("k", "w"), "v"),
    "values": (lambda cache: list(cache.values()), ["v"]),
    "items": (lambda cache: list(cache.items()), [("k", "v")]),
    "remove": (lambda cache: cache.remove("k"), "v"),
    "pop": (lambda cache: cache.pop("k"), "v"),
    "popitem": (lambda cache: cache.popitem(), ("k", "v")),
}
CALLBACKS = [("dumps", name) for name in STORES] + [("loads", name) for name in LOADS]
CALLBACKS += [("weigher", name) for name in STORES]


def with_callback(where: str, name: str, shards: int) -> tuple[Any, list[Callable[[], object]], Callable[[], Any], Any]:
    """A cache with "v" under "k"; what the callback is to do once; the operation that calls it, and its answer."""
    odd, weighing = Odd(), list[Callable[[], object]]()

    def weigher(key: Any, value: Any) -> int:
        if weighing:
            weighing.pop()()
        return 1

    cache: Moka[Any, Any] = Moka(
        None, serializer=odd, weigher=weigher if where == "weigher" else None, shards=shards, name=where
    )
    cache["k"] = "v"
    operation, expected = (LOADS if where == "loads" else STORES)[name]
    actions = {"dumps": odd.dumping, "loads": odd.loading, "weigher": weighing}[where]
    return cache, actions, lambda: operation(cache), expected


@SHARDS
@pytest.mark.parametrize(("where", "name"), CALLBACKS)
def test_a_callback_that_uses_the_cache(where: str, name: str, shards: int) -> None:
    """A serializer or a weigher may use the cache in any way: it runs with nothing held, and the operation that called
    it answers as ever."""
    cache, actions, operation, expected = with_callback(where, name, shards)
    found: list[Any] = []

    def use() -> None:
        cache.update({number: number for number in range(20)})
        assert cache.get_many(range(20)) == {number: str(number) for number in range(20)}
        assert cache.get_with("computed", lambda: "c") == "c"
        assert cache.pop("computed") == "c"
        assert cache.remove_many(range(20)) == 20
        cache["other"] = "o"
        found.append(cache.pop("other"))

    actions.append(use)
    assert operation() == expected
    assert found == ["o"]
    assert cache.get_with("after", lambda: "a") == "a"
    assert cache._flights._flights == {}


@SHARDS
@pytest.mark.parametrize(("where", "name"), CALLBACKS)
def test_a_callback_that_raises(where: str, name: str, shards: int) -> None:
    """What a serializer or a weigher raises reaches the caller, once; nothing is stored, no key in computation."""
    cache, actions, operation, expected = with_callback(where, name, shards)
    actions.append(fail)
    with pytest.raises(LookupError, match="no"):
        operation()
    assert not actions
    assert cache._flights._flights == {}
    if name in ("remove", "pop", "popitem"):
        assert "k" not in cache, "the value was taken out before it was decoded"
        cache["k"] = "v"
    assert dict(cache.items()) == {"k": "v"}
    assert operation() == expected


@SHARDS
@pytest.mark.parametrize(("where", "name"), CALLBACKS)
def test_a_callback_that_closes_the_cache(where: str, name: str, shards: int) -> None:
    """If a serializer or a weigher closes the cache, what was got is answered, what was to be stored is refused with
    ClosedError, and so is all that follows."""
    cache, actions, operation, expected = with_callback(where, name, shards)
    actions.append(cache.close)
    if where == "loads":
        assert operation() == expected
    else:
        with pytest.raises(ClosedError, match="open a new one"):
            operation()
    assert not actions
    assert cache._flights._flights == {}
    with pytest.raises(ClosedError, match="open a new one"):
        cache.get("k")


@SHARDS
@pytest.mark.parametrize(("where", "name"), CALLBACKS)
def test_a_callback_that_blocks(where: str, name: str, shards: int) -> None:
    """While a serializer or a weigher blocks on one thread, others use the cache, also the key that it is about."""
    cache, actions, operation, expected = with_callback(where, name, shards)
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        assert go_on.wait(GUARD)

    actions.append(block)
    threads = Threads()
    threads.start(operation)
    try:
        assert blocked.wait(GUARD)

        def use() -> None:
            for step in range(20):
                cache[step] = step
                assert cache.get(step) == str(step)
            cache.set("k", "of another thread")
            assert cache.get("k") == "of another thread"
            assert cache.get_with("k", lambda: "w") == "of another thread"
            assert cache.remove_many([*range(20), "k"]) == 21
            assert len(cache) == 0

        others = Threads()
        others.start(use)
        assert others.join() == [None]
    finally:
        go_on.set()
    assert threads.join() == [expected]
    stored = {"set": ["k"], "set with a ttl": ["k"], "update": ["k"], "set_many": ["k", "new"]}.get(name, ["new"])
    assert dict(cache.items()) == ({} if where == "loads" else dict.fromkeys(stored, "w"))


@pytest.mark.parametrize("how", ["close", "clear", "recurse", "raise"])
def test_an_initializer_that_interferes(how: str) -> None:
    """An initializer that closes or clears the cache, or asks for another key, or raises, hangs nobody: its caller gets
    the value or the error, and those who wait the same."""
    cache: Moka[str, int] = Moka(8)
    waiting = 3
    outcomes: list[Any] = []

    def compute() -> int:
        while cache._flights.waiting(encode_key("k")) < waiting:
            threading.Event().wait(0.001)
        if how == "close":
            cache.close()
        elif how == "clear":
            cache.clear()
        elif how == "recurse":
            return cache.get_with("other", lambda: 7)
        else:
            raise LookupError("no")
        return 7

    def ask() -> None:
        try:
            outcomes.append(cache.get_with("k", compute))
        except Exception as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(waiting + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
        assert not thread.is_alive()
    if how == "close":
        assert sorted(map(str, outcomes)) == sorted(map(str, [7] * waiting + [ClosedError]))
    else:
        assert outcomes == [LookupError if how == "raise" else 7] * (waiting + 1)
    assert cache._flights._flights == {}


def test_a_listener_that_blocks_holds_up_its_own_thread_alone() -> None:
    """While a listener blocks on one thread, others use the cache, and are told what they remove."""
    blocked, go_on = threading.Event(), threading.Event()
    told: list[Any] = []

    def listener(key: str, value: int, cause: str) -> None:
        if key == "blocks":
            blocked.set()
            assert go_on.wait(GUARD)
        told.append((key, value, cause))

    cache: Moka[str, int] = Moka(8, eviction_listener=listener)
    cache["blocks"] = 1
    thread = threading.Thread(target=lambda: cache.remove("blocks"))
    thread.start()
    assert blocked.wait(GUARD)
    for step in range(10):
        cache["k"] = step
        assert cache.pop("k") == step
    assert told == [("k", step, "explicit") for step in range(10)]
    go_on.set()
    thread.join(GUARD)
    assert told[-1] == ("blocks", 1, "explicit")


class Awkward:
    """A hashable object of no known type, whose methods all raise."""

    def __eq__(self, other: object) -> bool:
        raise LookupError("no comparison")

    def __hash__(self) -> int:
        raise LookupError("no hash")

    def __repr__(self) -> str:
        raise LookupError("no text")


def test_keys_whose_methods_raise() -> None:
    """A key whose ``__eq__``, ``__hash__`` and ``__repr__`` raise gives an error, and leaves the cache as it was."""
    cache: Moka[Any, int] = Moka(8)
    cache["k"] = 1
    for key in (Awkward(), ("k", Awkward()), (1, (2, Awkward()))):
        for call in (cache.get, cache.remove, cache.__contains__, lambda key: cache.set(key, 1)):
            with pytest.raises((TypeError, LookupError)):
                call(key)
    assert dict(cache.items()) == {"k": 1}


# Clocks and deadlines.


def test_a_clock_that_stands_still() -> None:
    """Without time nothing expires, however short its life, and everything else works."""
    cache: Moka[int, int] = Moka(None, ttl=1e-6, tti=1e-6, clock=lambda: 5.0)
    for key in range(1000):
        cache[key] = key
    assert cache.get_many(range(1000)) == {key: key for key in range(1000)}
    assert len(cache) == 1000


@pytest.mark.parametrize("leap", [300 * YEAR, 250 * YEAR])
def test_a_clock_that_leaps_by_centuries(leap: float) -> None:
    """After a leap of centuries everything with a deadline is over, the rest is there, and new lives are what they are
    to be."""
    now = 0.0
    cache: Moka[str, int] = Moka(8, clock=lambda: now)
    cache.set("an hour", 1, ttl=3600)
    cache.set("200 years", 1, ttl=200 * YEAR)
    cache.set("for ever", 1)
    now += leap
    assert cache.get_many(["an hour", "200 years", "for ever"]) == {"for ever": 1}
    cache.set("k", 1, ttl=10)
    now += 9
    assert cache.get("k") == 1
    now += 2
    assert cache.get("k") is None
    assert list(cache) == ["for ever"]


@pytest.mark.parametrize("years", [0.5, 1.1, 2.2])
def test_a_clock_that_leaps_by_years(years: float) -> None:
    """Deadlines hold where the time since the cache was opened takes over 32 bits, in seconds of the sandbox."""
    now = 0.0
    cache: Moka[str, int] = Moka(8, clock=lambda: now)
    cache.set("until then", 1, ttl=years * YEAR)
    cache.set("and a minute", 1, ttl=years * YEAR + 60)
    now += years * YEAR
    assert cache.get_many(["until then", "and a minute"]) == {"and a minute": 1}
    assert cache.remaining("and a minute") == pytest.approx(60, abs=0.1)
    now += 60
    assert cache.get("and a minute") is None


def test_a_clock_that_jumps_to_and_fro() -> None:
    """A clock that jumps about makes no life longer than its steps forward, and loses no entry without a deadline."""
    readings = [0.0, 1e6, -1e6, 5.0, 1e9, -1e9, 0.0, 3.0]
    at = 0

    def clock() -> float:
        nonlocal at
        at += 1
        return readings[at % len(readings)]

    cache: Moka[int, int] = Moka(None, clock=clock)
    for key in range(500):
        cache[key] = key
        cache.set(1000 + key, key, ttl=1)
        cache.get(key)
    assert cache.get_many(range(500)) == {key: key for key in range(500)}
    cache.run_pending_tasks()
    assert cache.get(1000) is None


FACES = pytest.mark.parametrize("kind", [DirectChannel, ComponentChannel])


@FACES
@pytest.mark.parametrize("life", [64, 65, 127, 128, 6400, 6401, 64 * 10**9, 2**62])
def test_the_very_deadline(kind: Any, life: int) -> None:
    """An entry lives up to the last 64 nanoseconds before its deadline, and no longer than to the deadline itself,
    wherever between two multiples of 64 it was set."""
    for phase in (0, 1, 31, 63):
        now = 64 * 10**6
        # One for each phase: time comes to its end after four of the longest lives.
        channel = kind(CacheConfig(clock=lambda: now))  # noqa: B023
        for deadline in ("ttl", "tti", "expire"):
            now += phase
            start = now
            channel.set(b"k", b"v", 1, life if deadline == "ttl" else None, life if deadline == "tti" else None)
            if deadline == "expire":
                assert channel.expire(b"k", life)
            assert channel.remaining(b"k") == life
            now = start + life - 64
            assert channel.contains(b"k")
            assert channel.remaining(b"k") == 64
            now = start + life
            assert not channel.contains(b"k")
            assert channel.get(b"k") is None
            assert channel.remaining(b"k") is None
        channel.close()


@FACES
def test_the_shortest_life(kind: Any) -> None:
    """A life of 1 ns is taken, and is over a nanosecond later."""
    now = 5
    channel = kind(CacheConfig(clock=lambda: now))
    channel.set(b"short", b"v", 1, 1, None)
    channel.set(b"idle", b"v", 1, None, 1)
    channel.set(b"shortened", b"v")
    assert channel.expire(b"shortened", 1)
    now += 1
    for key in (b"short", b"idle", b"shortened"):
        assert not channel.contains(key)
        assert channel.get(key) is None
        assert channel.remaining(key) is None
    channel.close()


@FACES
@pytest.mark.parametrize("life", [2**63 - 1, 2**63, 2**64 - 2])
def test_the_longest_lives(kind: Any, life: int) -> None:
    """Lives of centuries up to 2**64 - 2 ns, the last of which is for ever, are taken, and none overflows."""
    now = 5
    channel = kind(CacheConfig(clock=lambda: now))
    left = UNLIMITED if life == 2**64 - 2 else life
    for ttl, tti in ((life, None), (None, life), (life, life)):
        channel.set(b"k", b"v", 1, ttl, tti)
        assert channel.remaining(b"k") == left
        now += 1000
        assert channel.get(b"k") == b"v"
        assert channel.remaining(b"k") == (left if ttl is None or left == UNLIMITED else left - 1000)
        assert channel.expire(b"k", life)
        assert channel.get(b"k") == b"v"
        # At the end of time a life is shorter by what has gone by since the cache was opened.
        assert life - 10_000 < channel.remaining(b"k") <= life
    channel.close()


# The interpreter.


def run(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=GUARD
    )
    return done.returncode, done.stdout, done.stderr


def test_an_interpreter_that_ends_while_threads_wait() -> None:
    """An interpreter ends quietly although daemon threads compute, wait for a computation, and are told of removals."""
    program = """
        import asyncio, atexit, sys, threading
        from moka_wasm import Moka, cached
        never = threading.Event()
        began = threading.Barrier(4)
        cache = Moka(8, eviction_listener=lambda *removal: (began.wait(), never.wait()))
        flying = Moka(8)

        @cached(wait_concurrent=True)
        async def slow(x):
            began.wait()
            await asyncio.sleep(3600)

        def compute():
            began.wait()
            never.wait()

        cache["k"] = 1
        for target in (
            lambda: flying.get_with("k", compute),
            lambda: asyncio.run(slow(1)),
            lambda: cache.remove("k"),
        ):
            threading.Thread(target=target, daemon=True).start()
        began.wait(60)
        threading.Thread(target=lambda: flying.get_with("k", compute), daemon=True).start()
        atexit.register(lambda: cache.get("other"))
        print("over")
    """
    code, out, errors = run(program)
    assert (code, out.strip(), errors) == (0, "over", "")


def test_a_subinterpreter_is_refused() -> None:
    """In a subinterpreter the package cannot be imported; the main interpreter's caches live on."""
    program = """
        import sys
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            try:
                import _interpreters as interpreters
            except ImportError:
                print("none")
                sys.exit()
        from moka_wasm import Moka
        cache = Moka(8)
        cache["k"] = 1
        one = interpreters.create()
        script = (
            "try:\\n"
            "    from moka_wasm import Moka\\n"
            "except ImportError as error:\\n"
            "    assert 'subinterpreter' in str(error), error\\n"
            "    print('refused')\\n"
        )
        failed = interpreters.run_string(one, script)
        assert failed is None, failed
        interpreters.destroy(one)
        assert cache["k"] == 1
        cache["k"] = 3
        assert cache["k"] == 3
    """
    code, out, errors = run(program)
    assert code == 0, errors
    assert out.strip() in ("refused", "none")


def test_a_decorated_function_whose_cache_is_closed_says_so() -> None:
    """A cache that somebody closed under a decorated function is a ClosedError, not a call without a cache."""

    @cached
    def double(x: int) -> int:
        return 2 * x

    assert double(1) == 2
    double.cache.close()
    with pytest.raises(ClosedError, match="open a new one"):
        double(1)
