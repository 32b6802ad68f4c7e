"""Has a guest that counts its branches do what caches do most, and writes what it counted.

    profile_guest.py GUEST.wasm FOLDER

The guest is built by ``scripts/profile-guest``. For each cache a file ``NUMBER.profraw`` is written into the folder, in
the raw format of LLVM's profiles (version 10: ``compiler-rt/include/profile/InstrProfData.inc``), which
``llvm-profdata`` reads. Keys, the hash's key and time are the same in each run, and so are the counts.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wasmtime

from moka_wasm import _sandbox
from moka_wasm._channel import CacheConfig, Entry
from moka_wasm._direct_channel import DirectChannel

SECOND = 1_000_000_000
LIVE = 1_000
CAPACITY = 10_000
VALUE = b"\x93\xb4" + b"x" * 20

# "\xfflprofR\x81": of a machine with 32 bits.
MAGIC = 0xFF6C70726F665281
# Of the format, and that the counters were put in before code was made.
VERSION = 10 | 1 << 56
BYTES_OF_A_FUNCTION = 48
BYTES_OF_A_COUNTER = 8
KINDS_OF_VALUES = 2


def use_guest(path: Path) -> None:
    """Has caches that are opened from now on be of this guest, with random numbers that are the same in each run."""
    core = path.read_bytes()
    _sandbox.component = lambda: core  # type: ignore[assignment,attr-defined]
    rng = random.Random(1)

    def linker(interruptible: bool = False) -> wasmtime.Linker:
        linker = wasmtime.Linker(_sandbox.engine(interruptible))
        for wanted in _sandbox._module(interruptible).imports:
            kind = wanted.type
            assert isinstance(kind, wasmtime.FuncType)
            # Clocks and the bookkeeping of the component face are not asked for anything here.
            answer = (lambda: rng.getrandbits(62)) if wanted.name == _sandbox.RANDOM[1] else (lambda *_: 0)
            linker.define_func(wanted.module, wanted.name or "", kind, answer)
        return linker

    _sandbox._linker = linker  # type: ignore[assignment]


class Clock:
    """Nanoseconds; each reading a microsecond after the one before."""

    now = 0

    def __call__(self) -> int:
        self.now += 1_000
        return self.now


def keys(kind: str, count: int = LIVE) -> list[bytes]:
    """Keys as those of strings of ten characters, in a random order."""
    found = [b"\x10%s:%06d" % (kind.encode(), number) for number in range(count)]
    random.Random(1).shuffle(found)
    return found


def exercise(channel: DirectChannel, rounds: int) -> None:
    """Reads and writes, in about the proportions in which caches are used: reads mostly, of keys of which some are
    popular, and new keys that push others out."""
    rng = random.Random(1)
    live, absent = keys("key"), keys("not")
    channel.set_many([Entry(key, VALUE) for key in live])
    for _ in range(rounds):
        for _ in range(20):
            for key in live:
                channel.get(key)
        for _ in range(10):
            for key in absent:
                channel.get(key)
        for _ in range(5):
            for key in live:
                channel.set(key, VALUE)
        for _ in range(5):
            for start in range(0, LIVE, 100):
                channel.get_many(live[start : start + 100])
        for key in live:
            channel.get_or_insert(key, VALUE)
            channel.contains(key)
        for start in range(0, LIVE, 100):
            channel.set_many([Entry(key, VALUE) for key in live[start : start + 100]])
    for number in range((2 + rounds) * CAPACITY):
        channel.set(b"\x10new:%012d" % number, VALUE)
    for _ in range(rounds * CAPACITY // 2):
        key = b"\x10popular:%d" % int(rng.paretovariate(0.8))
        if channel.get(key) is None:
            lease = channel.lookup(key, SECOND)
            if isinstance(lease, int):
                channel.fill(lease, b"v" * rng.choice((10, 20, 100, 1000)))
    for key in live[: LIVE // 2]:
        channel.expire(key, SECOND)
        channel.remaining(key)
        channel.remove(key)
    channel.remove_many(live)
    cursor = channel.keys()
    while cursor.next(1000):
        pass
    channel.drain(1000)
    channel.counters()
    channel.run_pending_tasks()
    channel.clear()


def counted(channel: DirectChannel) -> bytes:
    """What the guest counted, as a raw profile."""
    sandbox: Any = channel._guest.sandbox  # type: ignore[union-attr]

    def section(name: str) -> tuple[int, bytes]:
        start, stop = (sandbox._exports[f"__{end}___llvm_prf_{name}"].value(sandbox.store) for end in ("start", "stop"))
        return start, bytes(sandbox.memory[start:stop])

    (data_at, data), (counters_at, counters), (names_at, names) = map(section, ("data", "cnts", "names"))
    distance = (counters_at - data_at) % (1 << 32)
    header = [MAGIC, VERSION, 0, len(data) // BYTES_OF_A_FUNCTION, 0, len(counters) // BYTES_OF_A_COUNTER, 0, 0, 0]
    header += [len(names), distance, 0, names_at, 0, 0, KINDS_OF_VALUES]
    return struct.pack(f"<{len(header)}Q", *header) + data + counters + names + bytes(-len(names) % 8)


def exercised() -> Iterator[DirectChannel]:
    """One cache of each kind, with its operations behind it; the plain one with the most."""
    kinds: list[tuple[int, dict[str, Any]]] = [
        (20, {}),
        (3, {"policy": "lru"}),
        (3, {"ttl": 3600 * SECOND}),
        (3, {"tti": 3600 * SECOND}),
        (3, {"memory_limit": 64 << 20}),
        (1, {"memory_limit": 2 << 20, "removal_log": 100}),
    ]
    for rounds, options in kinds:
        channel = DirectChannel(CacheConfig(capacity=CAPACITY, clock=Clock(), **options))
        exercise(channel, rounds)
        yield channel
        channel.close()


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    use_guest(Path(sys.argv[1]))
    for number, channel in enumerate(exercised()):
        (Path(sys.argv[2]) / f"{number}.profraw").write_bytes(counted(channel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
