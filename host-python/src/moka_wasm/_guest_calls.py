"""The call into a guest, by ctypes: who may be inside, and for how long.

Usually the call holds the GIL, so that no other thread can be inside the same guest. Where there is no GIL, and where
the call lets it go so that the ticks of a timeout get through, a lock keeps the others out. The guest calls nobody
back, so that Python code of the thread inside never runs meanwhile; between the bytecodes around the call it may (a
signal handler, a finalizer), which is why the thread may take the lock again. A fork waits until nobody is inside, as
the child would inherit a guest in the middle of an operation, and a lock that nobody gives back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ._sandbox import call_unchecked_address, set_deadline_address

_RELEASES_GIL: Final[Any] = ctypes.CFUNCTYPE
# An interpreter without the C API has no function type that keeps the GIL, and takes the lock.
_KEEPS_GIL: Final[Any] = getattr(ctypes, "PYFUNCTYPE", ctypes.CFUNCTYPE)
CALLS_EXCLUDE_EACH_OTHER: Final = (
    sys.implementation.name == "cpython"
    and hasattr(ctypes, "PYFUNCTYPE")
    and getattr(sys, "_is_gil_enabled", lambda: True)()
)


class _Entrance:
    """The lock of one guest."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()


def untimed() -> tuple[Callable[..., int], AbstractContextManager[object]]:
    """The function that calls the guest (``wasmtime_func_call_unchecked``), and what keeps others out of it."""
    call: Callable[..., int] = _KEEPS_GIL(ctypes.c_int64)(call_unchecked_address())
    if CALLS_EXCLUDE_EACH_OTHER:
        return call, contextlib.nullcontext()
    entrance = _new_entrance()

    def locked(*arguments: object) -> int:
        with entrance.lock:
            return call(*arguments)

    return locked, entrance.lock


def timed(context: int, ticks: int) -> tuple[Callable[..., int], AbstractContextManager[object]]:
    """Likewise, for a guest in the store of this context that is stopped after so many ticks of its engine."""
    call: Callable[..., int] = _RELEASES_GIL(ctypes.c_int64)(call_unchecked_address())
    set_deadline: Callable[..., None] = _KEEPS_GIL(None)(set_deadline_address())
    deadline = (ctypes.c_void_p(context), ctypes.c_uint64(ticks))
    entrance = _new_entrance()

    def locked(*arguments: object) -> int:
        with entrance.lock:
            set_deadline(*deadline)
            return call(*arguments)

    return locked, entrance.lock


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
