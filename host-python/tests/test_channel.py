"""The direct channel's own edges: sizes around a mailbox's, guests that are hostile or broken, damaged files."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from broken_guest import forget_compiled

from moka_wasm import (
    ClosedError,
    EntryTooLargeError,
    GuestMemoryError,
    IncompatibleComponentError,
    Moka,
    SandboxError,
    _component_channel,
    _component_file,
    _hot,
    _sandbox,
)
from moka_wasm._channel import UNLIMITED, CacheConfig, Channel, Entry
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import _FUNCTIONS, _LENGTH, DirectChannel

MIB = 1 << 20
MAILBOX = 65_536
# What the guests of these tests have room for at the most: the extension's lane takes more than the others.
ROOM = _hot.MAILBOX
EDGES = [0, 1, 2, MAILBOX - 2, MAILBOX - 1, MAILBOX, MAILBOX + 1, 2 * MAILBOX, 10 * MIB]


@pytest.fixture
def channel() -> Iterator[DirectChannel]:
    channel = DirectChannel(CacheConfig())
    yield channel
    channel.close()


def filled(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


# Sizes.


@pytest.mark.parametrize("size", EDGES)
def test_a_value_of_any_size(channel: DirectChannel, size: int) -> None:
    """Values from nothing to 10 MiB, and those just around a mailbox's size, come out as they went in."""
    value = filled(size)
    for _ in range(2):
        channel.set(b"k", value)
        assert channel.get(b"k") == value
    assert channel.get_or_insert(b"k", b"x") == value
    assert channel.get_or_insert(b"l", value) is None
    assert channel.get_many([b"k", b"absent", b"l"]) == [value, None, value]
    assert channel.remove(b"k") == value
    channel.set(b"small", b"s")
    assert channel.get(b"small") == b"s"


@pytest.mark.parametrize("size", EDGES)
def test_a_key_of_any_size(channel: DirectChannel, size: int) -> None:
    """Keys of all these sizes work in every operation."""
    key = filled(size)
    channel.set(key, b"v", 1, 10**18, 10**18)
    assert channel.get(key) == b"v"
    assert channel.contains(key)
    assert channel.get_or_insert(key, b"x") == b"v"
    assert channel.expire(key, None)
    assert channel.remaining(key) == UNLIMITED
    assert channel.lookup(key, 10**9) == b"v"
    assert channel.get_many([key, key]) == [b"v", b"v"]
    cursor = channel.keys()
    assert cursor.next(10) == [key]
    assert cursor.next(10) == []
    assert channel.remove_many([key]) == 1
    channel.set_many([Entry(key, b"w")])
    assert channel.remove(key) == b"w"
    lease = channel.lookup(key, 10**18)
    assert isinstance(lease, int)
    assert channel.fill(lease, b"filled")
    assert channel.get(key) == b"filled"


