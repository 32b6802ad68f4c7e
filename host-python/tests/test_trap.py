"""A sandbox that traps: the real component, patched so that a chosen function stops, or stops after it did its work."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from broken_guest import TRAPS, TRAPS_AFTERWARDS, broken_component, forget_compiled, switch

import moka_wasm._hot as hot
from moka_wasm import ConfigError, GuestMemoryError, Moka, MokaError, SandboxError, _sandbox, cached, cached_method
from moka_wasm._channel import CacheConfig
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import _FUNCTIONS, DirectChannel, _Lane
from moka_wasm._keys import encode_key
from moka_wasm._single_flight_async import TaskFlights

_INTERFACE = "moka:cache/cache@0.1.0#"
MIB = 1 << 20


def number(function: str) -> int:
    return _FUNCTIONS.index(function)


def stop(cache: Any, function: str, how: int = TRAPS) -> None:
    """Has the next call of this function trap, in the sandbox that the cache has now."""
    switch(cache, number(function), how)


@pytest.fixture(scope="module")
def broken_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "broken.wasm"
    path.write_bytes(broken_component(f"moka_{name}" for name in _FUNCTIONS))
    return path


@pytest.fixture
def use_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    def use(path: Path) -> None:
        monkeypatch.setenv("MOKA_WASM_COMPONENT", str(path))
        forget_compiled()

    yield use
    forget_compiled()


@pytest.fixture
def broken(use_file: Callable[[Path], None], broken_file: Path) -> None:
    """Has caches opened in the test use the component with the switches."""
    use_file(broken_file)


# Each operation of the public API with the guest's function that it needs, and what it answers on an empty cache.
OPERATIONS: dict[str, tuple[str, Callable[[Moka[Any, Any]], Any], Any]] = {
    "get": ("get", lambda cache: cache.get("k"), None),
    "get with a default": ("get", lambda cache: cache.get("k", 7), 7),
    "get of an odd key": ("get", lambda cache: cache.get(("k", (1, 2.5))), None),
    "set": ("set", lambda cache: cache.set("k", "new"), None),
    "set with a ttl": ("set", lambda cache: cache.set("k", "new", ttl=5), None),
    "set item": ("set", lambda cache: cache.__setitem__("k", "new"), None),
    "in": ("contains", lambda cache: "k" in cache, False),
    "remove": ("remove", lambda cache: cache.remove("k"), None),
    "pop": ("remove", lambda cache: cache.pop("k", 3), 3),
    "clear": ("clear", lambda cache: cache.clear(), None),
    "count": ("stats", lambda cache: cache.count(), 0),
    "weighted_size": ("stats", lambda cache: cache.weighted_size(), 0),
    "len": ("run_pending", lambda cache: len(cache), 0),
    "run_pending_tasks": ("run_pending", lambda cache: cache.run_pending_tasks(), None),
    "expire": ("expire", lambda cache: cache.expire("k", 5), False),
    "remaining": ("remaining", lambda cache: cache.remaining("k"), None),
    "get_many": ("get_many", lambda cache: cache.get_many(["k", "l"]), {}),
    "set_many": ("set_many", lambda cache: cache.set_many({"k": 1, "l": 2}), None),
    "remove_many": ("remove_many", lambda cache: cache.remove_many(["k", "l"]), 0),
    "keys": ("keys", lambda cache: list(cache), []),
    "a page of keys": ("keys_next", lambda cache: list(cache), []),
    "values": ("get", lambda cache: list(cache.values()), []),
    "setdefault": ("get_or_insert", lambda cache: cache.setdefault("k", 1), 1),
    "get_with": ("get", lambda cache: cache.get_with("k", lambda: 8), 8),
    "get_with that stores": ("set", lambda cache: cache.get_with("absent", lambda: 8), 8),
    "with": ("stats", lambda cache: cache.__enter__() is cache, True),
    "a long key": ("mailbox", lambda cache: cache.get("k" * 100_000), None),
    "a large value": ("mailbox", lambda cache: cache.set("k", "v" * 100_000), None),
    "room for a large value": ("make_room", lambda cache: cache.set("k", "v" * 100_000), None),
    "a drain": ("drain", lambda cache: cache.remove("absent"), None),
}


def a_cache(operation: str, **options: Any) -> Moka[Any, Any]:
    if operation == "room for a large value":
        options["memory_limit"] = 8 * MIB
    if operation == "a drain":
        options["eviction_listener"] = lambda *_: None
    cache: Moka[Any, Any] = Moka(8, **options)
    cache.set("k", "value")
    cache.set("l", "value")
    if operation == "a drain":
        # Waits to be told when the operation comes.
        cache._channel.remove(encode_key("l"))
    return cache


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("how", [TRAPS, TRAPS_AFTERWARDS])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_traps_raises_once_and_the_cache_goes_on_empty(operation: str, how: int) -> None:
    """Whatever operation traps, before or after its work, it alone raises; a new sandbox with the same configuration
    is in place, with the extension if there is one."""
    function, call, _ = OPERATIONS[operation]
    cache = a_cache(operation)
    channel: Any = cache._channel
    old = channel._guest
    stop(cache, function, how)
    with pytest.raises(SandboxError, match="goes on, empty") as caught:
        call(cache)
    assert isinstance(caught.value.__cause__, wasmtime.Trap)
    assert isinstance(caught.value, RuntimeError)
    assert channel._guest is not old
    assert channel.binding is None or channel.binding.bound
    assert cache.stats().restarts == 1
    assert len(cache) == 0
    cache.set("k", "again")
    assert cache.get("k") == "again"
    call(cache)
    assert cache.stats().restarts == 1


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("how", [TRAPS, TRAPS_AFTERWARDS])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_traps_is_done_once_more(operation: str, how: int) -> None:
    """With ``on_trap="retry"`` each operation answers what it answers on an empty cache, and does what it is to do."""
    function, call, expected = OPERATIONS[operation]
    cache = a_cache(operation, on_trap="retry")
    stop(cache, function, how)
    assert call(cache) == expected
    stats = cache.stats()
    assert stats.restarts == 1
    fresh = a_cache(operation)
    fresh.clear()
    if operation not in ("get_with", "a drain"):
        call(fresh)
        assert cache.get_many(["k", "l"]) == fresh.get_many(["k", "l"])


@pytest.mark.usefixtures("broken")
def test_counters_go_on() -> None:
    """A trap resets no counter, and is counted itself; the size is that of the new sandbox."""
    cache: Moka[str, int] = Moka(8)
    cache.set_many({"a": 1, "b": 2})
    for _ in range(5):
        cache.get("a")
    cache.get("absent")
    cache.remove("b")
    cache["a"] = 3
    for restarts in range(1, 4):
        stop(cache, "contains")
        with pytest.raises(SandboxError):
            assert "a" in cache
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.insertions) == (5 * restarts, restarts, 2 + restarts)
        assert (stats.explicit, stats.replaced, stats.restarts) == (1, 1, restarts)
        assert (stats.entries, stats.weight) == (0, 0)
        cache["a"] = 1
        for _ in range(5):
            cache.get("a")
        cache.get("absent")


@pytest.mark.usefixtures("broken")
def test_counters_that_cannot_be_read_are_those_that_were_seen_last() -> None:
    """A sandbox that does not answer for its counters either is believed what it said before."""
    cache: Moka[str, int] = Moka(8)
    cache["a"] = 1
    assert cache.stats().insertions == 1
    cache["a"] = 2
    stop(cache, "stats")
    with pytest.raises(SandboxError):
        cache.stats()
    stats = cache.stats()
    assert (stats.insertions, stats.restarts) == (1, 1)


def test_counters_that_make_no_sense_are_not_believed(use_file: Callable[[Path], None], tmp_path: Path) -> None:
    """What a broken sandbox says of its counters counts only if none went back or is absurd."""
    from test_channel import guest

    counters = (5).to_bytes(8, "little") + b"\xff" * 80
    data = "".join(f"\\{byte:02x}" for byte in counters)
    path = tmp_path / "hostile.wasm"
    answer = f"i64.const {88 << 32 | 0x30000:#x}"
    path.write_bytes(guest(get="unreachable", stats=answer, extra=f'(data (i32.const 0x30000) "{data}")'))
    use_file(path)
    channel = DirectChannel(CacheConfig())
    with pytest.raises(SandboxError):
        channel.get(b"k")
    assert channel._guest is not None
    assert channel._guest.before == (*[0] * 11, 1)


@pytest.mark.usefixtures("broken")
def test_an_operation_that_traps_again_and_again_raises() -> None:
    """``on_trap="retry"`` does not try for ever: a sandbox that keeps stopping gives the error."""
    cache: Moka[str, int] = Moka(8, on_trap="retry")
    channel: Any = cache._channel
    replace = channel._channel.replace

    def replace_and_break(old: Any) -> None:
        replace(old)
        stop(cache, "get")

    channel._channel.replace = replace_and_break
    stop(cache, "get")
    with pytest.raises(SandboxError):
        cache.get("k")
    del channel._channel.replace
    restarts = cache.stats().restarts
    assert restarts in (2, 3)
    assert cache.get("k") is None
    assert cache.stats().restarts == restarts + 1


@pytest.mark.parametrize("wrong", ["miss", "", None, 1, True])
def test_on_trap_is_checked(wrong: Any) -> None:
    """Another word for ``on_trap`` is a ValueError that names the two."""
    with pytest.raises(ConfigError, match="on_trap must be 'raise' or 'retry', got"):
        Moka(8, on_trap=wrong)
    with pytest.raises(ConfigError, match="on_trap"):
        cached(on_trap=wrong)(lambda: None)


@pytest.mark.usefixtures("broken")
def test_configuration_and_clock_stay() -> None:
    """The new sandbox has the old one's bounds, deadlines, clock, policy and memory limit."""
    now = 100.0
    cache: Moka[int, Any] = Moka(3, ttl=10, policy="lru", memory_limit=2 * MIB, clock=lambda: now)
    cache[0] = 0
    stop(cache, "get")
    with pytest.raises(SandboxError):
        cache.get(0)
    for key in range(5):
        cache[key] = key
    assert sorted(cache) == [2, 3, 4] or len(cache) == 3
    assert cache.remaining(4) == 10
    with pytest.raises(MokaError, match="memory_limit|may take"):
        cache[1] = "x" * (2 * MIB)
    now += 11
    assert list(cache) == []


