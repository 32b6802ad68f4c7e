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

from moka_wasm import Moka, _direct_channel

sys.path.append(str(Path(__file__).resolve().parent.parent))

from broken_guest import TRAPS, TRAPS_AFTERWARDS, broken_component, forget_compiled, switch

# What opens and closes a cache, what the stress does not call, and what would hide another error.
_NEVER_STOPPED = {
    "abi_version",
    "close",
    "drain",
    "error",
    "fill",
    "lookup",
    "make_room",
    "open",
    "release",
    "remaining",
}
_FUNCTIONS = tuple(name for name in _direct_channel._FUNCTIONS if name not in _NEVER_STOPPED)
_VARIABLE = "MOKA_WASM_COMPONENT"


@contextlib.contextmanager
def trapping_component() -> Iterator[None]:
    """Has caches opened meanwhile use a component that :func:`trap_soon` can stop."""
    before = os.environ.get(_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trapping.wasm"
        path.write_bytes(broken_component(f"moka_{name}" for name in _FUNCTIONS))
        os.environ[_VARIABLE] = str(path)
        forget_compiled()
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
            forget_compiled()


def trap_soon(cache: Moka[Any, Any], rng: random.Random) -> None:
    """Has a sandbox of the cache stop in the next call of any one function, before its work or after."""
    channel: Any = cache._channel
    shard = rng.choice(getattr(channel, "_shards", (channel,)))
    switch(shard, rng.randrange(len(_FUNCTIONS)), rng.choice((TRAPS, TRAPS_AFTERWARDS)))