@pytest.mark.parametrize("key", [1, 100, MAILBOX // 2])
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_key_and_value_together_around_a_mailbox(channel: DirectChannel, key: int, over: int) -> None:
    """What counts is the length of key and value together."""
    value = filled(MAILBOX - key + over)
    channel.set(b"k" * key, value)
    assert channel.get(b"k" * key) == value
    channel.set_many([Entry(b"k" * key, value[::-1]), Entry(b"l" * key, value)])
    assert channel.get_many([b"k" * key, b"l" * key]) == [value[::-1], value]


def test_batches_around_a_mailbox(channel: DirectChannel) -> None:
    """Batches whose requests are as long as a mailbox, or a little longer or shorter, are whole."""
    for size in range(MAILBOX // 16 - 60, MAILBOX // 16 + 4):
        keys = [b"%d" % number + b"k" * size for number in range(17)]
        channel.set_many([Entry(key, key[:5]) for key in keys])
        assert channel.get_many(keys) == [key[:5] for key in keys]
        assert channel.remove_many(keys) == 17


def test_two_hundred_mebibytes(channel: DirectChannel) -> None:
    """A value of 200 MiB is stored or refused cleanly; what is 1 GiB or more together is refused by its size."""
    channel.set(b"small", b"s")
    value = bytes(200 * MIB)
    try:
        channel.set(b"k", value)
    except (EntryTooLargeError, GuestMemoryError):
        assert channel.get(b"k") is None
    else:
        assert channel.get(b"k") == value
        assert channel.remove(b"k") == value
    del value
    assert channel.get(b"small") == b"s"


def test_large_mailboxes_are_given_back(channel: DirectChannel) -> None:
    """The memory of a large mailbox serves the next large value: many in a row take no more than a few."""
    for number in range(50):
        channel.set(b"k", bytes(8 * MIB))
        assert len(channel.get(b"k" + b"x" * (number % 2)) or b"") in (0, 8 * MIB)
    assert channel.counters().memory_bytes < 128 * MIB
    assert all(lane.room == MAILBOX for lane in channel._lanes)


@pytest.mark.parametrize("ttl", [None, 1_000_000_000_000])
def test_an_answer_stays_while_its_value_is_overwritten(channel: DirectChannel, ttl: int | None) -> None:
    """What an operation was answered, and has not read yet, is not changed by another that sets the same key."""
    channel.set(b"k", b"before", 1, ttl)
    lane = channel._lane([])
    answered = lane.call("get", lane.guest.cache, lane.write(b"k", []), channel._now())
    for value in (b"after", b"after!", b"later!"):
        channel.set(b"k", value, 1, ttl)
        assert lane.read(answered & _LENGTH) == b"before"
        assert channel.get(b"k") == value


def test_a_lease_is_used_up_by_a_value_that_is_refused() -> None:
    """A fill with a value that cannot fit raises, and the key is free for the next lookup."""
    channel = DirectChannel(CacheConfig(memory_limit=4 * MIB))
    lease = channel.lookup(b"k", 10**18)
    assert isinstance(lease, int)
    with pytest.raises(EntryTooLargeError):
        channel.fill(lease, bytes(4 * MIB))
    assert isinstance(channel.lookup(b"k", 10**18), int)
    assert not channel.fill(lease, b"late")


def test_leases(channel: DirectChannel) -> None:
    """One caller leads, others are told to wait; a release frees the key; what lapsed fills nothing."""
    lease = channel.lookup(b"k", 10**18)
    assert isinstance(lease, int)
    assert channel.lookup(b"k", 10**18) is None
    channel.release(lease)
    channel.release(lease)
    assert channel.fill(lease, b"late") is False
    other = channel.lookup(b"k", 10**18)
    assert isinstance(other, int)
    channel.set(b"k", b"set")
    assert channel.fill(other, b"late") is False
    assert channel.lookup(b"k", 10**18) == b"set"
    last = channel.lookup(b"l", 10**18)
    assert isinstance(last, int)
    channel.close()
    assert channel.fill(last, b"late") is False
    channel.release(last)


def test_cursors(channel: DirectChannel) -> None:
    """A cursor hands out pages, ends, may be closed early and twice; a thousand may be open."""
    channel.set_many([Entry(b"%d" % number, b"") for number in range(100)])
    cursor = channel.keys()
    assert len(cursor.next(0)) == 1
    assert len(cursor.next(60)) == 60
    cursor.close()
    cursor.close()
    assert cursor.next(10) == []
    cursors = [channel.keys() for _ in range(1000)]
    assert all(len(cursor.next(1000)) == 100 for cursor in cursors)
    for cursor in cursors:
        cursor.close()
    last = channel.keys()
    channel.close()
    assert last.next(10) == []
    last.close()


def test_too_many_cursors_is_an_error_that_passes(channel: DirectChannel) -> None:
    """Beyond 1,024 open cursors a further one is refused; once one is closed, it works again."""
    channel.set(b"k", b"v")
    cursors = [channel.keys() for _ in range(1024)]
    with pytest.raises(SandboxError, match="1,?024|too many"):
        channel.keys()
    cursors.pop().close()
    assert channel.keys().next(1) == [b"k"]
    assert channel.get(b"k") == b"v"


def test_removals_of_over_sixteen_mebibytes_are_all_told() -> None:
    """Where the guest ends a long answer early, the rest is told by the same call of the listener's."""
    sizes: list[int] = []
    cache: Moka[int, bytes] = Moka(None, eviction_listener=lambda key, value, cause: sizes.append(len(value)))
    for number in range(40):
        cache[number] = bytes(MIB)
    cache.clear()
    assert sizes == [MIB] * 40


# Guests that are not what they should be, in WebAssembly text.


def guest(
    *,
    version: int = 1,
    leave_out: str = "",
    extra: str = "",
    memory: str = '(memory (export "memory") 20 100)',
    **bodies: str,
) -> bytes:
    """A core module with the exports of the direct ABI. Each answers *yes* and 1, unless there is a body for it."""
    parameters = {
        "abi_version": "",
        "clear": "i32 i32 i64",
        "close": "i32 i32",
        "contains": "i32 i32 i32 i64",
        "drain": "i32 i32 i32",
        "error": "i32",
        "expire": "i32 i32 i32 i64 i64",
        "fill": "i32 i32 i32 i32 i32 i64 i64 i64",
        "get": "i32 i32 i32 i64",
        "get_many": "i32 i32 i32 i64",
        "get_or_insert": "i32 i32 i32 i32 i32 i64 i64 i64",
        "keys": "i32 i32 i64",
        "keys_close": "i32 i32 i32",
        "keys_next": "i32 i32 i32 i32 i64",
        "lookup": "i32 i32 i32 i64 i64",
        "mailbox": "i32 i32",
        "make_room": "i32 i32 i32 i64",
        "open": "i32 i32 i64",
        "release": "i32 i32 i32",
        "remaining": "i32 i32 i32 i64",
        "remove": "i32 i32 i32 i64",
        "remove_many": "i32 i32 i32 i64",
        "run_pending": "i32 i32 i64",
        "set": "i32 i32 i32 i32 i32 i64 i64 i64",
        "set_many": "i32 i32 i32 i64",
        "stats": "i32 i32",
    }
    assert set(parameters) == set(_FUNCTIONS)
    default = {"abi_version": f"i32.const {version}", "mailbox": "i32.const 65536"}
    functions = []
    for name, taken in parameters.items():
        if name == leave_out:
            continue
        body = bodies.get(name, default.get(name, "i64.const 0x8000000100000001"))
        result = "i32" if name in default else "i64"
        functions.append(f'(func (export "moka_{name}") (param {taken}) (result {result}) {body})')
    return bytes(wasmtime.wat2wasm(f"(module {extra} {memory} {' '.join(functions)})"))


NO_ERROR_TEXT = {"error": "i64.const 0"}


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Has the package use other bytes as its component."""

    def use(component: bytes) -> None:
        path = tmp_path / "other.wasm"
        path.write_bytes(component)
        monkeypatch.setenv("MOKA_WASM_COMPONENT", str(path))
        forget_compiled()

    yield use
    forget_compiled()


@pytest.mark.parametrize("version", [0, 2, 99, 2**31 - 1])
def test_another_version_of_the_abi_is_refused(use: Callable[[bytes], None], version: int) -> None:
    """A component of another ABI version is an IncompatibleComponentError that names both versions."""
    use(guest(version=version))
    with pytest.raises(IncompatibleComponentError, match=f"version {version} .*version 1"):
        Moka(8)


@pytest.mark.parametrize("name", sorted(_FUNCTIONS))
def test_a_missing_export_is_refused(use: Callable[[bytes], None], name: str) -> None:
    """A component that lacks a function of the ABI is refused when a cache is opened; the message names it."""
    use(guest(leave_out=name))
    with pytest.raises(IncompatibleComponentError, match=f"moka_{name}|direct ABI"):
        Moka(8)


@pytest.mark.parametrize(
    "extra",
    [
        '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "wasi:cli/environment@0.2.0" "get-environment" (func (param i32)))',
        '(import "env" "anything" (func))',
        '(import "env" "memory" (global i32))',
        '(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func (param i64) (result i32)))',
    ],
)
def test_an_import_that_is_not_given_is_refused(use: Callable[[bytes], None], extra: str) -> None:
    """A component that asks for anything but clock and random numbers gets nothing, and is refused by name."""
    use(guest(extra=extra))
    module = extra.split('"')[1]
    with pytest.raises(IncompatibleComponentError, match=module.replace(".", r"\.")):
        Moka(8)


def test_a_memory_or_exports_of_another_kind_are_refused(use: Callable[[bytes], None]) -> None:
    """Without a memory, or with a name that is no function, there is no cache."""
    use(guest(memory='(memory 20 100)(global (export "memory") i32 (i32.const 1))'))
    with pytest.raises((IncompatibleComponentError, AssertionError)):
        Moka(8)
    use(guest(leave_out="get", extra='(global (export "moka_get") i32 (i32.const 1))'))
    with pytest.raises(IncompatibleComponentError, match="moka_get"):
        Moka(8)


@pytest.mark.parametrize(
    "answer",
    [
        0x0000_0001_FFFF_FFFF,  # one byte at the last address
        0x0000_0001_0014_0000,  # one byte just beyond the memory's 20 pages
        0x0000_0002_0013_FFFF,  # two bytes, the second beyond
        0x3FFF_FFFF_0000_0000,  # the longest answer
        0x3FFF_FFFF_FFFF_FFFF,
    ],
)
@pytest.mark.parametrize(
    "name", ["get", "remove", "get_or_insert", "get_many", "drain", "keys_next", "stats", "lookup"]
)
def test_an_answer_outside_of_the_memory_is_never_read(use: Callable[[bytes], None], answer: int, name: str) -> None:
    """Bytes that would lie outside of the guest's memory are a SandboxError, and are not touched."""
    use(guest(**{name: f"i64.const {answer:#x}"}))
    channel = DirectChannel(CacheConfig(removal_log=10))
    cursor = channel.keys()
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: channel.get(b"k"),
        "remove": lambda: channel.remove(b"k"),
        "get_or_insert": lambda: channel.get_or_insert(b"k", b"v"),
        "get_many": lambda: channel.get_many([b"k"]),
        "drain": lambda: channel.drain(10),
        "keys_next": lambda: cursor.next(10),
        "stats": lambda: channel.counters(),
        "lookup": lambda: channel.lookup(b"k", 1),
    }
    for _ in range(3):
        with pytest.raises(SandboxError, match="memory"):
            calls[name]()


def test_an_answer_up_to_the_last_byte_is_read(use: Callable[[bytes], None]) -> None:
    """The last byte of the guest's memory may be answered."""
    use(guest(get="i64.const 0x0000_0001_0013_FFFF"))
    assert DirectChannel(CacheConfig()).get(b"k") == b"\0"


@pytest.mark.parametrize("address", ["0x140000", "0x130001", "0xFFFFFFFF", "0xFFFF0001"])
def test_a_mailbox_outside_of_the_memory_is_never_written(use: Callable[[bytes], None], address: str) -> None:
    """A mailbox that would not lie in the guest's memory is refused before a byte is written."""
    use(guest(mailbox=f"i32.const {address}"))
    with pytest.raises(SandboxError, match="memory"):
        DirectChannel(CacheConfig())


def test_no_mailbox_is_a_memory_error(use: Callable[[bytes], None]) -> None:
    """A guest that has no memory for a mailbox answers 0: GuestMemoryError; small entries go on."""
    use(guest(mailbox=f"(select (i32.const 65536) (i32.const 0) (i32.le_u (local.get 1) (i32.const {ROOM})))"))
    channel = DirectChannel(CacheConfig())
    with pytest.raises(GuestMemoryError):
        channel.set(b"k", bytes(ROOM))
    channel.set(b"k", b"v")


@pytest.mark.parametrize("code", [1, 2, 6, 7, 99, 2**32 - 1])
def test_an_error_code_without_a_meaning_here_is_a_sandbox_error(use: Callable[[bytes], None], code: int) -> None:
    """Whatever else the guest calls an error is a SandboxError with the guest's text, broken UTF-8 or not."""
    answer = 0x8000_0002_0000_0000 | code
    use(
        guest(
            get=f"i64.const {answer:#x}",
            error="i64.const 0x0000_0005_0003_0000",
            extra='(data (i32.const 0x30000) "odd \\ff")',
        )
    )
    with pytest.raises(SandboxError, match="odd"):
        DirectChannel(CacheConfig()).get(b"")


def test_an_unknown_kind_of_answer_is_no_value(use: Callable[[bytes], None]) -> None:
    """An answer without bytes is never taken for a value."""
    for kind in (0, 1, 3, 2**30 - 1):
        use(guest(get=f"i64.const {0x8000_0000_0000_0000 | kind << 32:#x}"))
        assert DirectChannel(CacheConfig()).get(b"k") is None


def test_a_guest_that_answers_no_keys_does_not_hang(use: Callable[[bytes], None]) -> None:
    """``get_many`` of a guest that answers none of the keys gets each of them by itself."""
    use(guest(get_many="i64.const 0x0000_0004_0001_1000"))
    channel = DirectChannel(CacheConfig())
    assert channel.get_many([b"a", b"b"]) == [channel.get(b"a"), channel.get(b"b")]


TRAPS = {
    "unreachable": "unreachable",
    "out of bounds": "(drop (i32.load (i32.const -4))) i64.const 0",
    "division by zero": "(drop (i32.div_u (i32.const 1) (i32.const 0))) i64.const 0",
    "stack overflow": "(call $deep) i64.const 0",
}
DEEP = "(func $deep (call $deep))"


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ["get", "set", "remove", "clear", "stats", "get_many", "set_many", "keys", "contains"])
def test_a_trap_is_a_sandbox_error_and_the_cache_goes_on(use: Callable[[bytes], None], trap: str, name: str) -> None:
    """A trap in an operation is a SandboxError raised from wasmtime's own; the next one has a new, empty guest."""
    use(guest(extra=DEEP, **{name: TRAPS[trap]}))
    channel = DirectChannel(CacheConfig())
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: channel.get(b"k"),
        "set": lambda: channel.set(b"k", b"v"),
        "remove": lambda: channel.remove(b"k"),
        "clear": lambda: channel.clear(),
        "stats": lambda: channel.counters(),
        "get_many": lambda: channel.get_many([b"k"]),
        "set_many": lambda: channel.set_many([Entry(b"k", b"v")]),
        "keys": lambda: channel.keys(),
        "contains": lambda: channel.contains(b"k"),
    }
    guests = [channel._guest]
    for _ in range(3):
        with pytest.raises(SandboxError, match="goes on, empty") as caught:
            calls[name]()
        assert isinstance(caught.value.__cause__, wasmtime.Trap)
        assert channel._guest not in guests
        guests.append(channel._guest)
        assert channel.expire(b"k", 1) is True
    channel.close()
    with pytest.raises(ClosedError):
        calls[name]()