@pytest.mark.usefixtures("broken")
def test_a_listener_is_told_nothing_false() -> None:
    """Entries that a trap took are told as no removal; what was removed before and told, stays told; later ones are
    told again."""
    told: list[Any] = []
    cache: Moka[str, int] = Moka(8, eviction_listener=lambda *removal: told.append(removal))
    cache.update(a=1, b=2, c=3)
    cache.remove("a")
    stop(cache, "get")
    with pytest.raises(SandboxError):
        cache.get("b")
    cache.run_pending_tasks()
    cache.clear()
    assert told == [("a", 1, "explicit")]
    cache["d"] = 4
    del cache["d"]
    assert told == [("a", 1, "explicit"), ("d", 4, "explicit")]


@pytest.mark.usefixtures("broken")
def test_walks_over_the_old_sandbox_end() -> None:
    """A walk that was under way has no further keys, closes without harm, and takes none of another's."""
    cache: Moka[int, int] = Moka(None)
    cache.update({key: key for key in range(3000)})
    walk = iter(cache)
    assert next(walk) in range(3000)
    stop(cache, "get")
    with pytest.raises(SandboxError):
        cache.get(1)
    cache.update({key: key for key in range(10_000, 13_000)})
    other = iter(cache)
    assert next(other) >= 10_000
    assert all(key < 10_000 for key in walk)
    assert len(list(other)) == 2999


