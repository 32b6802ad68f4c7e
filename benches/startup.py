"""Measures import and first use: whole processes, from the start of the interpreter to its end, in turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rounds import time_commands
from section import Options, progress
from table import Goal, Row

OURS = "import moka_wasm; moka_wasm.Moka(10).set(1, 1)"
THEIRS = "import wasmtime"


def section(options: Options) -> Iterator[Row]:
    """A new process that imports the package and stores one entry."""
    progress("import and first use")
    commands = {"ours": [sys.executable, "-c", OURS], "theirs": [sys.executable, "-c", THEIRS]}
    times = time_commands(commands, 3 if options.quick else 21)
    yield Row(
        "import, open a cache, set",
        "import wasmtime",
        times["ours"],
        times["theirs"],
        goal=Goal(2.0, 2.0),
        note="whole processes, interpreter included, with the compiled component already in wasmtime's own cache",
    )
