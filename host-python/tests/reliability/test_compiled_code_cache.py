"""Compiled code that wasmtime keeps between processes: damaged files are compiled anew, never a crash."""

# pyright: basic

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the folder is that of Linux")

PROGRAM = """
from moka_wasm import Moka
cache = Moka(8)
cache["k"] = [1]
assert cache["k"] == [1]
"""


def run(folder: Path) -> None:
    """A new process whose user's folders are in this one, and which must do its work."""
    places = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **places}, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def compiled(folder: Path) -> list[Path]:
    """The files of compiled code; those of statistics lie beside them."""
    return [path for path in (folder / "cache").rglob("*") if path.is_file() and path.stat().st_size > 100_000]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[::-1],
        lambda data: b"\0asm" + data[4:],
        lambda data: b"not compiled code",
    ],
    ids=["empty", "one byte", "half", "without its last byte", "zeros", "backwards", "another header", "text"],
)
def test_damaged_compiled_code_is_compiled_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Whatever has become of the file, the next process works."""
    run(tmp_path)
    files = compiled(tmp_path)
    assert files, "compiled code is kept in the user's folder"
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    run(tmp_path)
    run(tmp_path)


def test_a_folder_in_the_place_of_compiled_code(tmp_path: Path) -> None:
    """A folder where the file should be is in nobody's way."""
    run(tmp_path)
    for path in compiled(tmp_path):
        path.unlink()
        path.mkdir()
    run(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    """Where the folder cannot be made, every process compiles for itself."""
    (tmp_path / "cache").write_text("a file")
    run(tmp_path)