def channels(name: str) -> Any:
    return DirectChannel(CacheConfig()) if name == "direct" else ComponentChannel(CacheConfig())


def test_a_lease_of_the_old_sandbox_fills_nothing(use_file: Callable[[Path], None], broken_file: Path) -> None:
    """A lease that was out when the sandbox trapped has ended, whichever number the new one gives next."""
    use_file(broken_file)
    channel = channels("direct")
    old = channel.lookup(b"old", 10**12)
    switch(channel, number("get"), TRAPS)
    with pytest.raises(SandboxError):
        channel.get(b"k")
    new = channel.lookup(b"new", 10**12)
    assert isinstance(old, int)
    assert isinstance(new, int)
    assert old != new
    assert channel.fill(old, b"value of old") is False
    channel.release(old)
    assert channel.lookup(b"new", 10**12) is None
    assert channel.fill(new, b"value of new") is True
    assert channel.get(b"new") == b"value of new"
    assert channel.get(b"old") is None


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("function", ["lookup", "fill", "release", "keys_close", "error"])
def test_the_functions_that_only_channels_use(function: str) -> None:
    """A trap in a lease's or a cursor's end, or in asking for an error's text, replaces the sandbox too."""
    channel = DirectChannel(CacheConfig(memory_limit=2 * MIB))
    lease = channel.lookup(b"k", 10**12)
    assert isinstance(lease, int)
    cursor = channel.keys()
    calls: dict[str, Callable[[], Any]] = {
        "lookup": lambda: channel.lookup(b"l", 1),
        "fill": lambda: channel.fill(lease, b"v"),
        "release": lambda: channel.release(lease),
        "keys_close": lambda: channel.close_keys(cursor._guest, 1),  # type: ignore[attr-defined]
        "error": lambda: channel.set(b"k", bytes(4 * MIB)),
    }
    stop(channel, function)
    with pytest.raises(SandboxError, match="goes on, empty"):
        calls[function]()
    channel.set(b"k", b"v")
    assert channel.counters().restarts == 1
    assert channel.counters().entries == 1


