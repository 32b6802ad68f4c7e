"""The sandbox: wasmtime compiles, instantiates and limits the core module; nothing else of the host is let in.

This module and the channel over it (``_direct_channel``) are the only ones that know wasmtime.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime._func import maybe_raise_last_exn

from ._component_file import component, core_module
from ._errors import GuestMemoryError, IncompatibleComponentError, SandboxError
from ._ticker import Ticker

RANDOM = ("wasi:random/random@0.2.0", "get-random-u64")
CLOCK = ("wasi:clocks/monotonic-clock@0.2.0", "now")
# Bookkeeping of the component face, which the direct ABI never calls.
_UNUSED = "[export]moka:cache/cache@0.1.0"

_ADDRESS_SPACE = 1 << 32


def new_engine(**options: Any) -> wasmtime.Engine:
    """An engine that keeps compiled code in wasmtime's own cache, in a folder of the user, from process to process."""

    def config() -> wasmtime.Config:
        config = wasmtime.Config()
        # A linear memory that never moves: its address is asked for once. wasmtime reserves address space, not memory.
        config.memory_may_move = False
        config.memory_reservation = _ADDRESS_SPACE
        # Compiling threads would not outlive a fork, and be waited for in the child.
        config.parallel_compilation = False
        _take_branch_hints(config)
        for name, value in options.items():
            setattr(config, name, value)
        return config

    cached = config()
    try:
        cached.cache = True
    except wasmtime.WasmtimeError:
        # No home folder, or one that cannot be written: every process compiles for itself.
        cached = config()
    return wasmtime.Engine(cached)


def _take_branch_hints(config: wasmtime.Config) -> None:
    """Has the compiler put aside what seldom runs, as the component's section ``metadata.code.branch_hint`` says.

    All that a hint does is to move a block to its function's end. wasmtime leaves hints unread by default while they
    are new, and wasmtime-py has no name for the setting yet; a library without it compiles as if there were none.
    """
    switch = getattr(ffi.dll, "wasmtime_config_wasm_branch_hinting_set", None)
    if switch is not None:
        switch.argtypes, switch.restype = (ctypes.c_void_p, ctypes.c_bool), None
        switch(config.ptr(), True)


@functools.cache
def engine(interruptible: bool = False) -> wasmtime.Engine:
    """The process's engine; another one for guests that can be stopped, whose code is slower for it."""
    return new_engine(epoch_interruption=True) if interruptible else new_engine()


@functools.cache
def ticker() -> Ticker:
    """What lets the time of guests go by that can be stopped."""
    return Ticker(engine(True).increment_epoch)


@functools.cache
def _module(interruptible: bool = False) -> wasmtime.Module:
    core = core_module(component())
    try:
        return wasmtime.Module(engine(interruptible), core)
    except wasmtime.WasmtimeError as error:
        raise IncompatibleComponentError(f"wasmtime does not accept the component: {error}") from error


def random_u64() -> int:
    """What the guest keys its hash with."""
    return int.from_bytes(os.urandom(8), "little", signed=True)


def _refuse(*_: object) -> None:
    raise AssertionError("the component face is not to be called by way of the direct ABI")


@functools.cache
def _linker(interruptible: bool = False) -> wasmtime.Linker:
    linker = wasmtime.Linker(engine(interruptible))
    for wanted in _module(interruptible).imports:
        name = (wanted.module, wanted.name or "")
        kind = wanted.type
        if not isinstance(kind, wasmtime.FuncType):
            raise IncompatibleComponentError(f"the component imports {name}, which is no function: install it anew")
        if name == RANDOM:
            linker.define_func(*name, kind, random_u64)
        elif name == CLOCK:
            linker.define_func(*name, kind, time.monotonic_ns)
        elif name[0] == _UNUSED:
            linker.define_func(*name, kind, _refuse)
        else:
            raise IncompatibleComponentError(f"the component asks for {name}, which it is not given: install it anew")
    return linker


def _count_function(name: str) -> Callable[[object], None]:
    """A function of CPython that counts references; where there is none, nothing is counted."""
    api = getattr(ctypes, "pythonapi", None)
    if api is None or sys.implementation.name != "cpython":
        return lambda _: None
    function = getattr(api, name)
    function.argtypes, function.restype = [ctypes.py_object], None
    return function  # type: ignore[no-any-return]