def lease(channel: DirectChannel) -> int:
    found = channel.lookup(b"k", 1)
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("name", ["mailbox", "make_room", "error"])
def test_a_trap_in_what_an_operation_needs_replaces_the_guest_too(use: Callable[[bytes], None], name: str) -> None:
    """A trap while a mailbox grows, room is made, or an error's text is asked for, leaves a cache that works."""
    bodies = {
        "mailbox": f"(if (i32.gt_u (local.get 1) (i32.const {ROOM})) (then unreachable)) i32.const 65536",
        "make_room": "unreachable",
        "error": "unreachable",
    }
    broken = {"remove": "i64.const 0x8000_0002_0000_0007"} if name == "error" else {}
    use(guest(**{name: bodies[name]}, **broken))
    channel = DirectChannel(CacheConfig(memory_limit=64 * MIB))
    attempts: list[Callable[[], Any]] = [
        lambda: channel.get(bytes(ROOM + 1)),
        lambda: channel.set(b"k", bytes(ROOM + 1)),
        lambda: channel.contains(bytes(ROOM + 1)),
        lambda: channel.get_or_insert(bytes(ROOM + 1), b"v"),
        lambda: channel.fill(lease(channel), bytes(ROOM + 1)),
    ]
    if name == "error":
        attempts = [lambda: channel.remove(b"k")]
    for attempt in attempts:
        before = channel._guest
        with pytest.raises(SandboxError):
            attempt()
        assert channel._guest is not before
        for _ in range(5):
            channel.set(b"k", b"v")
            channel.get(b"k")


