"""What a hostile program in the place of the cache could reach: nothing of the host, and of no other cache."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from test_channel import guest
from test_trap import use_file

from moka_wasm import IncompatibleComponentError, Moka, SandboxError
from moka_wasm._channel import CacheConfig
from moka_wasm._direct_channel import DirectChannel

__all__ = ["use_file"]

Use = Callable[[Path], None]

# Of WASI 0.1, and of WASI 0.2 as a core module imports it: files, the environment, arguments, streams, sockets, random
# numbers and clocks by other names, and the end of the process.
WASI = [
    *(
        ("wasi_snapshot_preview1", name)
        for name in (
            *("args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get"),
            *("fd_advise", "fd_close", "fd_fdstat_get", "fd_filestat_get", "fd_prestat_get", "fd_prestat_dir_name"),
            *("fd_pread", "fd_read", "fd_readdir", "fd_seek", "fd_write", "fd_pwrite", "path_create_directory"),
            *("path_open", "path_readlink", "path_rename", "path_symlink", "path_unlink_file", "poll_oneoff"),
            *("proc_exit", "proc_raise", "random_get", "sched_yield"),
            *("sock_accept", "sock_recv", "sock_send", "sock_shutdown"),
        )
    ),
    ("wasi_unstable", "fd_write"),
    ("wasi:cli/environment@0.2.0", "get-environment"),
    ("wasi:cli/environment@0.2.0", "get-arguments"),
    ("wasi:cli/exit@0.2.0", "exit"),
    ("wasi:cli/stdout@0.2.0", "get-stdout"),
    ("wasi:cli/stderr@0.2.0", "get-stderr"),
    ("wasi:cli/stdin@0.2.0", "get-stdin"),
    ("wasi:clocks/wall-clock@0.2.0", "now"),
    ("wasi:filesystem/preopens@0.2.0", "get-directories"),
    ("wasi:filesystem/types@0.2.0", "[method]descriptor.open-at"),
    ("wasi:io/streams@0.2.0", "[method]output-stream.write"),
    ("wasi:io/poll@0.2.0", "poll"),
    ("wasi:random/insecure@0.2.0", "get-insecure-random-u64"),
    ("wasi:random/random@0.2.0", "get-random-bytes"),
    ("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket"),
    ("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses"),
    ("wasi:http/outgoing-handler@0.2.0", "handle"),
]


@pytest.fixture
def use(use_file: Use, tmp_path: Path) -> Callable[[bytes], None]:
    def use(component: bytes) -> None:
        path = tmp_path / "hostile.wasm"
        path.write_bytes(component)
        use_file(path)

    return use


@pytest.mark.parametrize(("module", "name"), WASI)
def test_nothing_of_wasi_is_linked(use: Callable[[bytes], None], module: str, name: str) -> None:
    """A program that imports a function of WASI, of whatever type, is refused before any of it runs; the error names
    the import."""
    for kind in ("(func)", "(func (param i32 i32 i32 i32) (result i32))"):
        use(guest(extra=f'(import "{module}" "{name}" {kind}) (func $begin unreachable) (start $begin)'))
        with pytest.raises(IncompatibleComponentError, match=re.escape(name)):
            Moka(8)


@pytest.mark.parametrize("kind", ["(memory 1)", "(table 1 funcref)", "(global i64)", "(global (mut i32))"])
@pytest.mark.parametrize(
    "name",
    [
        '"env" "shared"',
        '"wasi:random/random@0.2.0" "get-random-u64"',
        '"[export]moka:cache/cache@0.1.0" "[resource-new]cache"',
    ],
)
def test_nothing_but_functions_is_linked(use: Callable[[bytes], None], kind: str, name: str) -> None:
    """No memory, table or global can be had from outside, under a known name neither."""
    memory = '(memory 20 100)(export "memory" (memory 0))'
    if kind == "(memory 1)":
        # One memory a module: this one is imported, and exported as its own.
        memory = '(export "memory" (memory 0))'
    use(guest(memory="", extra=f"(import {name} {kind}) {memory}"))
    with pytest.raises(IncompatibleComponentError, match="no function"):
        Moka(8)


# The guest's memory and what lies around it.

_SIZE = 20 << 16


@pytest.mark.parametrize("access", ["i32.load8_u", "i64.load", "i32.store8", "i64.store"])
@pytest.mark.parametrize(
    ("address", "offset"),
    [(_SIZE, 0), (_SIZE - 1, 8), (0, _SIZE), (-1, 0), (-8, 0), (-1, 2**32 - 1), (0, 2**32 - 1), (2**31, 2**31)],
)
def test_what_lies_beyond_its_memory_is_out_of_reach(
    use: Callable[[bytes], None], access: str, address: int, offset: int
) -> None:
    """A program that reads or writes beyond its memory, up to the 8 GiB that an instruction can name, is stopped."""
    where = f"{access} offset={offset} (i32.const {address})"
    kind = access.partition(".")[0]
    code = f"({where} ({kind}.const 1))" if "store" in access else f"(drop ({where}))"
    use(guest(get=f"{code} i64.const 0"))
    channel = DirectChannel(CacheConfig())
    for _ in range(2):
        with pytest.raises(SandboxError) as caught:
            channel.get(b"k")
        assert isinstance(caught.value.__cause__, wasmtime.Trap)
        assert caught.value.__cause__.trap_code is wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS
        channel.set(b"k", b"v")


def memory_of(cache: Any) -> bytes:
    one = cache._channel._guest
    return bytes(one.memory[: one.sandbox.memory_size()])


def test_two_caches_share_no_memory() -> None:
    """What one cache holds is in its own memory, and in that of no other cache, opened before or after."""
    secret = os.urandom(16).hex()
    before: Moka[str, str] = Moka(8)
    one: Moka[str, str] = Moka(8)
    one[f"key {secret}"] = f"value {secret}"
    after: Moka[str, str] = Moka(8)
    for other in (before, after):
        other["k"] = "v"
        assert other.get(f"key {secret}") is None
        # But for the key of the look-up that was just done.
        assert f"value {secret}".encode() not in memory_of(other)
    assert f"value {secret}".encode() in memory_of(one)
    addresses = [cache._channel._guest.sandbox.memory_address() for cache in (before, one, after)]  # type: ignore[attr-defined]
    assert len(set(addresses)) == 3


def test_a_cache_opened_in_the_place_of_another_finds_nothing_of_it() -> None:
    """The address space of a closed cache is wiped before another cache gets it."""
    secrets = [os.urandom(16).hex() for _ in range(20)]
    for secret in secrets:
        with Moka[str, str](8) as cache:
            cache["k"] = secret * 1000
            found = memory_of(cache)
            assert secret.encode() in found
            assert not any(other.encode() in found for other in secrets if other != secret)


def test_nothing_of_the_process_gets_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor arguments, paths or names of this process are in the guest's memory."""
    secret = os.urandom(16).hex()
    monkeypatch.setenv("MOKA_TEST_SECRET", secret)
    monkeypatch.setattr("sys.argv", ["program", secret])
    monkeypatch.chdir(tmp_path)
    cache: Moka[str, int] = Moka(8)
    cache["k"] = 1
    held = memory_of(cache)
    for known in (secret, "MOKA_TEST_SECRET", str(tmp_path), os.path.expanduser("~/")):
        assert known.encode() not in held


def open_files() -> set[str]:
    """What this process has open, where the system tells. Nameless files are wasmtime's own, one a module, and so
    are those in its folder of compiled code, which a thread of its own looks after."""
    found: set[str] = set()
    folder = Path("/proc/self/fd")
    for descriptor in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            found.add(os.readlink(descriptor))
    return {name for name in found if not name.startswith("/memfd:") and "/wasmtime/modules/" not in name}


def test_nothing_is_written_anywhere(capfd: pytest.CaptureFixture[str], tmp_path: Path, use_file: Use) -> None:
    """The guest writes nothing to the standard streams, not even when it stops, and opens no file."""
    before = open_files()
    cache: Moka[int, Any] = Moka(8, memory_limit=1 << 20)
    for key in range(100):
        cache[key] = "x" * 1000
    path = tmp_path / "traps.wasm"
    path.write_bytes(guest(get="unreachable"))
    use_file(path)
    with pytest.raises(SandboxError):
        DirectChannel(CacheConfig()).get(b"k")
    assert open_files() <= before
    assert capfd.readouterr() == ("", "")
