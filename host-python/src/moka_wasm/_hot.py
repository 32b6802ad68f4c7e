"""The short ways of common operations: a native extension in the place of ``_direct_channel``, where there is one.

The extension (``host-python/native``) calls the very sandbox that the channel owns, by a lane of its own. It does what
is common and leaves the rest to the methods of ``Moka``, so that nothing but the time depends on it. The environment
variable ``MOKA_WASM_PURE`` turns it off.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import wasmtime

from ._call_keys import call_key, freeze, typed_call_key
from ._keys import encode_key
from ._msgpack import MessagePackSerializer
from ._sandbox import call_unchecked_address, memory_size_address

if TYPE_CHECKING:
    from ._direct_channel import DirectChannel, _Guest, _Lane

# The versions of wasmtime whose C API the extension was tested with.
_WASMTIME = range(50, 51)


def _wasmtime_major() -> int:
    """wasmtime's major version, by the name of its metadata folder; importlib.metadata takes as long as wasmtime."""
    folder = os.path.dirname(os.path.dirname(wasmtime.__file__))
    for name in os.listdir(folder):
        if name.startswith("wasmtime-") and name.endswith(".dist-info"):
            return int(name.split("-")[1].partition(".")[0])

    from importlib import metadata

    return int(metadata.version("wasmtime").partition(".")[0])


