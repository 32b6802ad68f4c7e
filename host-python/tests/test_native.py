"""The native extension: the same bytes and values as in Python, and all that it leaves to Python."""

# pyright: basic

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moka_wasm._hot as hot
from moka_wasm import ClosedError, EntryTooLargeError, GuestMemoryError, Moka, SandboxError, UnsupportedKeyError
from moka_wasm._keys import encode_key
from moka_wasm._listener import Listener
from moka_wasm._values import resolve_serializer

pytestmark = pytest.mark.skipif(hot._native is None, reason="the extension is not here, or is turned off")

SERIALIZER = resolve_serializer(None)
INTEGERS = st.integers() | st.sampled_from(
    [
        sign * (1 << bits) + step
        for sign in (1, -1)
        for bits in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64)
        for step in (-1, 0, 1)
    ]
)
TEXT = st.text(st.characters(exclude_categories=()), max_size=40) | st.integers(0, 300).map("x".__mul__)
LEAVES = st.none() | st.booleans() | INTEGERS | st.floats() | TEXT | st.binary(max_size=300) | st.complex_numbers()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(INTEGERS | TEXT | st.none() | st.floats() | st.binary(), inner, max_size=20)
        | st.tuples(inner, inner)
    ),
    max_leaves=40,
)
KEYS = st.recursive(LEAVES, lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=3))