def test_a_guest_that_cannot_be_replaced_at_once_is_replaced_later(
    use: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is no memory for a new guest after a trap, the operation says so, and later ones try again."""
    use(guest(get="unreachable"))
    channel = DirectChannel(CacheConfig())
    works = _sandbox._linker

    class Full:
        def __init__(self, *_: object) -> None: ...

        def instantiate(self, *_: object) -> None:
            raise wasmtime.WasmtimeError("no address space")

    monkeypatch.setattr(_sandbox, "_linker", Full)
    for _ in range(2):
        with pytest.raises(GuestMemoryError):
            channel.get(b"k")
        with pytest.raises(GuestMemoryError):
            channel.set(b"k", b"v")
    monkeypatch.setattr(_sandbox, "_linker", works)
    channel.set(b"k", b"v")
    channel.clear()


def test_a_trap_of_one_cache_harms_no_other(use: Callable[[bytes], None]) -> None:
    """Other caches, of the same component too, keep their guests."""
    bystander: Moka[str, int] = Moka(8)
    bystander["k"] = 1
    use(guest(get="unreachable"))
    one, other = DirectChannel(CacheConfig()), DirectChannel(CacheConfig())
    before = other._guest
    with pytest.raises(SandboxError):
        one.get(b"k")
    other.set(b"k", b"v")
    assert other._guest is before
    assert bystander["k"] == 1


def test_a_trap_ends_walks_and_leases(use: Callable[[bytes], None]) -> None:
    """Walks over a guest that is gone are over, and so are its leases' fills, without an error."""
    use(guest(get="unreachable"))
    channel = DirectChannel(CacheConfig())
    cursor = channel.keys()
    with pytest.raises(SandboxError):
        channel.get(b"k")
    assert cursor.next(10) == []
    cursor.close()


def test_a_trap_while_the_cache_is_opened(use: Callable[[bytes], None]) -> None:
    """A guest that cannot be opened is a SandboxError of the constructor."""
    for name in ("open", "mailbox", "abi_version"):
        use(guest(**{name: "unreachable"}))
        with pytest.raises(SandboxError):
            Moka(8)


def test_the_real_guest_is_replaced() -> None:
    """A ``Moka`` whose guest was replaced goes on, empty, with its configuration."""
    cache: Moka[str, str] = Moka(8, memory_limit=4 * MIB)
    cache["k"] = "v"
    channel: Any = cache._channel
    channel._guest.cache = 12345
    with pytest.raises(SandboxError, match="no cache"):
        channel.contains(b"k")
    channel.replace(channel._guest)
    assert cache.get("k") is None
    cache["k"] = "w"
    assert cache["k"] == "w"
    assert repr(cache) == "<moka_wasm.Moka capacity=8, policy='tiny_lfu'>"


# Damaged files.


@functools.cache
def whole() -> bytes:
    return _component_file.read_component()


def sections(component: bytes) -> list[int]:
    """Where the sections begin, and the end."""
    position, starts = 8, [8]
    while position < len(component):
        length, start = _component_file._read_leb128(component, position + 1)
        position = start + length
        starts.append(position)
    return starts


def test_the_whole_file_holds_the_module() -> None:
    """The package's own file has one core module with the direct ABI, and a bare core module is taken as it is."""
    core = _component_file.core_module(whole())
    assert core.startswith(b"\0asm\x01\0\0\0")
    assert _component_file.core_module(core) == core


def test_a_file_that_is_cut_short_is_refused() -> None:
    """A component that ends anywhere within its first bytes, headers or core module is refused, never misread."""
    component = whole()
    core = _component_file.core_module(component)
    end = component.index(core) + len(core)
    places = {*range(200), *range(0, end, 4999), end - 1}
    places |= {start + step for start in sections(component) for step in range(-3, 6) if 0 <= start + step < end}
    for place in sorted(places):
        with pytest.raises(IncompatibleComponentError, match="component"):
            _component_file.core_module(component[:place])


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\0",
        b"\0asm",
        b"\0asm\x0d\0\x01",
        b"\0asm\x0e\0\x01\0",
        b"\0asm\x02\0\0\0",
        b"\x7fELF1234",
        b"<html>..",
        b"\0" * 64,
    ],
)
def test_a_wrong_header_is_refused(start: bytes) -> None:
    """What does not begin as a component or a core module is refused, and the message shows what it begins with."""
    for rest in (b"", whole()[8:]):
        with pytest.raises(IncompatibleComponentError, match="begins with|no core module|cut short|damaged"):
            _component_file.core_module((start + rest)[:100_000] if start[:4] != b"\0asm" else start)