@pytest.mark.usefixtures("broken")
def test_closing_calls_nothing() -> None:
    """To close a cache lets the sandbox go without a call into it: a trap there harms nobody."""
    cache: Moka[str, int] = Moka(8)
    cache["k"] = 1
    stop(cache, "close")
    cache.close()
    cache.close()


@pytest.mark.parametrize("function", ["abi_version", "mailbox", "open"])
def test_a_sandbox_that_traps_while_it_is_opened(
    use_file: Callable[[Path], None], tmp_path: Path, function: str
) -> None:
    """A cache whose sandbox always stops at once cannot be opened: one error, no endless loop, retried or not."""
    path = tmp_path / "broken.wasm"
    path.write_bytes(broken_component([f"moka_{function}"], switched_on=TRAPS))
    use_file(path)
    for options in ({}, {"on_trap": "retry"}):
        with pytest.raises(SandboxError, match="while the cache was being opened") as caught:
            Moka(8, **options)  # type: ignore[arg-type]
        assert isinstance(caught.value.__cause__, wasmtime.Trap)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("on_trap", ["raise", "retry"])
def test_a_replacement_that_fails_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, use_file: Callable[[Path], None], broken_file: Path, tmp_path: Path, on_trap: Any
) -> None:
    """If the new sandbox traps while it is opened, or gets no memory, each operation says so once; once one can be
    opened, the cache goes on."""
    cache: Moka[str, int] = Moka(8, on_trap=on_trap)
    cache["k"] = 1
    never = tmp_path / "never.wasm"
    never.write_bytes(broken_component(["moka_open"], switched_on=TRAPS))
    stop(cache, "get")
    use_file(never)
    for _ in range(3):
        with pytest.raises(SandboxError, match="while the cache was being opened"):
            cache.get("k")
        with pytest.raises(SandboxError, match="while the cache was being opened"):
            cache.set("k", 1)

    class Full:
        def __init__(self, *_: object) -> None: ...

        def instantiate(self, *_: object) -> None:
            raise wasmtime.WasmtimeError("no address space")

    works = _sandbox._linker
    monkeypatch.setattr(_sandbox, "_linker", Full)
    with pytest.raises(GuestMemoryError):
        cache.get("k")
    monkeypatch.setattr(_sandbox, "_linker", works)
    use_file(broken_file)
    assert cache.get("k") is None
    cache["k"] = 2
    assert cache["k"] == 2
    assert cache.stats().restarts == 1
    assert cache.stats().insertions == 2


