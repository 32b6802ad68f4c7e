"""Traps in the middle of operations: the package's component, changed so that it stops in chosen functions."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moka_wasm import Moka, _component_file, _sandbox

sys.path.append(str(Path(__file__).resolve().parent.parent))

from broken_guest import TRAPS, TRAPS_AFTERWARDS, broken_component, switch

_FUNCTIONS = (
    "clear",
    "contains",
    "expire",
    "get",
    "get_many",
    "get_or_insert",
    "keys",
    "keys_close",
    "keys_next",
    "mailbox",
    "remove",
    "remove_many",
    "run_pending",
    "set",
    "set_many",
    "stats",
)
_VARIABLE = "MOKA_WASM_COMPONENT"


def _forget_component() -> None:
    for cached in (_component_file.component, _sandbox._module, _sandbox._linker):
        cached.cache_clear()


@contextlib.contextmanager
def trapping_component() -> Iterator[None]:
    """Has caches opened meanwhile use a component that :func:`trap_soon` can stop."""
    before = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trapping.wasm"
        path.write_bytes(broken_component(f"moka_{name}" for name in _FUNCTIONS))
        os.environ[_VARIABLE] = str(path)
        _forget_component()
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
            _forget_component()


def trap_soon(cache: Moka[Any, Any], rng: random.Random) -> None:
    """Has a sandbox of the cache stop in the next call of any one function, before its work or after."""
    channel: Any = cache._channel
    shard = rng.choice(getattr(channel, "_shards", (channel,)))
    switch(shard, rng.randrange(len(_FUNCTIONS)), rng.choice((TRAPS, TRAPS_AFTERWARDS)))