def _load() -> Any:
    if os.environ.get("MOKA_WASM_PURE") or sys.implementation.name != "cpython":
        return None
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        # Its calls exclude each other by the GIL alone.
        return None
    try:
        native = importlib.import_module("moka_wasm._native")
        major = _wasmtime_major()
    except (ImportError, ValueError, OSError):
        return None
    if major not in _WASMTIME:
        warnings.warn(
            f"moka_wasm's native extension is tested with wasmtime {_WASMTIME.start}, not {major}, and is not used",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return native


# Of the guest, in the order in which the extension takes them.
_FUNCTIONS = ("get", "set", "contains", "remove", "get_many", "set_many", "remove_many", "drain")

MAILBOX = 72 << 10
"""The most room for a key and a value on the extension's lane: enough for values of 64 KiB."""
_LEAST_MAILBOX = 16 << 10

_native: Any = _load()
_tested: set[Callable[[MessagePackSerializer], str | None]] = set()

if TYPE_CHECKING or _native is None:

    class Hot:
        """What ``Moka`` inherits from."""

        __slots__ = ()
        _left_to_python = False

        def _leave_to_python(self, left: bool) -> None:
            """Whether the extension is to leave everything to Python from now on."""

else:
    Hot = _native.Hot


def install(cache_class: type) -> bool:
    """Puts the extension's methods before those of ``Moka``; whether there is the extension."""
    if _native is None:
        return False
    _native.install(cache_class)
    return True


def binding(clock: Callable[[], int] | None, timed: bool) -> Any:
    """A channel's way into its guests, not bound to one yet; ``None`` without the extension.

    Args:
        clock: ``None`` for the time of ``time.monotonic_ns``.
        timed: Whether entries have deadlines from the beginning; as long as they have none, no clock is read.
    """
    return None if _native is None else _native.Binding(clock, time.monotonic_ns(), timed)


def mailbox(memory_limit: int | None) -> int:
    """Bytes of room for a key and a value on the extension's lane; what is larger takes the long way.

    Args:
        memory_limit: Of the cache, in bytes. Up to 4 MiB the lane takes 16 KiB of that, then a 256th.
    """
    return MAILBOX if memory_limit is None else min(max(memory_limit >> 8, _LEAST_MAILBOX), MAILBOX)


def gate(store: wasmtime.Store, addresses: tuple[int, ...]) -> Any:
    """The way into the guest of this store by the extension; ``None`` without it."""
    return None if _native is None else _native.Gate(store, addresses)


def register_at_fork() -> None:
    """Has forks wait until nobody is inside of a guest by way of the extension."""
    if _native is not None:
        os.register_at_fork(
            before=_native.before_fork,
            after_in_parent=_native.after_fork_in_parent,
            after_in_child=_native.after_fork_in_child,
        )


def bind(binding: Any, guest: _Guest, lane: _Lane) -> None:
    """Lets operations go to this guest by this lane, which is nobody else's."""
    sandbox = guest.sandbox
    addresses = (
        call_unchecked_address(),
        memory_size_address(),
        sandbox.context(),
        *(guest.functions[name] for name in _FUNCTIONS),
        sandbox.memory_address(),
        ctypes.addressof(sandbox.address_space),
        ctypes.addressof(lane.raw),
        lane.number,
        guest.cache,
        lane.address,
        lane.room,
    )
    binding.bind(lane, guest.calls.gate, addresses)


def shard_hash() -> Callable[[bytes], int]:
    """A hash that is keyed at random, so that nobody can choose keys that all go to one shard: if the extension is in
    use its own, as it looks for keys by itself, else Python's."""
    function: Callable[[bytes], int] = hash if _native is None else _native.shard_hash
    return function


def attach(cache: Any, channels: Sequence[DirectChannel], serializer: object, *, sets: bool) -> None:
    """Lets a new cache take the short ways, if they are there and it asks for nothing that they do not have.

    Args:
        channels: The cache's one channel, or its shards, in the order of their numbers.
        sets: Whether for ``set``, too.
    """
    global _native
    bindings = [channel.binding for channel in channels]
    if _native is None or None in bindings or type(serializer) is not MessagePackSerializer:
        return
    for test in (_self_test,) if cache._listener is None else (_self_test, _self_test_of_listeners):
        if test not in _tested:
            _tested.add(test)
            fault = test(serializer)
            if fault is None:
                continue
            _native = None
            warnings.warn(
                f"moka_wasm goes on without its native extension, and slower: {fault}; please report this",
                RuntimeWarning,
                stacklevel=4,
            )
            break
    if _native is not None:
        untold = None if cache._listener is None else cache._listener.untold
        cache._attach(bindings, sets, serializer.loads, cache._flights.latest, untold)


def cached_function(
    cache: Any,
    whole: Callable[..., Any],
    missed: Callable[..., Any],
    make_key: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    *,
    shared: bool,
) -> Callable[..., Any] | None:
    """A function that does what ``whole`` does, and calls that hit by itself; ``None`` where it cannot.

    Args:
        cache: The cache of the function.
        whole: Does all of a call.
        missed: Does what follows a look-up that found nothing: gets the mark of single flight from before it, if
            ``shared``, and the call's arguments.
        make_key: How keys are made. The extension knows those of ``_call_keys``.
        shared: Whether concurrent calls share computations.
    """
    if _native is None or not cache._takes_short_ways or make_key not in (call_key, typed_call_key):
        return None
    types = None
    if make_key is typed_call_key:
        # The first byte says that it is a tuple; the rest is the frame of its one item.
        types = [encode_key((freeze(kind),))[1:] for kind in (str, int, bytes, float, bool, type(None))]
    function: Callable[..., Any] = _native.cached_function(cache, whole, missed, shared, 0, types)
    return function


def _self_test(serializer: MessagePackSerializer) -> str | None:
    """What the extension does otherwise than Python, if anything."""
    from ._moka import Moka

    values = ["", "a", "\u00e4" * 200, 0, -1, 1 << 40, 1.5, True, None, b"x", [1, "b"], {"a": [math.pi], 2: {}}, (1,)]
    try:
        with Moka[Any, Any](None) as cache:
            for number, value in enumerate(values):
                for key in (number, f"key {number}", ("key", number)):
                    cache.set(key, value)
                    stored = cache._channel.get(encode_key(key))
                    if stored != serializer.dumps(value):
                        return f"it stored {value!r} as {stored!r}"
                    found = cache.get(key)
                    if found != value or type(found) is not type(value) or cache.get((key, "absent")) is not None:
                        return f"it found {found!r} for {value!r}"
                    if cache.get_with(key, lambda: "computed") != value or cache.get_many([key, "absent"]) != {
                        key: value
                    }:
                        return f"get_with or get_many did not find {value!r}"
            entries = dict(enumerate(values))
            cache.set_many(entries)
            if cache.get_many(entries) != entries or cache.remove_many([*entries, "absent"]) != len(entries):
                return "set_many or remove_many did otherwise"
            cache.set("live", 1, ttl=60)
            cache.set("live", 2, 60.0)
            remaining = cache._channel.remaining(encode_key("live"))
            if not 0 < (remaining or 0) <= 60_000_000_000 or "live" not in cache:
                return f"it gave an entry {remaining} nanoseconds for 60 seconds"
            if cache.remove("live") != 2 or "live" in cache:
                return "remove did otherwise"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _self_test_of_listeners(_: MessagePackSerializer) -> str | None:
    """As :func:`_self_test`, what a listener is told."""
    from ._moka import Moka

    told: list[tuple[Any, Any, str]] = []
    try:
        with Moka[Any, Any](None, eviction_listener=lambda *removal: told.append(removal)) as cache:
            cache.set("a", [1, "b"])
            cache.set("a", 2)
            if cache.remove("a") != 2 or told != [("a", [1, "b"], "replaced"), ("a", 2, "explicit")]:
                return f"it told the listener {told!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
