"""Runs one wasm32-wasip1 program under wasmtime: cargo's runner for the Rust tests inside wasm.

    run_wasi_test.py PROGRAM.wasm [argument]...

The program gets the arguments, the environment, standard output and standard error, and nothing else. Its exit code is
ours; a trap is 134, as an abort is.
"""

from __future__ import annotations

import os
import sys

import wasmtime


def run(program: str, arguments: list[str]) -> int:
    """Runs ``program`` to its end and returns its exit code."""
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    store = wasmtime.Store(engine)
    wasi = wasmtime.WasiConfig()
    wasi.argv = [program, *arguments]
    wasi.env = list(os.environ.items())
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, program))
    start = instance.exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    try:
        start(store)
    except wasmtime.ExitTrap as exit:
        return exit.code
    except wasmtime.Trap as trap:
        print(trap, file=sys.stderr)
        return 134
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
