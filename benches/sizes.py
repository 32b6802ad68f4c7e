"""Measures what a value's size does to ``get`` and ``set``: ours copies the bytes, moka-py keeps a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from operations import SUBJECTS, again_and_again, live_keys, setting, with_each
from rounds import Side, time_in_rounds
from section import Options, progress
from table import Row

SIZES = {"16 B": 16, "256 B": 256, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
KEYS = 50


def section(options: Options) -> Iterator[Row]:
    """Bytes of 16 B to 1 MiB, ours against moka-py's."""
    keys = live_keys()[:KEYS]
    for title, size in SIZES.items():
        caches = {name: module.Moka(10 * KEYS) for name, module in SUBJECTS}
        sides: dict[str, dict[str, Side]] = {"get": {}, "set": {}}
        for name, cache in caches.items():
            store = setting(cache.set, b"x" * size)
            store(keys)
            sides["get"][name] = Side(with_each(cache.get), again_and_again(keys))
            sides["set"][name] = Side(store, again_and_again(keys))
        for operation, pair in sides.items():
            progress(f"{operation}, {title}")
            times = time_in_rounds(pair, replace(options.effort, least=KEYS, turns=4))
            yield Row(f"{operation}, bytes of {title}", "moka-py", times["moka_wasm"], times["moka-py"])
