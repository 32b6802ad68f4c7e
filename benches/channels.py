"""Measures the two ways into the sandbox: the direct ABI, which the package uses, and the component face through
``wasmtime.component``. Bytes in, bytes out, below any encoding of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from operations import CAPACITY, again_and_again, live_keys, setting, with_each
from rounds import Side, time_in_rounds
from section import Options, progress
from table import Goal, Row

from moka_wasm._channel import CacheConfig
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel


def section(options: Options) -> Iterator[Row]:
    """The direct channel against ``wasmtime.component``."""
    keys = [key.encode() for key in live_keys()]
    for size, title, goal in ((20, "20 B", Goal(1 / 20)), (1024, "1 KiB", Goal(1 / 200))):
        value = b"x" * size
        channels: dict[str, Any] = {
            "direct": DirectChannel(CacheConfig(capacity=CAPACITY)),
            "component": ComponentChannel(CacheConfig(capacity=CAPACITY)),
        }
        for channel in channels.values():
            for key in keys:
                channel.set(key, value)
            assert channel.get(keys[0]) == value
        inputs = again_and_again(keys)
        sides = {
            "get": {name: Side(with_each(channel.get), inputs) for name, channel in channels.items()},
            "set": {name: Side(setting(channel.set, value), inputs) for name, channel in channels.items()},
        }
        for operation, pair in sides.items():
            progress(f"channel {operation}, {title}")
            # Milliseconds an operation, on the component's side.
            times = time_in_rounds(pair, replace(options.effort, least=1))
            yield Row(
                f"channel: {operation}, {title}",
                "wasmtime.component",
                times["direct"],
                times["component"],
                goal=goal,
            )
        for channel in channels.values():
            channel.close()