@pytest.mark.parametrize(
    "section",
    [
        b"\x01",
        b"\x01\x80",
        b"\x01\xff\xff\xff\xff",
        b"\x01\xff\xff\xff\xff\xff",
        b"\x01\x80\x80\x80\x80\x80\x00",
        b"\x01\xff\xff\xff\xff\x0f",
        b"\x01\x05abc",
        b"\x07\xff\xff\xff\xff\x7f",
    ],
)
def test_a_damaged_section_length_is_refused(section: bytes) -> None:
    """A section length that does not end, or runs beyond the file, is refused."""
    with pytest.raises(IncompatibleComponentError, match="damaged|cut short"):
        _component_file.core_module(b"\0asm\x0d\0\x01\0" + section)


def test_a_component_without_the_module_is_refused() -> None:
    """A component with no section, or with core modules of others only, holds no direct ABI."""
    header = b"\0asm\x0d\0\x01\0"
    other = bytes(wasmtime.wat2wasm("(module)"))
    for component in (header, header + b"\x01" + bytes([len(other)]) + other, header + b"\x00\x00"):
        with pytest.raises(IncompatibleComponentError, match="holds no core module"):
            _component_file.core_module(component)


def test_every_leb128_length_is_read() -> None:
    """Section lengths of one to five bytes are read, padded ones too."""
    for number in (0, 1, 127, 128, 16_383, 16_384, 2**21, 2**28, 2**32 - 1):
        encoded = bytearray()
        rest = number
        while True:
            encoded.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
            rest >>= 7
            if not rest:
                break
        assert _component_file._read_leb128(bytes(encoded), 0) == (number, len(encoded))
    assert _component_file._read_leb128(b"\x81\x80\x80\x80\x00", 0) == (1, 5)


