"""What the sandbox is given: two functions, for the time and for random numbers, and nothing else of the host."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import struct

import pytest
import wasmtime
from wasmtime import component as wit

from moka_wasm import Moka, _sandbox
from moka_wasm._component_file import _read_leb128, component, core_module

CLOCK = ("wasi:clocks/monotonic-clock@0.2.0", "now")
RANDOM = ("wasi:random/random@0.2.0", "get-random-u64")
# How the component face keeps book of its three resources; not called by way of the direct ABI.
BOOKKEEPING = {
    ("[export]moka:cache/cache@0.1.0", f"[resource-{what}]{resource}")
    for what in ("new", "rep", "drop")
    for resource in ("cache", "key-cursor", "lease")
}
DIRECT_ABI = {
    *("moka_abi_version", "moka_open", "moka_close", "moka_mailbox", "moka_error", "moka_make_room", "moka_stats"),
    *("moka_get", "moka_contains", "moka_set", "moka_get_or_insert", "moka_remove", "moka_expire", "moka_remaining"),
    *("moka_get_many", "moka_set_many", "moka_remove_many", "moka_clear", "moka_run_pending", "moka_drain"),
    *("moka_keys", "moka_keys_next", "moka_keys_close", "moka_lookup", "moka_fill", "moka_release"),
}


@pytest.fixture(scope="module")
def module() -> wasmtime.Module:
    return wasmtime.Module(_sandbox.engine(), core_module(component()))


def test_the_core_module_imports_what_is_known(module: wasmtime.Module) -> None:
    """The core module imports the clock, random numbers, and bookkeeping of its own face: functions, nothing else."""
    imports = {(wanted.module, wanted.name) for wanted in module.imports}
    assert {CLOCK, RANDOM} <= imports
    assert imports - {CLOCK, RANDOM} <= BOOKKEEPING
    assert all(isinstance(wanted.type, wasmtime.FuncType) for wanted in module.imports)


def test_the_two_imports_take_nothing_and_answer_a_number(module: wasmtime.Module) -> None:
    """Neither import is told anything, and each answers 64 bits."""
    kinds = {(wanted.module, wanted.name): wanted.type for wanted in module.imports}
    for name in (CLOCK, RANDOM):
        kind = kinds[name]
        assert isinstance(kind, wasmtime.FuncType)
        assert (list(kind.params), [str(result) for result in kind.results]) == ([], ["i64"])


def test_the_component_imports_two_interfaces() -> None:
    """The component imports the interfaces of clock and random numbers, no file, environment, stream or socket."""
    kind = wit.Component(_sandbox.engine(), component()).type
    assert set(kind.imports(_sandbox.engine())) == {CLOCK[0], RANDOM[0]}


def test_the_component_exports_the_cache() -> None:
    """The component exports the interface of the cache, and that of its types."""
    kind = wit.Component(_sandbox.engine(), component()).type
    assert set(kind.exports(_sandbox.engine())) == {"moka:cache/cache@0.1.0", "moka:cache/types@0.1.0"}


def test_no_wasi_is_defined(module: wasmtime.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linker is given the module's own imports one by one; WASI is never defined, nor configured."""

    def forbidden(*_: object) -> None:
        raise AssertionError("WASI was defined")

    defined: list[tuple[str, str]] = []
    define = wasmtime.Linker.define_func

    def recording(linker: wasmtime.Linker, module: str, name: str, *rest: object) -> object:
        defined.append((module, name))
        return define(linker, module, name, *rest)  # type: ignore[arg-type]

    for owner, name in (
        (wasmtime.Linker, "define_wasi"),
        (wasmtime.Linker, "define"),
        (wasmtime.Linker, "define_instance"),
        (wasmtime.Linker, "define_module"),
        (wasmtime.Store, "set_wasi"),
        (wasmtime.WasiConfig, "__init__"),
    ):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(wasmtime.Linker, "define_func", recording)
    _sandbox._linker.cache_clear()
    try:
        with Moka[int, int](8) as cache:
            cache[1] = 2
            assert cache[1] == 2
    finally:
        _sandbox._linker.cache_clear()
    assert set(defined) == {(wanted.module, wanted.name) for wanted in module.imports}


