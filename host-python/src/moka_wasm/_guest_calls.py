"""The call into a guest: who may be inside, and for how long.

A short call holds the GIL, so that no other thread can be inside the same guest. With the native extension a call that
may be long (``clear``, ``run_pending``, a walk over the keys, ``stats``) lets the GIL go, so that other threads run
meanwhile; those that want to use the same cache wait for its end, with the GIL let go (``native/src/gate.rs``). Without
the extension, by ctypes, all calls hold the GIL. Where there is no GIL, and where every call lets it go so that the
ticks of a timeout get through, a lock keeps the others out.

The guest calls nobody back, so that Python code of the thread inside never runs meanwhile; between the bytecodes around
the call it may (a signal handler, a finalizer), which is why the thread may take the lock again. A fork waits until
nobody is inside, as the child would inherit a guest in the middle of an operation, and a lock that nobody gives back.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from . import _hot as hot
from ._sandbox import Sandbox, call_unchecked_address, memory_size_address, set_deadline_address

SLOTS: Final = 8
"""Argument slots of a lane, of two numbers each."""
TRAP: Final = 2 * SLOTS
"""The number behind them: the place for wasmtime's pointer to a trap."""

REFUSED: Final = -1
"""In the place of an error: the guest has trapped in another thread's operation, and was not called."""

_RELEASES_GIL: Final[Any] = ctypes.CFUNCTYPE
# An interpreter without the C API has no function type that keeps the GIL, and takes the lock.
_KEEPS_GIL: Final[Any] = getattr(ctypes, "PYFUNCTYPE", ctypes.CFUNCTYPE)
CALLS_EXCLUDE_EACH_OTHER: Final = (
    sys.implementation.name == "cpython"
    and hasattr(ctypes, "PYFUNCTYPE")
    and getattr(sys, "_is_gil_enabled", lambda: True)()
)
# What goes through all entries, or may have many to evict; in a guest with little memory that is short all the same.
_MAY_BE_LONG: Final = frozenset({"clear", "keys", "keys_close", "keys_next", "make_room", "run_pending", "stats"})


class GuestCalls(NamedTuple):
    """How to call into one guest."""

    call: Callable[..., int]
    """Calls a function (``wasmtime_func_call_unchecked``); answers wasmtime's error, or 0, or that it was refused."""
    call_trapped: Callable[..., int]
    """Likewise, of a guest that has trapped, for what it still may be asked."""
    parameters: Callable[[str, int, int], tuple[object, ...]]
    """What that takes, for a function of this name and address and slots at this address. It keeps none of them."""
    memory_size: Callable[[], int]
    """Bytes of the guest's memory now."""
    gate: Any = None
    """For the extension's own calls; ``None`` if it must not make any."""


def untimed(sandbox: Sandbox) -> GuestCalls:
    """How to call into the guest of this sandbox."""
    if CALLS_EXCLUDE_EACH_OTHER:
        gate = _new_gate(sandbox)
        if gate is not None:
            return GuestCalls(gate.call, gate.call_trapped, _parameters_of_gate, gate.memory_size, gate)
    call: Callable[..., int] = _KEEPS_GIL(ctypes.c_int64)(call_unchecked_address())
    parameters = _parameters_in(sandbox)
    if CALLS_EXCLUDE_EACH_OTHER:
        return GuestCalls(call, call, parameters, sandbox.memory_size)
    entrance = _new_entrance()

    def locked(*arguments: object) -> int:
        with entrance.lock:
            return call(*arguments)

    return GuestCalls(locked, locked, parameters, entrance.locked(sandbox.memory_size))


def timed(sandbox: Sandbox, ticks: int) -> GuestCalls:
    """Likewise, for a guest that is stopped after so many ticks of its engine."""
    call: Callable[..., int] = _RELEASES_GIL(ctypes.c_int64)(call_unchecked_address())
    set_deadline: Callable[..., None] = _KEEPS_GIL(None)(set_deadline_address())
    deadline = (ctypes.c_void_p(sandbox.context()), ctypes.c_uint64(ticks))
    entrance = _new_entrance()

    def locked(*arguments: object) -> int:
        with entrance.lock:
            set_deadline(*deadline)
            return call(*arguments)

    return GuestCalls(locked, locked, _parameters_in(sandbox), entrance.locked(sandbox.memory_size))


def _new_gate(sandbox: Sandbox) -> Any:
    addresses = (call_unchecked_address(), memory_size_address(), sandbox.context(), sandbox.memory_address())
    return hot.gate(sandbox.store, addresses)


def _parameters_of_gate(name: str, function: int, slots: int) -> tuple[object, ...]:
    return function, slots, name in _MAY_BE_LONG


def _parameters_in(sandbox: Sandbox) -> Callable[[str, int, int], tuple[object, ...]]:
    # Prepared, as what ctypes makes of an argument before a call: five integers would take as long as the call.
    pointer, number = ctypes.c_void_p.from_param, ctypes.c_size_t.from_param
    context = pointer(sandbox.context())

    def parameters(_: str, function: int, slots: int) -> tuple[object, ...]:
        return context, pointer(function), pointer(slots), number(SLOTS), pointer(slots + 8 * TRAP)

    return parameters


class _Entrance:
    """The lock of one guest."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def locked(self, measure: Callable[[], int]) -> Callable[[], int]:
        """The same function, with the lock."""

        def measure_alone() -> int:
            with self.lock:
                return measure()

        return measure_alone


_entrances: weakref.WeakSet[_Entrance] = weakref.WeakSet()
_shut = threading.local()


def _new_entrance() -> _Entrance:
    entrance = _Entrance()
    _entrances.add(entrance)
    return entrance


def _shut_before_fork() -> None:
    # In one order, so that two threads that fork do not wait for each other.
    _shut.entrances = sorted(_entrances, key=id)
    for entrance in _shut.entrances:
        entrance.lock.acquire()


def _open_after_fork() -> None:
    for entrance in vars(_shut).pop("entrances", ()):
        entrance.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_shut_before_fork, after_in_parent=_open_after_fork, after_in_child=_open_after_fork)
    hot.register_at_fork()