# A reference that the garbage collector does not see. Of objects that became garbage together it runs the finalizers
# in any order: the store's own frees it, and another's may use the cache after that. Held so, the store is no garbage
# until all finalizers have run.
_hold = _count_function("Py_IncRef")
_release = _count_function("Py_DecRef")


class Sandbox:
    """One instance of the core module, in a store of its own: a trap in it harms no other.

    Args:
        memory_cap: The most bytes of linear memory it may grow to; ``None`` for the 4 GiB of its address space.
        timeout_ticks: How many ticks setting it up may take; ``None`` for no limit, here and for all calls.
    """

    def __init__(self, memory_cap: int | None, timeout_ticks: int | None = None) -> None:
        interruptible = timeout_ticks is not None
        self.store = wasmtime.Store(engine(interruptible))
        if timeout_ticks is not None:
            self._ticks_for = ticker()
            self._ticks_for.begin(self)
            self.store.set_epoch_deadline(timeout_ticks)
        if memory_cap is not None:
            self.store.set_limits(memory_size=memory_cap)
        try:
            instance = _linker(interruptible).instantiate(self.store, _module(interruptible))
        except wasmtime.Trap as trap:
            raise SandboxError("the sandbox stopped while it was set up") from trap
        except wasmtime.WasmtimeError as error:
            raise GuestMemoryError(f"the sandbox cannot be set up: {error}") from error
        self._exports = instance.exports(self.store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        base = ctypes.addressof(memory.data_ptr(self.store).contents)
        self.address_space: Any = (ctypes.c_char * _ADDRESS_SPACE).from_address(base)
        """All of the guest's address space; a slice is ``bytes``. What lies beyond :meth:`memory_size` must not be
        touched."""
        self.memory = memoryview(self.address_space).cast("B")
        """The same, as numbers."""
        _hold(self.store)
        # Its own: where the interpreter ends, the module's name may be gone before this is.
        self._release = _release

    def __del__(self) -> None:
        if hasattr(self, "_ticks_for"):
            self._ticks_for.end(self)
        release = vars(self).pop("_release", None)
        if release is not None:
            release(self.store)

    def memory_size(self) -> int:
        """Bytes of linear memory now."""
        return int(self._memory.data_len(self.store))

    def memory_address(self) -> int:
        """The address of the ``wasmtime_memory_t``."""
        return ctypes.addressof(self._memory._memory)

    def context(self) -> int:
        """The address of the ``wasmtime_context_t``."""
        return _address(self.store._context())

    def function(self, name: str) -> ctypes.Structure:
        """The ``wasmtime_func_t`` of an exported function."""
        function = self._exports.get(name)
        if not isinstance(function, wasmtime.Func):
            raise IncompatibleComponentError(f"the component does not export {name}: install it anew")
        return function._func

    def close(self) -> None:
        """Gives its memory back."""
        self.store.close()


def _address(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def call_unchecked_address() -> int:
    """The address of ``wasmtime_func_call_unchecked`` in the library that wasmtime-py has loaded."""
    return _address(ffi.dll.wasmtime_func_call_unchecked)


def set_deadline_address() -> int:
    """The address of ``wasmtime_context_set_epoch_deadline`` there."""
    return _address(ffi.dll.wasmtime_context_set_epoch_deadline)


def memory_size_address() -> int:
    """The address of ``wasmtime_memory_data_size`` there."""
    return _address(ffi.dll.wasmtime_memory_data_size)


def is_timeout(error: BaseException) -> bool:
    """Whether a guest was stopped because its time was over."""
    return isinstance(error, wasmtime.Trap) and error.trap_code is wasmtime.TrapCode.INTERRUPT


def take_error(error: int | None, trap: int | None) -> BaseException:
    """What stopped a call: the exception of a function that the guest called, or else what wasmtime reported, which is
    freed with the exception."""
    if trap:
        pointer = ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t))
        reported: BaseException = wasmtime.Trap._from_ptr(pointer)
    else:
        pointer_to_error = ctypes.cast(error or 0, ctypes.POINTER(ffi.wasmtime_error_t))
        reported = wasmtime.WasmtimeError._from_ptr(pointer_to_error)
    try:
        # wasmtime-py keeps it for the next call of its own, which would raise it.
        maybe_raise_last_exn()
    except BaseException as exception:
        return exception
    return reported


if not hasattr(ffi.dll, "wasmtime_func_call_unchecked"):  # pragma: no cover
    warnings.warn("this version of wasmtime is not known to moka_wasm: pin the range of its metadata", stacklevel=2)