def test_the_core_module_exports_the_direct_abi(module: wasmtime.Module) -> None:
    """The core module exports each function of the direct ABI, and its memory."""
    exports = {export.name: export.type for export in module.exports}
    assert {name for name in exports if name.startswith("moka_")} == DIRECT_ABI
    assert isinstance(exports["memory"], wasmtime.MemoryType)


def test_random_numbers_come_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keys the guest's hash is 64 bits of ``os.urandom``."""
    monkeypatch.setattr(_sandbox.os, "urandom", lambda size: b"\xff" * size)
    assert _sandbox.random_u64() == -1
    monkeypatch.undo()
    assert len({_sandbox.random_u64() for _ in range(100)}) == 100


def test_each_cache_has_a_store_of_its_own() -> None:
    """Two caches share no instance and no memory."""
    one, other = Moka[int, int](8), Moka[int, int](8)
    guests = [cache._channel._guest for cache in (one, other)]  # type: ignore[attr-defined]
    assert guests[0].sandbox.store is not guests[1].sandbox.store
    one[1] = 1
    assert 1 not in other


def test_the_memory_cap_is_the_stores() -> None:
    """The sandbox cannot grow beyond its cap, whatever the guest asks for."""
    sandbox = _sandbox.Sandbox(1 << 20)
    memory = sandbox._exports["memory"]
    assert isinstance(memory, wasmtime.Memory)
    with pytest.raises(wasmtime.WasmtimeError):
        memory.grow(sandbox.store, 1000)
    assert sandbox.memory_size() <= 1 << 20
    sandbox.close()


def test_a_cap_below_what_the_program_needs_is_a_memory_error() -> None:
    """A sandbox that cannot even begin says so with a MemoryError."""
    with pytest.raises(MemoryError, match="set up"):
        _sandbox.Sandbox(1)


def test_a_machine_without_a_home_folder_compiles_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where wasmtime's cache of compiled code cannot be, there is an engine all the same."""
    refuse = property(None, lambda config, on: (_ for _ in ()).throw(wasmtime.WasmtimeError("no home")))
    monkeypatch.setattr(wasmtime.Config, "cache", refuse)
    assert isinstance(_sandbox.new_engine(), wasmtime.Engine)


def machine_code(engine: wasmtime.Engine, module: bytes) -> bytes:
    """What wasmtime compiles of a module: the section ``.text`` of the ELF file that it keeps."""
    elf = bytes(wasmtime.Module(engine, module).serialize())
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry, number, names = struct.unpack_from("<3H", elf, 0x3A)
    sections = [struct.unpack_from("<2I4Q", elf, table + entry * index) for index in range(number)]
    (text,) = (s for s in sections if elf[sections[names][4] + s[0] :].startswith(b".text\0"))
    return elf[text[4] : text[4] + text[5]]


def without_hints(module: bytes) -> bytes:
    """The module without the custom section that tells which branches are seldom taken."""
    kept, position = [module[:8]], 8
    while position < len(module):
        length, start = _read_leb128(module, position + 1)
        if b"metadata.code.branch_hint" not in module[start : min(start + length, start + 30)]:
            kept.append(module[position : start + length])
        position = start + length
    return b"".join(kept)


def test_the_compiler_takes_the_components_branch_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes other machine code by them, and the same as always where there are none or the library cannot take them,
    each of which has its own place in the cache of compiled code."""
    hinted = core_module(component())
    bare = without_hints(hinted)
    assert len(bare) < len(hinted)
    engine = _sandbox.new_engine()
    taken = machine_code(engine, hinted)
    of_bare = machine_code(engine, bare)
    assert taken != of_bare

    monkeypatch.setattr(_sandbox, "ffi", type("OfAnotherVersion", (), {"dll": object()}))
    ignorant = _sandbox.new_engine()
    assert machine_code(ignorant, hinted) == of_bare
    assert machine_code(ignorant, bare) == of_bare