@pytest.mark.usefixtures("broken")
def test_threads_in_a_sandbox_that_traps_replace_it_once() -> None:
    """Of many threads at work each trap gives errors only to operations that were under way, one replacement, and a
    cache that all of them go on with."""
    cache: Moka[int, int] = Moka(None)
    go_on = True
    faults: list[BaseException] = []
    stopped = 0

    def work(thread: int) -> None:
        nonlocal stopped
        try:
            while go_on:
                for key in range(thread * 100, thread * 100 + 20):
                    try:
                        cache.set(key, key)
                        assert cache.get(key) in (key, None)
                        assert set(cache.get_many([key, key + 1]).items()) <= {(key, key), (key + 1, key + 1)}
                    except SandboxError:
                        stopped += 1
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    channel: Any = cache._channel
    for restarts in range(20):
        old = channel._guest
        assert old.before.restarts == restarts
        stop(cache, ("get", "set", "get_many")[restarts % 3])
        while channel._guest is old:
            threading.Event().wait(0.001)
    go_on = False
    for thread in threads:
        thread.join()
    assert faults == []
    assert stopped >= 20
    assert cache.stats().restarts == 20
    cache[1] = 1
    assert cache[1] == 1


@pytest.mark.usefixtures("broken")
def test_two_that_replace_one_sandbox_agree() -> None:
    """Whoever finds out later that a sandbox trapped, or was interrupted in replacing it, takes the first one's
    successor."""
    channel = DirectChannel(CacheConfig())
    old: Any = channel._guest
    channel.replace(old)
    first = channel._guest
    channel.replace(old)
    assert channel._guest is first
    # As one leaves it who was interrupted before the successor is in place.
    channel._guest = old
    channel.replace(old)
    assert channel._guest is first
    assert channel.counters().restarts == 1


@pytest.mark.usefixtures("broken")
def test_a_replacement_does_not_open_a_closed_cache() -> None:
    """A cache that another thread closes while its sandbox is replaced stays closed."""
    cache: Moka[str, int] = Moka(8)
    channel: Any = cache._channel
    old = channel._guest
    begin = channel._begin

    def close_first(*arguments: Any) -> None:
        cache.close()
        begin(*arguments)

    channel._begin = close_first
    stop(cache, "contains")
    with pytest.raises(SandboxError):
        assert "k" in cache
    assert channel._guest is None
    assert vars(old)["successor"] is not None
    for call in (lambda: cache.get("k"), lambda: cache.set("k", 1), cache.stats):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("function", ["get", "set"])
def test_single_flight_among_threads_is_released(function: str) -> None:
    """If the sandbox traps while a computation runs, its leader and those who wait get the value or the error; none
    hangs, and the key can be computed again."""
    cache: Moka[str, int] = Moka(8)
    waiting, outcomes = 4, []

    def compute() -> int:
        while cache._flights.waiting(encode_key("k")) < waiting:
            threading.Event().wait(0.001)
        stop(cache, function)
        return 5

    def ask() -> None:
        try:
            outcomes.append(cache.get_with("k", compute))
        except SandboxError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(waiting + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sum(outcome == 5 for outcome in outcomes) >= waiting
    assert sum(isinstance(outcome, SandboxError) for outcome in outcomes) == (function == "set")
    if function == "get":
        with pytest.raises(SandboxError):
            cache.get("k")
    assert cache.get_with("k", lambda: 6) == 6
    assert cache._flights._flights == {}


@pytest.mark.usefixtures("broken")
def test_single_flight_among_tasks_is_released() -> None:
    """As among threads: the one who computed gets the error, the others the value, and later calls work."""

    @cached(wait_concurrent=True)
    async def slow(x: int) -> int:
        while cache_flights()[0] < 5:
            await asyncio.sleep(0)
        stop(slow.cache, "set")
        return x

    def cache_flights() -> tuple[int, ...]:
        return tuple(len(flight.waiters) for flights in _flights_of(slow) for flight in flights._flights.values())

    async def main() -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*(slow(1) for _ in range(5)), return_exceptions=True), 60)

    outcomes = asyncio.run(main())
    assert sorted(map(str, outcomes[1:])) == ["1"] * 4
    assert isinstance(outcomes[0], SandboxError)
    assert slow.cache.stats().restarts == 1


