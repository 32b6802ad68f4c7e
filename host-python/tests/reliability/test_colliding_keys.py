"""Keys chosen to collide do not slow a cache: its hash is keyed by random numbers of its own.

Work is counted in fuel, wasmtime's count of executed instructions, not in time.
"""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import wasmtime

from moka_wasm import _sandbox
from moka_wasm._component_file import component, core_module
from moka_wasm._keys import encode_key

KEYS = 1500
MASK = 2**64 - 1
NONE = 2**64 - 1


class FueledGuest:
    """A guest whose instructions are counted.

    Args:
        random_number: What keys its hash.
    """

    def __init__(self, random_number: Callable[[], int]) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        engine = wasmtime.Engine(config)
        module = wasmtime.Module(engine, core_module(component()))
        self._store = wasmtime.Store(engine)
        self._store.set_fuel(NONE >> 1)
        linker = wasmtime.Linker(engine)
        for wanted in module.imports:
            kind = wanted.type
            assert isinstance(kind, wasmtime.FuncType)
            answer = random_number if (wanted.module, wanted.name) == _sandbox.RANDOM else lambda *_: 0
            linker.define_func(wanted.module, wanted.name or "", kind, answer)
        self._exports = linker.instantiate(self._store, module).exports(self._store)
        self._memory = self._exports["memory"]
        if "_initialize" in self._exports:
            self.call("_initialize")
        self._mailbox = self.call("moka_mailbox", 0, 65536)
        config_bytes = struct.pack("<QQQQII", NONE, NONE, NONE, NONE, 0, 0)
        self._cache = self.operate("open", config_bytes, len(config_bytes), cache=False) & 0xFFFFFFFF

    def call(self, name: str, *arguments: int) -> int:
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return function(self._store, *arguments)

    def operate(self, name: str, data: bytes, *arguments: int, cache: bool = True) -> int:
        self._memory.write(self._store, data, self._mailbox)  # type: ignore[union-attr]
        handle = (self._cache,) if cache else ()
        return self.call(f"moka_{name}", 0, *handle, *arguments, 0)

    def fuel(self, keys: list[bytes]) -> float:
        """Instructions that setting each of these keys, and getting it twice, takes on average."""
        before = self._store.get_fuel()
        for key in keys:
            self.operate("set", key + b"v", len(key), 1, 1, -1, -1)
        for _ in range(2):
            for key in keys:
                assert self.operate("get", key, len(key)) >> 32 == 1
        return (before - self._store.get_fuel()) / len(keys)


def siphash_1_3(data: bytes, k0: int = 0, k1: int = 0) -> int:
    """SipHash with one round a word and three in the end."""
    v0, v1, v2, v3 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    tail = len(data) & 7
    words = [*struct.unpack(f"<{len(data) // 8}Q", data[: len(data) - tail])]
    words.append(int.from_bytes(data[len(data) - tail :], "little") | (len(data) & 0xFF) << 56)
    for word, rounds in [*((word, 1) for word in words), (0, 3)]:
        v3 ^= word
        if rounds == 3:
            v3 ^= word
            v2 ^= 0xFF
        for _ in range(rounds):
            v0 = (v0 + v1) & MASK
            v1 = (v1 << 13 | v1 >> 51) & MASK ^ v0
            v0 = (v0 << 32 | v0 >> 32) & MASK
            v2 = (v2 + v3) & MASK
            v3 = (v3 << 16 | v3 >> 48) & MASK ^ v2
            v0 = (v0 + v3) & MASK
            v3 = (v3 << 21 | v3 >> 43) & MASK ^ v0
            v2 = (v2 + v1) & MASK
            v1 = (v1 << 17 | v1 >> 47) & MASK ^ v2
            v2 = (v2 << 32 | v2 >> 32) & MASK
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3


def guest_hash(key: bytes) -> int:
    """The hash of a key in a guest whose random numbers are 0, as ``src/hash.rs`` makes it."""
    return (siphash_1_3(key) & 0xFFFF_FFFF) * 0x9E37_79B9_7F4A_7C15 & MASK


def colliding_keys() -> Iterator[bytes]:
    """Keys that a cache with the hash key 0 puts into the same place: what an attacker who knows it would choose."""
    number = 0
    while True:
        key = struct.pack("<Q", number)
        if guest_hash(key) & 0xFF == 0:
            yield key
        number += 1


def random_keys() -> list[bytes]:
    rng = random.Random(0)
    return [rng.randbytes(8) for _ in range(KEYS)]


@pytest.fixture(scope="module")
def collisions() -> list[bytes]:
    return [*islice(colliding_keys(), KEYS)]


@pytest.fixture(scope="module")
def usual() -> float:
    """What random keys take."""
    return FueledGuest(_sandbox.random_u64).fuel(random_keys())


def test_siphash_is_that_of_the_reference() -> None:
    """The hash that collisions are looked for with is SipHash-1-3: the reference's vector for the bytes 0, 1, … 14."""
    keys = struct.unpack("<QQ", bytes(range(16)))
    assert siphash_1_3(b"", *keys) == 0xABAC0158050FC4DC


def test_keys_that_collide_do_so_where_the_hash_key_is_known(collisions: list[bytes], usual: float) -> None:
    """The attack works on a guest without random numbers: this test would notice one."""
    assert FueledGuest(lambda: 0).fuel(collisions) > 1.3 * usual


def test_keys_that_collide_elsewhere_do_not_slow_a_cache(collisions: list[bytes], usual: float) -> None:
    """With random numbers the same keys take what random keys take."""
    assert FueledGuest(_sandbox.random_u64).fuel(collisions) < 1.1 * usual


@pytest.mark.parametrize(
    "keys",
    {
        "numbers": [encode_key(number) for number in range(KEYS)],
        "multiples of 2**32": [encode_key(number << 32) for number in range(KEYS)],
        "equal for hash()": [encode_key(1 + number * (2**61 - 1)) for number in range(KEYS)],
        "permutations": [encode_key(f"{number % 40:040b}{number // 40:08b}") for number in range(KEYS)],
    }.items(),
    ids=lambda named: named[0],
)
def test_regular_keys_do_not_slow_a_cache(keys: tuple[str, list[bytes]]) -> None:
    """Keys in a pattern take what random keys of the same lengths take."""
    rng = random.Random(1)
    same_lengths = [rng.randbytes(len(key)) for key in keys[1]]
    usual = FueledGuest(_sandbox.random_u64).fuel(same_lengths)
    assert FueledGuest(_sandbox.random_u64).fuel(keys[1]) < 1.1 * usual