def types(value: Any) -> Any:
    """The value's types, at any depth, and its text, which tells NaN and -0.0."""
    if isinstance(value, dict):
        return dict, [(types(key), types(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [types(item) for item in value]
    return type(value), repr(value)


class Text(str):
    pass


class Seconds(float):
    pass


@pytest.fixture(scope="module")
def shared() -> Moka[Any, Any]:
    cache: Moka[Any, Any] = Moka(100)
    assert cache._channel.binding.bound
    return cache


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(deadline=None, max_examples=500)
@given(KEYS, VALUES)
def test_bytes_and_values_are_those_of_python(shared: Moka[Any, Any], key: Any, value: Any) -> None:
    """What is stored under which bytes, and what comes back, is what the codecs in Python say."""
    data = SERIALIZER.dumps(value)
    assert shared._encode_key(key) == encode_key(key)
    shared.set(key, value)
    assert shared._channel.get(encode_key(key)) == data
    assert shared._get_encoded(encode_key(key)) == data
    for found in (shared.get(key), shared[key], shared._loads(data), SERIALIZER.loads(data)):
        assert types(found) == types(value)
    shared.clear()
    assert shared.get(key) is None
    assert shared.get(key, value) is value
    shared._channel.set(encode_key(key), data)
    assert types(shared.get(key)) == types(value)


@settings(deadline=None, max_examples=1000)
@given(
    st.binary(max_size=30)
    | VALUES.map(SERIALIZER.dumps)
    .flatmap(
        lambda data: st.tuples(st.integers(0, len(data)), st.binary(max_size=3)).map(
            lambda change: data[: change[0]] + change[1] + data[change[0] + 1 :]
        )
    )
    .filter(lambda data: not data.startswith(b"\xc1"))
)
def test_hostile_bytes_are_what_python_makes_of_them(shared: Moka[Any, Any], data: bytes) -> None:
    """Bytes that no codec wrote give the value or the error that Python gives."""
    if data.startswith(b"\xc1"):
        return
    shared._channel.set(encode_key("hostile"), data)
    try:
        expected = SERIALIZER.loads(data)
    except Exception as error:
        with pytest.raises(type(error)):
            shared.get("hostile")
        with pytest.raises(type(error)):
            shared._loads(data)
    else:
        assert types(shared.get("hostile")) == types(expected)
        assert types(shared._loads(data)) == types(expected)


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 199, 200, 201, 300])
def test_nested_values(shared: Moka[Any, Any], depth: int) -> None:
    """Deep values have Python's bytes, also beyond what the extension and MessagePack go into."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    shared.set("deep", value)
    assert shared._channel.get(encode_key("deep")) == SERIALIZER.dumps(value)
    assert shared.get("deep") == value


@pytest.mark.parametrize(
    "size",
    [0, 255, 256, 16_000, 16_383, 16_384, 65_536, *range(hot.MAILBOX - 12, hot.MAILBOX + 2), 1_000_000],
)
def test_large_keys_and_values(shared: Moka[Any, Any], size: int) -> None:
    """What does not fit into the extension's mailbox goes the long way."""
    for key, value in (("k", "x" * size), ("x" * size, 1), ("k", b"x" * size), (("t", "x" * size), [0] * size)):
        shared.set(key, value)
        assert shared.get(key) == value
        assert shared._channel.get(encode_key(key)) == SERIALIZER.dumps(value)


@pytest.mark.parametrize(
    ("limit", "room"), [(None, 72), (1 << 20, 16), (4 << 20, 16), (8 << 20, 32), (64 << 20, 72), (4 << 30, 72)]
)
def test_the_lane_takes_little_of_the_memory_limit(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, room: int
) -> None:
    """The extension's lane has room for 64 KiB, but where that would be more than a 256th of the memory limit."""
    lanes: list[Any] = []
    bind = hot.bind
    monkeypatch.setattr(hot, "bind", lambda binding, guest, lane: (lanes.append(lane), bind(binding, guest, lane)))
    Moka(None, memory_limit=limit)
    assert [lane.room for lane in lanes] == [room << 10]


def test_arguments() -> None:
    """By name or by position, as the methods in Python; too many and too few are a TypeError."""
    cache: Any = Moka(8)
    cache.set(key="a", value=1)
    cache.set("b", value=2, ttl=None)
    cache.set("c", 3, None, None)
    cache.set("d", 4, 60, tti=timedelta(minutes=1))
    cache.set("d", 4, tti=60, ttl=None)
    assert cache.get_with("d", lambda: 5, tti=1.5) == cache.get_with("d", initializer=lambda: 5, ttl=1) == 4
    assert (cache.remove("d", default=0), cache.remove("d", default=0), cache.remove("d", 1)) == (4, 0, 1)
    assert (cache.get(key="a"), cache.get("b", default=0), cache.get("x", default=0), cache.get("c", 0)) == (1, 2, 0, 3)
    for call in (
        cache.get, cache.set, cache.__getitem__, lambda: cache.get(1, 2, 3), lambda: cache.set(1),
        lambda: cache.set(1, 2, None, None, None), lambda: cache.get("a", nothing=1), lambda: Moka.get("a", "b"),
        lambda: cache.set(1, 2, None, ttl=None), lambda: cache.set(1, 2, 3, ttl=4), lambda: cache.set(1, 2, nothing=3),
        cache.remove, cache.get_with, cache.__contains__, cache.__delitem__, lambda: cache.get_with("a"),
        lambda: cache.remove(1, 2, 3), lambda: cache.get_with("a", lambda: 1, 1, ttl=1), lambda: cache.set(1, ttl=2),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()
    for call in (
        lambda: cache.get([]), lambda: cache.set([], 1), lambda: cache[{}], lambda: cache.get((1, [])),
        lambda: cache.remove([]), lambda: [] in cache, lambda: cache.set([], 1, ttl=1),
    ):  # fmt: skip
        with pytest.raises(UnsupportedKeyError):
            call()
    with pytest.raises(KeyError) as caught:
        cache[1, 2]
    assert caught.value.args == ((1, 2),)
    with pytest.raises(KeyError) as caught:
        del cache[1, 2]
    assert caught.value.args == ((1, 2),)
    with pytest.raises(ValueError, match="ttl"):
        cache.set("a", 1, -1)
    with pytest.raises(ValueError, match="tti"):
        cache.set("a", 1, None, -1)
    # Also where the value is there.
    with pytest.raises(ValueError, match="ttl"):
        cache.get_with("a", lambda: 1, ttl=0)


def test_the_short_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is common does not go through the channel."""
    cache: Any = Moka(8)
    # From now on there are deadlines, which the channel is to know of.
    cache.set("first", 1, ttl=60)
    for name in ("get", "set", "contains", "remove"):
        monkeypatch.delattr(type(cache._channel), name)
    for number in range(3):
        key = ("key", number)
        cache.set(key, number, *[60, 60.5][:number])
        cache[number] = number
        assert (cache.get(key), cache[key], key in cache, number in cache) == (number, number, True, True)
        assert cache.get_with(key, lambda: 0, 5) == cache.get_with(key, lambda: 0, tti=5) == number
        assert cache.remove(key) == number
        assert cache.remove(key) is None
        assert cache.remove(key, 5) == 5
        assert cache.get_with(key, lambda: "computed", ttl=60) == "computed"
        assert cache.pop(key) == "computed"
        del cache[number]
        assert key not in cache
        assert number not in cache
    cache._set_encoded(encode_key("encoded"), "encoded", [1], cache._dumps([1]), None, 1.5)
    assert cache.get("encoded") == [1]


DURATIONS = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.floats(1e-12, 1e-6)
    | st.integers()
    | st.timedeltas()
    | st.sampled_from([2**63, 2**64 - 1, 2**64, 2.0**64, 18446744073.709551, 1e10, 10**10, 584.0 * 365 * 86400, 1e308])
    | st.sampled_from(["1", b"1", [1], 1j, Decimal(1), Seconds(1.5)])
)


@pytest.fixture(scope="module")
def by_python() -> Moka[Any, Any]:
    """A cache whose ``set`` the extension leaves to Python, as it has a weigher."""
    return Moka(8, clock=lambda: 1.0, weigher=lambda key, value: 1)


@pytest.fixture(scope="module")
def by_extension() -> Moka[Any, Any]:
    return Moka(8, clock=lambda: 1.0)


@settings(deadline=None, max_examples=1000)
@given(DURATIONS, DURATIONS)
def test_lives_are_those_of_python(by_python: Moka[Any, Any], by_extension: Moka[Any, Any], ttl: Any, tti: Any) -> None:
    """How long an entry lives is what Python makes of the arguments, and so is what is said of those that cannot be."""

    def outcome(cache: Any) -> Any:
        try:
            cache.set("k", 1, ttl, tti=tti)
        except Exception as error:
            return type(error), str(error)
        return cache._channel.remaining(encode_key("k"))

    assert outcome(by_extension) == outcome(by_python)


def test_subclasses() -> None:
    """Subclasses of built-in types are left to Python, and a subclass of the cache may override."""

    class Loud(Moka[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            return ("loud", super().get(key, default))

    cache = Loud(8)
    cache.set(Text("a"), 1)
    cache.set(True, Text("b"))
    assert cache.get("a") == ("loud", 1)
    assert type(cache[1]) is Text


def test_a_closed_cache() -> None:
    """After close there is no way into the sandbox any more, and its memory is given back."""
    cache: Any = Moka(8)
    binding = cache._channel.binding
    cache.set("a", 1)
    assert binding.bound
    cache.close()
    assert not binding.bound
    for call in (
        lambda: cache.get("a"),
        lambda: cache.set("a", 1),
        lambda: cache["a"],
        lambda: cache._get_encoded(b"a"),
        lambda: cache.remove("a"),
        lambda: "a" in cache,
        lambda: cache.set("a", 1, ttl=1),
    ):
        with pytest.raises(ClosedError):
            call()


def test_a_trap_gives_an_error_and_a_new_guest() -> None:
    """A call that traps raises SandboxError, once; the cache goes on, empty, and natively."""
    cache: Any = Moka(8)
    for call in (
        lambda: cache.get("a"),
        lambda: cache.set("a", 1),
        lambda: cache.set("a", 1, ttl=5),
        lambda: cache.remove("a"),
        lambda: cache.__delitem__("a"),
        lambda: "a" in cache,
        lambda: cache._set_encoded(encode_key("a"), "a", 1, b"\x01", None, None),
    ):
        cache.set("a", 1, 60)
        channel = cache._channel
        old = channel._guest
        # A function whose code is `unreachable`, in the place of get and set.
        break_guest(channel)
        with pytest.raises(SandboxError) as caught:
            call()
        assert caught.value.__cause__ is not None
        assert channel._guest is not old
        assert channel.binding.bound
        assert cache.get("a") is None


def instance_of(text: str, channel: Any) -> Any:
    import wasmtime

    store = channel._guest.sandbox.store
    module = wasmtime.Module(store.engine, wasmtime.wat2wasm(text))
    return wasmtime.Instance(store, module, []).exports(store)


def rebind(channel: Any, get: Any, put: Any) -> None:
    """Binds the extension to functions of a hostile guest; ``get`` also in the place of those that are called alike."""
    import ctypes

    from moka_wasm._direct_channel import _Lane

    guest = channel._guest
    reads = dict.fromkeys(("get", "contains", "remove"), ctypes.addressof(get._func))
    guest.functions = {**guest.functions, **reads, "set": ctypes.addressof(put._func)}
    guest.kept = (get, put)
    hot.bind(channel.binding, guest, _Lane(guest, hot.MAILBOX))


SET = "(param i32 i32 i32 i32 i32 i64 i64 i64) (result i64)"
GET = "(param i32 i32 i32 i64) (result i64)"


def break_guest(channel: Any) -> None:
    exports = instance_of(
        f'(module (func (export "get") {GET} unreachable) (func (export "set") {SET} unreachable))', channel
    )
    rebind(channel, exports["get"], exports["set"])


@pytest.mark.parametrize(
    "answer",
    [
        (1 << 32) | 0xFFFF_FFFF,
        (0x3FFF_FFFF << 32) | 0,
        (0x3FFF_FFFF << 32) | 0xFFFF_FFFF,
        (0x7FFF_FFFF << 32) | 0xFFFF_FFF0,
        (10 << 32) | 0xF000_0000,
    ],
)
def test_an_answer_outside_of_the_memory(answer: int) -> None:
    """A guest that says that its answer lies where it has no memory gives a SandboxError, and is not believed."""
    cache: Any = Moka(8)
    constant = f"(i64.const {answer})"
    exports = instance_of(
        f'(module (func (export "get") {GET} {constant}) (func (export "set") {SET} {constant}))', cache._channel
    )
    rebind(cache._channel, exports["get"], exports["set"])
    for call in (
        lambda: cache.get("a"),
        lambda: cache["a"],
        lambda: cache._get_encoded(b"a"),
        lambda: cache.set("a", 1),
        lambda: cache.remove("a"),
        lambda: "a" in cache,
    ):
        with pytest.raises(SandboxError, match="memory up to"):
            call()


@pytest.mark.parametrize("upper", [0x8000_0001, 0x8000_0003, 0xC000_0000, 0xFFFF_FFFF])
def test_an_answer_that_makes_no_sense(upper: int) -> None:
    """*yes* in answer to a look-up, and kinds that there are not, are nothing found, as in Python."""
    cache: Any = Moka(8)
    constant = f"(i64.const {upper << 32})"
    exports = instance_of(
        f'(module (func (export "get") {GET} {constant}) (func (export "set") {SET} {constant}))', cache._channel
    )
    rebind(cache._channel, exports["get"], exports["set"])
    assert cache.get("a", 5) == 5
    assert cache.remove("a", 5) == 5
    # Anything but *no*, as in Python.
    assert ("a" in cache) == (upper != 0xC000_0000)


def test_addresses_that_cannot_be() -> None:
    """A mailbox outside of the memory is refused."""
    cache: Any = Moka(8)
    lane = cache._channel._lanes[-1]
    lane.address = 1 << 32
    with pytest.raises(ValueError, match="addresses"):
        hot.bind(cache._channel.binding, cache._channel._guest, lane)


def test_finalizers_that_use_the_cache() -> None:
    """The garbage collector may run while a value is decoded, and what it runs may use, or close, the cache."""
    cache: Any = Moka(1000)
    value = {f"key {number}": [number, {"inner": [str(number)]}] for number in range(100)}
    runs = []

    class Node:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            runs.append(cache.get("other"))
            cache.set("other", {"list": [1, 2, 3]})
            cache.get("value")

    cache.set("value", value)
    cache.set("other", {"list": [1, 2, 3]})
    old = gc.get_threshold()
    gc.set_threshold(2, 1, 1)
    try:
        for _ in range(300):
            Node()
            assert cache.get("value") == value
            cache.set("value", value)
    finally:
        gc.set_threshold(*old)
    assert len(runs) > 100
    assert all(run == {"list": [1, 2, 3]} for run in runs)


def test_a_clock_that_uses_or_closes_the_cache() -> None:
    """A caller's clock runs before anything is written; it may do what it likes."""
    calls = []

    def clock() -> float:
        calls.append(1)
        if len(calls) % 2 and len(calls) > 2 and len(calls) < 50:
            cache.set("inner", [len(calls)])
            assert isinstance(cache.get("inner"), list)
        if len(calls) == 60:
            cache.close()
        return float(len(calls))

    cache: Any = Moka(8, clock=clock)
    with pytest.raises(ClosedError):  # noqa: PT012
        for number in range(100):
            cache.set("k", number)
            assert cache.get("k") == number


def test_time_agrees_with_python() -> None:
    """Without a caller's clock, both ways have the same time, which goes by as fast for either."""
    now = time.monotonic_ns

    def spend(span: int) -> int:
        began = now()
        while now() - began < span:
            pass
        return now()

    life, spent = 1000 * 10**9, 2 * 10**7
    cache: Any = Moka(8, ttl=1000)
    # The extension's clock started a little late: the cache is to see no time that it was opened at by Python's.
    before = spend(10**7)
    cache.set("first", 1)
    later = spend(spent)
    cache.set("second", 1)
    assert cache.get("first") == cache.get("second") == 1
    # Those by Python's clock.
    second, first = (cache._channel.remaining(encode_key(key)) for key in ("second", "first"))
    after = now()
    assert spent <= second - first <= after - before
    assert life - (after - later) - 10**9 < second <= life
    cache._channel.set(encode_key("third"), b"\x01")
    assert cache.get("third") == 1


def test_too_large_and_errors_of_the_guest() -> None:
    """Errors that the guest answers have their text and their class."""
    cache: Any = Moka(None, memory_limit=4 << 20)
    with pytest.raises(EntryTooLargeError):
        cache.set("k", b"x" * (5 << 20))
    cache.set("k", 1)
    assert cache.get("k") == 1


def test_an_error_leaves_the_mailbox_where_it_is() -> None:
    """The mailbox that the extension writes into is not given back when the guest answers an error."""
    cache: Any = Moka(None)
    store = cache._channel._guest.sandbox.store
    store.set_limits(memory_size=8 << 20)
    with pytest.raises(GuestMemoryError):  # noqa: PT012
        for number in range(8 << 20):
            cache.set(number, "x" * 10_000)
    store.set_limits(memory_size=64 << 20)
    for number in range(100):
        cache.set(number, str(number) * (hot.MAILBOX // 2 - 50))
    for number in range(100):
        assert cache.get(number) == str(number) * (hot.MAILBOX // 2 - 50)


@pytest.mark.parametrize("operation", ["get", "getitem", "in", "not in", "set", "get_with", "remove"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_listener_is_told_by_the_next_operation(operation: str, shards: int) -> None:
    """Whatever that is, its own answer is right, and what the listener does with the cache works."""
    told: list[Any] = []
    now = [0.0]

    def listener(key: Any, value: Any, cause: str) -> None:
        if cause == "expired":
            cache.set("seen", [*cache.get("seen", []), key])
            told.append((key, value))

    cache: Any = Moka(100, eviction_listener=listener, clock=lambda: now[0], shards=shards)
    assert cache._takes_short_ways
    do: Any = {
        "get": lambda: cache.get("live") == 1,
        "getitem": lambda: cache["live"] == 1,
        "in": lambda: "live" in cache,
        "not in": lambda: "absent" not in cache,
        "set": lambda: cache.set("live", 2) is None and cache.get("live") == 2,
        "get_with": lambda: cache.get_with("live", lambda: 3) == 1,
        "remove": lambda: cache.remove("live") == 1,
    }[operation]
    cache.set("live", 1)
    # In every shard one that expires.
    for number in range(20):
        cache.set(number, str(number), ttl=1)
    now[0] = 10.0
    assert do()
    if shards == 2 or "in" in operation:
        # What expired in another shard is told by an operation of its own, and `in` takes nothing out.
        assert [cache.get(number) for number in range(20)] == [None] * 20
    assert sorted(told) == sorted((number, str(number)) for number in range(20))
    assert set(cache.get("seen")) >= set(range(20))


def test_an_interrupted_listener_is_told_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next operation, though the guest has nothing more to tell; then the short ways are taken again."""
    told: list[int] = []

    def listener(key: int, _: int, __: str) -> None:
        told.append(key)
        if len(told) == 5:
            raise KeyboardInterrupt

    cache: Any = Moka(None, eviction_listener=listener)
    cache.update({number: number for number in range(20)})
    with pytest.raises(KeyboardInterrupt):
        cache.clear()
    assert len(told) == 5
    assert cache.get(0) is None
    assert sorted(told) == list(range(20))
    monkeypatch.delattr(type(cache._channel), "get")
    assert cache.get(0) is None


@pytest.mark.parametrize("length", [1, 300, 20_000])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_listener_is_told_of_all_that_one_operation_removes(length: int, shards: int) -> None:
    """Of more removals than are told at once, and of more bytes."""
    told: list[Any] = []
    now = [0.0]
    cache: Any = Moka(
        None, ttl=5, eviction_listener=lambda *removal: told.append(removal), clock=lambda: now[0], shards=shards
    )
    for number in range(400):
        cache.set(number, str(number) * length)
    now[0] = 10.0
    keys = iter(range(1000))
    while len(told) < 400:
        assert cache.get(next(keys)) is None
    assert sorted(told) == [(number, str(number) * length, "expired") for number in range(400)]
    cache.set("a", 1)
    assert cache.remove("a") == 1
    assert told[400:] == [("a", 1, "explicit")]


def test_a_listener_may_use_the_cache_by_the_short_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it removes itself is told after it has returned."""
    told: list[Any] = []

    def listener(key: int, value: int, cause: str) -> None:
        assert cache.get(key) == (value + 1 if cause == "replaced" else None)
        told.append((key, value))
        cache.remove(key + 1)
        assert len(told) == value

    cache: Any = Moka(None, eviction_listener=listener)
    for number in range(1, 11):
        cache.set(number, number)
    monkeypatch.delattr(type(cache._channel), "get")
    monkeypatch.delattr(type(cache._channel), "remove")
    cache.set(1, 2)
    assert told == [(number, number) for number in range(1, 11)]


def test_removals_that_the_sandbox_has_no_memory_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation that removed them does what it should, and they are told as soon as there is memory."""
    told: list[Any] = []
    functions = tuple("get" if name == "drain" else name for name in hot._FUNCTIONS)
    with monkeypatch.context() as patch:
        # What answers no bytes is left to Python.
        patch.setattr(hot, "_FUNCTIONS", functions)
        cache: Any = Moka(None, eviction_listener=lambda *removal: told.append(removal))

    def no_memory(*_: Any) -> None:
        cache._channel.removals_wait = False
        raise GuestMemoryError("none")

    cache.set("a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(cache._channel, "finish_hot", no_memory)
        cache.set("a", 2)
    assert told == []
    assert cache.remove("a") == 2
    assert told == [("a", 1, "replaced"), ("a", 2, "explicit")]


@pytest.mark.parametrize("operation", ["set", "remove", "get"])
def test_an_interrupt_before_the_listener_is_told(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the extension has drained by then is told by the next operation."""
    told: list[Any] = []
    now = [0.0]
    cache: Any = Moka(None, eviction_listener=lambda *removal: told.append(removal), clock=lambda: now[0])
    cache.set("a", 1, ttl=5)
    now[0] = 10.0 if operation == "get" else 1.0

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache._listener, "notify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(cache, operation)(*["a", 2][: 2 if operation == "set" else 1])
    assert told == []
    assert "absent" not in cache
    assert told == [("a", 1, {"set": "replaced", "remove": "explicit", "get": "expired"}[operation])]


def test_removals_that_do_not_keep_to_their_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that says it removed more than it tells."""
    functions = tuple("stats" if name == "drain" else name for name in hot._FUNCTIONS)
    monkeypatch.setattr(hot, "_FUNCTIONS", functions)
    cache: Any = Moka(None, eviction_listener=lambda *_: None)
    for number in range(1000):
        assert cache.get(number) is None
    cache.set("a", 1)
    with pytest.raises(ValueError, match="does not keep to its format"):
        cache.set("a", 2)
    assert cache._channel.get(encode_key("a")) == SERIALIZER.dumps(2)


def test_weigher_listener_and_serializer() -> None:
    """Weighers and serializers go the long way; what a listener is to be told, Python tells it."""
    weights: list[Any] = []
    removed: list[Any] = []
    cache: Any = Moka(100, weigher=lambda key, value: weights.append(key) or 1)
    cache.set("a", 1)
    cache["b"] = 2
    assert weights == ["a", "b"]
    cache = Moka(100, eviction_listener=lambda *removal: removed.append(removal))
    assert cache._takes_short_ways
    cache.set("a", 1)
    cache.set("a", 2)
    assert removed.pop() == ("a", 1, "replaced")
    assert cache.remove("a") == 2
    assert removed.pop() == ("a", 2, "explicit")
    cache["a"] = 3
    del cache["a"]
    assert removed.pop() == ("a", 3, "explicit")
    cache.set_many({"a": 4, "b": 5})
    assert cache.remove_many(["a", "b", "c"]) == 2
    assert removed == [("a", 4, "explicit"), ("b", 5, "explicit")]
    for serializer in ("json", "bytes", "pickle"):
        cache = Moka(8, serializer=serializer)
        cache.set("a", b"x" if serializer == "bytes" else "x")
        assert cache.get("a") in ("x", b"x")


def test_a_cache_in_a_cycle_is_collected() -> None:
    """A clock that refers to the cache keeps neither alive."""
    import weakref

    class Clock:
        cache: Any = None

        def __call__(self) -> float:
            return 1.0

    clock = Clock()
    clock.cache = Moka(8, clock=clock)
    reference = weakref.ref(clock)
    del clock
    gc.collect()
    assert reference() is None


def test_pure() -> None:
    """The environment variable turns it off, and a self-test that fails does, with a warning."""
    program = """
        import os, warnings
        import moka_wasm, moka_wasm._hot as hot
        cache = moka_wasm.Moka(8)
        cache.set("a", 1)
        assert cache.get("a") == 1
        assert hot._native is None
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    assert subprocess.run(command, env={**os.environ, "MOKA_WASM_PURE": "1"}, timeout=60).returncode == 0


def test_a_self_test_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension is not used once it was seen to be wrong; the warning says why."""
    monkeypatch.setattr(hot, "_tested", set())
    monkeypatch.setattr(hot, "_native", hot._native)
    dumps = type(SERIALIZER).dumps
    monkeypatch.setattr(type(SERIALIZER), "dumps", lambda self, value: b"\xc0")
    with pytest.warns(RuntimeWarning, match="goes on without its native extension, and slower: it stored ''"):
        Moka(8)
    monkeypatch.setattr(type(SERIALIZER), "dumps", dumps)
    cache: Any = Moka(8)
    cache.set("a", math.pi)
    assert cache.get("a") == math.pi


def test_a_self_test_of_listeners_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with a listener does without the extension, and so do those after it."""
    monkeypatch.setattr(hot, "_tested", set())
    monkeypatch.setattr(hot, "_native", hot._native)
    told: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(Listener, "notify", lambda *_: None)
        with pytest.warns(RuntimeWarning, match=r"slower: it told the listener \[\]"):
            cache: Any = Moka(8, eviction_listener=lambda *removal: told.append(removal))
    assert not cache._takes_short_ways
    cache.set("a", math.pi)
    assert cache.remove("a") == math.pi
    assert told == [("a", math.pi, "explicit")]
