"""Keys as bytes: two keys are equal in Python exactly when their encodings are the same bytes.

`encode_key` takes the built-in hashable types, nested as one likes: ``None``, ``Ellipsis``, numbers (``bool``, ``int``,
``float``, ``complex``, ``Decimal``, ``Fraction``), ``str``, ``bytes`` (and the read-only ``memoryview`` that equals
it), ``tuple``, ``frozenset``, ``range``, the classes of ``datetime``, ``UUID``, ``Enum`` members and ``pathlib`` paths.
Subclasses that inherit equality and hash are what they equal: a namedtuple is a tuple, an ``IntEnum`` member an int.
`decode_key` gives a key that equals the encoded one; its type may be another (``1`` for ``True``).

Differences from a ``dict``:

* every NaN is one and the same key, where Python says that none equals any: else an entry could never be found again;
* of two classes of one name, only the members of the one that was used first can be keys.

Format
------
An encoding is one tag byte and a payload that lasts to the end. Items inside of another item are framed: one byte of
length and the item; items of 255 bytes and more have the byte 0xFF, eight bytes of length, and the item. Everything is
big-endian. "Integer" is the shortest two's complement, at least one byte; "text" is UTF-8, where each lone surrogate is
encoded like any other code point of its size.

==== ================= ==========================================================================================
tag  type              payload
==== ================= ==========================================================================================
0x00 None              nothing
0x01 Ellipsis          nothing
0x10 str               UTF-8
0x11 str               text with at least one lone surrogate
0x12 bytes             the bytes
0x20 number            i64; see `moka_wasm._key_numbers` for which number has which form
0x21 number            integer, outside of i64 and within -2**1024 <= n < 2**1024
0x22 number            IEEE 754 double that is not integral; NaN is 0x7FF8000000000000
0x23 number            exponent (i64), coefficient (integer): coefficient * 10**exponent, not a multiple of ten
0x24 number            frames of numerator and denominator (integers)
0x25 complex           two doubles, real and imaginary; the imaginary one is not zero, none is -0.0
0x30 tuple             the items' frames
0x31 frozenset         the items' frames, sorted by the items' bytes, no two the same
0x32 range             empty: nothing; else frames of the first item and, of more than one, step and length (integers)
0x40 date              year u16, month u8, day u8
0x41 time              hour u8, minute u8, second u8, microsecond u32
0x42 time, aware       seconds since midnight UTC (i32, may be negative or beyond a day), microsecond u32
0x43 datetime          year u16, month u8, day u8, hour u8, minute u8, second u8, microsecond u32
0x44 datetime, aware   microseconds since 0000-12-31T00:00Z (i64)
0x45 datetime, aware   local time that a clock change repeats or skips: as 0x43, then the zone's name in ASCII
0x46 timedelta         days i32, seconds u32, microseconds u32
0x47 timezone          UTC offset in microseconds, i64
0x50 UUID              16 bytes
0x51 PurePosixPath     text
0x52 PureWindowsPath   text, in lower case
0x60 Enum              frames of module and qualified class name (text), then the member's name (text)
0x61 Flag              frames of module and qualified class name (text), then the value (integer)
==== ================= ==========================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

from . import _key_enums as enums
from . import _key_format as f
from . import _key_numbers as numbers
from . import _key_times as times
from ._errors import DecodeError, UnsupportedKeyError
from ._key_decoding import decode_item
from ._key_format import MAX_KEY_DEPTH, type_of
from ._key_subclasses import base_with_its_equality

__all__ = ["MAX_KEY_DEPTH", "decode_key", "encode_key"]

_pack_int = struct.Struct(">Bq").pack
_pack_framed_int = struct.Struct(">BBq").pack
_INT_TAG = f.INT[0]
# The frame's length and the tag of a str by the length of its UTF-8, where the frame's length is one byte.
_STR_HEADS = [bytes((length + 1,)) + f.STR for length in range(254)]


def encode_key(key: object) -> bytes:
    """Encode a key, so that equal keys give equal bytes and unequal ones different bytes.

    Args:
        key: A key of the built-in hashable types, see this module's documentation.

    Returns:
        The encoding, at least one byte.

    Raises:
        UnsupportedKeyError: *key* is unhashable, of a type whose equality is not known here, or nested too deeply.
    """
    kind = type(key)
    try:
        if kind is str:
            # The method of the class: this and the type are known to the type checker together.
            return b"\x10" + str.encode(key)  # type: ignore[arg-type]
        if kind is int:
            return _pack_int(0x20, key)
    except (UnicodeEncodeError, struct.error):
        pass
    try:
        return _encode(key, 0)
    except RecursionError as error:
        raise _too_deep() from error


def decode_key(data: bytes | memoryview) -> Hashable:
    """Decode what `encode_key` gave.

    Args:
        data: One encoding, whole.

    Returns:
        A key that equals the encoded one and has its hash. Paths are those of this system where it has such paths;
        instants are in UTC.

    Raises:
        DecodeError: *data* is no encoding, or names a class or a time zone that is not here. Nothing is ever
            imported or executed for what *data* says.
    """
    try:
        return decode_item(data, 0)
    except DecodeError:
        raise
    except Exception as error:
        # Hostile bytes can reach any error of any constructor below (ValueError, OverflowError, MemoryError,
        # decimal.InvalidOperation, an Enum's own); all of them mean the same.
        raise DecodeError(f"not an encoded key: {error}") from error


def _encode(key: Any, depth: int) -> bytes:
    kind = type_of(key)
    leaf = _LEAVES.get(kind)
    if leaf is not None:
        return leaf(key)
    container = _CONTAINERS.get(kind)
    if container is None:
        return _encode_other(key, kind, depth)
    if depth >= MAX_KEY_DEPTH:
        raise _too_deep()
    return container(key, depth + 1)


def _encode_str(key: str) -> bytes:
    try:
        return f.STR + key.encode()
    except UnicodeEncodeError:
        return f.SURROGATE_STR + key.encode("utf-8", "surrogatepass")


def _encode_tuple(key: tuple[Any, ...], depth: int) -> bytes:
    parts = [f.TUPLE]
    for item in key:
        # The two types that most tuples consist of, without any further call.
        kind = type_of(item)
        try:
            if kind is str:
                raw = item.encode()
                if len(raw) < len(_STR_HEADS):
                    parts.append(_STR_HEADS[len(raw)] + raw)
                    continue
            elif kind is int:
                parts.append(_pack_framed_int(9, _INT_TAG, item))
                continue
        except (UnicodeEncodeError, struct.error):
            pass
        parts.append(f.frame(_encode(item, depth)))
    return b"".join(parts)


def _encode_frozenset(key: frozenset[Any], depth: int) -> bytes:
    return f.join_frames(f.FROZENSET, sorted({_encode(item, depth) for item in key}))


def _encode_range(key: range) -> bytes:
    # len() refuses ranges of more than sys.maxsize items.
    length = max(0, -((key.start - key.stop) // key.step))
    numbers_that_count = (key.start, key.step, length) if length > 1 else (key.start,) * length
    return f.join_frames(f.RANGE, map(f.int_to_bytes, numbers_that_count))


def _encode_memoryview(key: memoryview) -> bytes:
    if not key.readonly:
        raise UnsupportedKeyError("cannot hash writable memoryview object; pass bytes(key) as the key")
    if key.format != "B" or key.ndim != 1:
        raise UnsupportedKeyError(
            f"a memoryview of format {key.format!r} and {key.ndim} dimensions does not equal its bytes; pass "
            "bytes(key) as the key"
        )
    return f.BYTES + key.tobytes()


def _encode_posix_path(key: PurePath) -> bytes:
    return f.POSIX_PATH + str(key).encode("utf-8", "surrogatepass")


def _encode_windows_path(key: PurePath) -> bytes:
    text = str(key)
    if PureWindowsPath(text) != key:
        # Before Python 3.12, PureWindowsPath("./c:a") has the text of another path, and so have a few others.
        raise UnsupportedKeyError(f"{key!r} cannot be a key: its text is that of another path; pass str(key)")
    return f.WINDOWS_PATH + text.lower().encode("utf-8", "surrogatepass")


def _encode_other(key: Any, kind: type, depth: int) -> bytes:
    """Encode an instance of a type that is seen for the first time."""
    leaf: Callable[[Any], bytes]
    if enums.is_plain(kind):
        leaf = enums.encode_enum
    else:
        base, plain = base_with_its_equality(kind)
        container = _CONTAINERS.get(base)
        if container is not None:
            if len(_CONTAINERS) < _MAX_LEARNED:
                _CONTAINERS[kind] = _container_after(plain, container)
            return _encode(plain(key), depth)
        leaf = _after(plain, _LEAVES[base])
    if len(_LEAVES) < _MAX_LEARNED:
        _LEAVES[kind] = leaf
    return leaf(key)


def _after(plain: Callable[[Any], Any], encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda key: encode(plain(key))


def _container_after(plain: Callable[[Any], Any], encode: Callable[[Any, int], bytes]) -> Callable[[Any, int], bytes]:
    return lambda key, depth: encode(plain(key), depth)


def _too_deep() -> UnsupportedKeyError:
    return UnsupportedKeyError(
        f"a key may have at most {MAX_KEY_DEPTH} tuples or frozensets in each other; pass a flatter tuple"
    )


_LEAVES: dict[type, Callable[[Any], bytes]] = {
    str: _encode_str,
    int: numbers.encode_int,
    bool: numbers.encode_int,
    float: numbers.encode_float,
    complex: numbers.encode_complex,
    Decimal: numbers.encode_decimal,
    Fraction: numbers.encode_fraction,
    type(None): lambda key: f.NONE,
    type(...): lambda key: f.ELLIPSIS,
    bytes: lambda key: f.BYTES + key,
    memoryview: _encode_memoryview,
    range: _encode_range,
    date: times.encode_date,
    time: times.encode_time,
    datetime: times.encode_datetime,
    timedelta: times.encode_timedelta,
    timezone: times.encode_timezone,
    UUID: lambda key: f.UUID + key.bytes,
    PurePosixPath: _encode_posix_path,
    PosixPath: _encode_posix_path,
    PureWindowsPath: _encode_windows_path,
    WindowsPath: _encode_windows_path,
}
_CONTAINERS: dict[type, Callable[[Any, int], bytes]] = {tuple: _encode_tuple, frozenset: _encode_frozenset}

# Types that were learned are kept alive by these dictionaries: a program that makes classes without end must not fill
# them.
_MAX_LEARNED = 1000