def test_damaged_code_is_refused(use: Callable[[bytes], None]) -> None:
    """A file whose core module wasmtime does not accept is an IncompatibleComponentError when a cache is opened."""
    component = bytearray(whole())
    core = _component_file.core_module(whole())
    start = bytes(component).index(core)
    component[start + 8 : start + 40] = b"\xff" * 32
    use(bytes(component))
    with pytest.raises(IncompatibleComponentError):
        Moka(8)


def test_a_file_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a component the message says how to come by one."""
    monkeypatch.setenv("MOKA_WASM_COMPONENT", str(tmp_path / "missing.wasm"))
    with pytest.raises(IncompatibleComponentError, match="make component"):
        _component_file.read_component()
    monkeypatch.setenv("MOKA_WASM_COMPONENT", str(tmp_path))
    with pytest.raises(IncompatibleComponentError, match="cannot be read"):
        _component_file.read_component()


def test_a_file_with_another_digest_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The component is compared to the digest beside it, where there is one, before anything else looks at it."""
    good = whole()
    monkeypatch.delenv("MOKA_WASM_COMPONENT", raising=False)
    monkeypatch.setattr(_component_file, "__file__", str(tmp_path / "_component_file.py"))
    path = tmp_path / _component_file.NAME
    digest = tmp_path / f"{_component_file.NAME}.sha256"
    path.write_bytes(good)
    assert _component_file.read_component() == good, "without a digest"
    digest.write_text(f"{hashlib.sha256(good).hexdigest()}  {_component_file.NAME}\n")
    assert _component_file.read_component() == good
    damaged = bytearray(good)
    damaged[len(damaged) // 2] ^= 1
    for data in (bytes(damaged), good[:-1], b""):
        path.write_bytes(data)
        with pytest.raises(IncompatibleComponentError, match="changed since it was installed"):
            _component_file.read_component()
    path.write_bytes(good)
    for text in ("", "0" * 64, "\udcff"):
        digest.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(IncompatibleComponentError, match="SHA-256"):
            _component_file.read_component()


def test_a_refused_component_does_not_spoil_a_good_one(use: Callable[[bytes], None]) -> None:
    """After a bad file, a good one works in the same process."""
    use(b"\0asm\x0d\0\x01\0")
    with pytest.raises(IncompatibleComponentError):
        Moka(8)
    use(whole())
    assert Moka[int, int](8).setdefault(1, 2) == 2


# The component face, beside the direct ABI.


@pytest.fixture(params=["direct", "component"])
def either(request: pytest.FixtureRequest) -> Iterator[Channel]:
    config = CacheConfig(memory_limit=2 * MIB)
    channel: Channel = (
        DirectChannel(config) if request.param == "direct" else _component_channel.ComponentChannel(config)
    )
    yield channel
    channel.close()


def test_both_channels_refuse_alike(either: Channel) -> None:
    """Both channels raise the same exceptions for an entry that cannot fit, and keep the old one."""
    either.set(b"k", b"old")
    with pytest.raises(EntryTooLargeError):
        either.set(b"k", bytes(MIB))
    with pytest.raises(EntryTooLargeError):
        either.set_many([Entry(b"a", b"1"), Entry(b"k", bytes(MIB)), Entry(b"b", b"2")])
    assert either.get_many([b"k", b"a", b"b"]) == [b"old", b"1", None]


def test_both_channels_refuse_what_can_never_come_in(either: Channel) -> None:
    """What is larger than all of the sandbox's memory is refused by its size, as a key too, and costs no entry."""
    either.set(b"k", b"old")
    large = bytes(12 * MIB)
    lease = either.lookup(b"leased", 10**18)
    assert isinstance(lease, int)
    for attempt in (
        lambda: either.set(b"k", large),
        lambda: either.get_or_insert(b"l", large),
        lambda: either.set_many([Entry(b"a", b"1"), Entry(b"k", large), Entry(b"b", b"2")]),
        lambda: either.fill(lease, large),
        lambda: either.get(large),
        lambda: either.get_many([b"k", large]),
        lambda: either.contains(large),
        lambda: either.lookup(large[: 4 * MIB], 10**18),
        lambda: either.expire(large, None),
        lambda: either.remaining(large),
        lambda: either.remove(large),
        lambda: either.remove_many([b"c", large]),
    ):
        with pytest.raises(EntryTooLargeError, match=r"the entry would take .* raise memory_limit"):
            attempt()
    assert either.get_many([b"k", b"a", b"b"]) == [b"old", b"1", None]
    assert isinstance(either.lookup(b"leased", 10**18), int)
    assert either.counters().restarts == 0


def test_batches_of_more_than_the_memory(either: Channel) -> None:
    """Batches whose entries, or whose answers, are together more than all of the sandbox's memory are whole."""
    value = b"v" * 40_000
    either.set_many([Entry(b"k%d" % (number % 7), value) for number in range(160)])
    assert either.get_many([b"k0"] * 160) == [value] * 160
    assert either.remove_many([b"k%d" % number for number in range(8)]) == 7
    assert either.counters().restarts == 0


def test_leases_of_long_keys(either: Channel) -> None:
    """A lookup that there is no memory for a lease for leads nobody, and costs nothing but entries."""
    led = [either.lookup(b"%d" % number + bytes(150_000), 10**18) for number in range(3)]
    assert isinstance(led[0], int)
    for number in range(3, 20):
        with contextlib.suppress(GuestMemoryError):
            either.lookup(b"%d" % number + bytes(150_000), 10**18)
    assert either.counters().restarts == 0


def test_both_channels_close_alike(either: Channel) -> None:
    """Both channels are closed once, and say so afterwards."""
    either.close()
    either.close()
    with pytest.raises(ClosedError):
        either.get(b"k")
    with pytest.raises(ClosedError):
        either.counters()


@pytest.mark.parametrize("kind", [DirectChannel, ComponentChannel])
def test_a_store_goes_with_its_channel(kind: type[DirectChannel] | type[ComponentChannel]) -> None:
    """With it goes the guest's memory; nothing that the guest calls keeps it."""
    channel: Any = kind(CacheConfig(clock=lambda: 0))
    channel.set(b"k", b"v")
    store = weakref.ref(channel._store if kind is ComponentChannel else channel._guest.sandbox.store)
    assert store() is not None
    del channel
    gc.collect()
    assert store() is None