def _flights_of(function: Any) -> list[TaskFlights]:
    from moka_wasm._single_flight import _all_flights

    return [flights for flights in list(_all_flights) if isinstance(flights, TaskFlights) and flights._flights]


@pytest.mark.usefixtures("broken")
def test_decorated_functions_compute_if_they_may() -> None:
    """``cached(on_trap="retry")`` computes anew after a trap; without, the call raises, and the next one computes."""
    calls: list[int] = []

    @cached(on_trap="retry")
    def retried(x: int) -> int:
        calls.append(x)
        return x

    @cached
    def raised(x: int) -> int:
        calls.append(x)
        return x

    class Rates:
        @cached_method(on_trap="retry")
        def of(self, x: int) -> int:
            calls.append(x)
            return x

    rates = Rates()
    assert (retried(1), raised(2), rates.of(3)) == (1, 2, 3)
    for function in (retried, raised, Rates.of):
        stop(function.cache, "get")
    assert (retried(1), rates.of(3)) == (1, 3)
    with pytest.raises(SandboxError):
        raised(2)
    assert raised(2) == 2
    assert calls == [1, 2, 3, 1, 3, 2]
    assert retried.cache_parameters()["on_trap"] == "retry"


@pytest.mark.parametrize("how", [TRAPS, TRAPS_AFTERWARDS])
def test_the_component_channel_replaces_its_sandbox_too(
    use_file: Callable[[Path], None], tmp_path: Path, how: int
) -> None:
    """Over the component face: one SandboxError, an empty cache that goes on, counters and cursors as over the ABI."""
    path = tmp_path / "broken.wasm"
    path.write_bytes(broken_component([f"{_INTERFACE}[method]cache.contains"], switched_on=how))
    use_file(path)
    channel = channels("component")
    channel.set(b"k", b"v")
    assert channel.get(b"k") == b"v"
    assert channel.counters().insertions == 1
    lease = channel.lookup(b"old", 10**12)
    cursor = channel.keys()
    for restarts in (1, 2):
        with pytest.raises(SandboxError, match="goes on, empty"):
            channel.contains(b"k")
        assert channel.get(b"k") is None
        counters = channel.counters()
        assert (counters.restarts, counters.insertions, counters.hits, counters.entries) == (restarts, restarts, 1, 0)
        assert cursor.next(10) == []
        assert channel.fill(lease, b"v") is False
        channel.release(lease)
        channel.set(b"k", b"w")
        # What a component had counted cannot be asked after a trap, as wasmtime does not enter it again.
        channel.counters()
    cursor.close()
    channel.close()


def test_a_component_that_traps_while_it_is_opened(use_file: Callable[[Path], None], tmp_path: Path) -> None:
    """Over the component face too there is one error and no endless loop."""
    path = tmp_path / "broken.wasm"
    path.write_bytes(broken_component([f"{_INTERFACE}[static]cache.open"], switched_on=TRAPS))
    use_file(path)
    with pytest.raises(SandboxError):
        channels("component")


@pytest.mark.usefixtures("broken")
@pytest.mark.skipif(hot._native is None, reason="the extension is not here, or is turned off")
def test_a_successor_that_traps_while_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an operation of another thread, which has not come back yet: that is a trap, and yet another takes over."""
    cache: Any = Moka(None)
    bind = hot.bind

    def bind_late(binding: Any, guest: Any, lane: Any) -> None:
        monkeypatch.setattr(hot, "bind", bind)
        switch(cache, number("get"), TRAPS)
        guest.calls.call(*_Lane(guest).parameters["get"])
        bind(binding, guest, lane)

    monkeypatch.setattr(hot, "bind", bind_late)
    stop(cache, "set")
    with pytest.raises(SandboxError, match="goes on, empty"):
        cache.set(1, 2)
    cache.set(1, 3)
    assert cache.get(1) == 3
