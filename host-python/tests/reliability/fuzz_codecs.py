"""Fuzzing of the codecs of keys and values: bytes that may be anything, and values made up at random.

    fuzz_codecs.py [--executions N] [--seed N]

* *decode*: any bytes are a value or a DecodeError, by every serializer that reads bytes of unknown origin; what is a
  value comes back from its own encoding.
* *keys*: any bytes are a key or a DecodeError; a key comes back from its own encoding.
* *differential*: the native extension, if it is there, reads any bytes and writes any value and key as the Python
  codecs do.

The bytes are mutations of the committed corpus, of encodings of random values, and of what was found on the way to be
decoded to a kind of value not seen before.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from moka_wasm import DecodeError, Moka
from moka_wasm._keys import decode_key, encode_key
from moka_wasm._values import resolve_serializer

CORPUS = Path(__file__).parent / "corpus" / "codecs"
# Byte strings that mean something to MessagePack or to the encoding of keys.
_TOKENS = [bytes([head]) for head in range(256)] + [
    b"\xc7\x00" + bytes([code]) for code in (1, 2, 3, 4, 5, 6, 16, 17, 20, 23, 25, 31, 255)
]
_TOKENS += [b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xed\xa0\x80", b"Europe/Berlin"]
_PYTHON = resolve_serializer(None)
_PLAIN = resolve_serializer("msgpack")
_JSON = resolve_serializer("json")


class DefectError(AssertionError):
    """A codec did what it must not."""


def canonical(value: Any) -> str:
    """A text that is the same for values that are equal and of the same types at any depth; NaN is NaN."""
    name = type(value).__name__
    # Joined, not printed as lists: their quotes would be escaped, and escaped again at every level.
    if isinstance(value, (set, frozenset)):
        return f"{name}({', '.join(sorted(map(canonical, value)))})"
    if isinstance(value, (list, tuple)):
        return f"{name}({', '.join(map(canonical, value))})"
    if isinstance(value, dict):
        return f"{name}({', '.join(f'{canonical(key)}: {canonical(item)}' for key, item in value.items())})"
    return f"{name}({value!r})"


def same(one: object, other: object) -> bool:
    """Whether two values are equal and of the same types, at any depth."""
    return canonical(one) == canonical(other)


def random_key(rng: random.Random, depth: int = 0) -> Any:
    """A key of any of the built-in types."""
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice([1, -1]) * rng.getrandbits(rng.choice([1, 7, 8, 31, 32, 63, 64, 65, 200])),
        lambda: rng.choice([0.0, -0.0, 0.5, math.inf, -math.inf, math.nan, rng.random() * 10 ** rng.randrange(300)]),
        lambda: "".join(chr(rng.choice([65, 97, 0, 0xE9, 0x20AC, 0x1F600, 0xD800])) for _ in range(rng.randrange(40))),
        lambda: rng.randbytes(rng.choice([0, 1, 15, 16, 255, 256, 300])),
        lambda: Decimal(rng.getrandbits(70)).scaleb(rng.randrange(-40, 40)),
        lambda: Fraction(rng.getrandbits(40), rng.getrandbits(40) + 1),
        lambda: date(rng.randrange(1, 10_000), 1 + rng.randrange(12), 1 + rng.randrange(28)),
        lambda: datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=rng.getrandbits(50)),
        lambda: timedelta(microseconds=rng.getrandbits(60) - 2**59),
        lambda: UUID(int=rng.getrandbits(128)),
        lambda: PurePosixPath("/a", "b" * rng.randrange(5)),
        lambda: complex(rng.random(), -0.0),
        lambda: range(rng.randrange(10)),
    ]
    if depth < 4:
        kinds += [
            lambda: tuple(random_key(rng, depth + 1) for _ in range(rng.randrange(5))),
            lambda: frozenset(random_key(rng, depth + 1) for _ in range(rng.randrange(5))),
        ]
    return rng.choice(kinds)()


def random_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of any of the built-in types."""
    if depth > 2 or rng.random() < 0.4:
        return random_key(rng, depth)
    size = rng.choice([0, 1, 2, 3, 15, 16, 17]) if depth == 0 else rng.randrange(4)
    kind = rng.randrange(5)
    if kind == 0:
        return [random_value(rng, depth + 1) for _ in range(size)]
    if kind == 1:
        return {random_key(rng, 3): random_value(rng, depth + 1) for _ in range(size)}
    if kind == 2:
        return {f"name {number}": random_value(rng, depth + 1) for number in range(size)}
    if kind == 3:
        return {random_key(rng, 3) for _ in range(size)}
    return bytearray(rng.randbytes(size))


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Other bytes like these."""
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        place = rng.randrange(len(mutated) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(mutated):
            mutated[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutated[place : place + 1] = rng.choice(_TOKENS)
        elif kind == 2:
            mutated[place:place] = rng.choice(_TOKENS)
        elif kind == 3:
            del mutated[place : place + 1 + rng.randrange(8)]
        elif kind == 4:
            start = rng.randrange(len(other) + 1)
            mutated[place:place] = other[start : start + rng.randrange(20)]
        else:
            mutated[place:] = b"" if rng.random() < 0.5 else rng.randbytes(rng.randrange(8))
    return bytes(mutated[:4096])


def check_decode(data: bytes) -> str:
    """Any bytes, as a value; answers what they are."""
    kind = "refused"
    for serializer in (_PLAIN, _JSON):
        try:
            value = serializer.loads(data)
        except DecodeError:
            continue
        kind = f"{type(value).__name__}{len(value) if hasattr(value, '__len__') and len(value) < 3 else ''}"
        try:
            again = serializer.dumps(value)
        except TypeError:
            # What is read is more than what is written: timestamps, deep nesting.
            continue
        if not same(serializer.loads(again), value):
            raise DefectError(f"decode: {data!r} is {value!r}, which comes back as {serializer.loads(again)!r}")
    return kind


def check_key(data: bytes) -> str:
    """Any bytes, as a key; answers what they are."""
    try:
        key = decode_key(data)
    except DecodeError:
        return "refused"
    again = encode_key(key)  # type: ignore[arg-type]
    if encode_key(decode_key(again)) != again:  # type: ignore[arg-type]
        raise DefectError(f"keys: {data!r} is {key!r}, whose encoding {again!r} is that of another key")
    return f"key {type(key).__name__}"


class Differential:
    """The extension beside the Python codecs, by way of a cache."""

    def __init__(self) -> None:
        self._cache: Moka[Any, Any] = Moka(None)
        self._channel: Any = self._cache._channel

    @property
    def native(self) -> bool:
        """Whether there is an extension to be compared with."""
        return self._channel.binding is not None

    def read(self, data: bytes) -> None:
        """Any bytes but a pickle (which would run), read by both."""
        if data[:1] == b"\xc1":
            return
        self._channel.set(encode_key("k"), data)
        results: list[object] = []
        for read in (lambda: self._cache.get("k"), lambda: _PYTHON.loads(data)):
            try:
                results.append(read())
            except DecodeError:
                results.append(DecodeError)
        if not same(*results):
            raise DefectError(f"differential: {data!r} is {results[0]!r} natively, {results[1]!r} by Python")

    def write(self, key: Any, value: Any) -> None:
        """A key and a value, written by both."""
        expected = _PYTHON.dumps(value)
        self._cache.set(key, value)
        stored = self._channel.get(encode_key(key))
        if stored != expected:
            raise DefectError(f"differential: {key!r}: {value!r} is stored as {stored!r}, by Python as {expected!r}")
        found = self._cache.get(key)
        if not same(found, value):
            raise DefectError(f"differential: {key!r}: {value!r} comes back as {found!r}")
        self._cache.remove(key)


def run(executions: int, seed: int, until: float = math.inf) -> Counter[str]:
    """Fuzzes all of it.

    Args:
        executions: How many inputs.
        seed: Makes the same inputs again.
        until: The reading of ``time.monotonic`` at which to end early.

    Returns:
        How many inputs were of each kind.

    Raises:
        DefectError: A codec did what it must not; so does any other exception.
    """
    rng = random.Random(seed)
    pool = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    differential = Differential()
    counts: Counter[str] = Counter()
    for number in range(executions):
        if number % 1000 == 0 and time.monotonic() > until:
            break
        if number % 4 == 0:
            key, value = random_key(rng), random_value(rng)
            differential.write(key, value)
            pool[rng.randrange(len(pool)) if len(pool) > 2000 else len(pool) :] = [
                _PYTHON.dumps(value)[:2000],
                encode_key(key)[:2000],
            ]
            counts["values made up"] += 1
            continue
        data = mutate(rng, rng.choice(pool), rng.choice(pool))
        for check in (check_decode, check_key):
            kind = check(data)
            if not counts[kind]:
                pool.append(data)
            counts[kind] += 1
        differential.read(data)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {'with' if Differential().native else 'without'} the extension")
    counts = run(options.executions, options.seed)
    refused = counts.pop("refused")
    print(f"{options.executions:,} executions, {refused:,} refusals, {len(counts)} kinds of answers: no defect")
    return 0


if __name__ == "__main__":
    sys.exit(main())
