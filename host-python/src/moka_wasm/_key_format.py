"""The pieces that every part of the key format shares: tag bytes, frames and integers as bytes.

The format itself is described in `moka_wasm._keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ._errors import DecodeError

Buffer: TypeAlias = bytes | memoryview

# ``type``, as type checkers should see it: of something unknown, the class is not unknown but any.
type_of: Callable[[Any], type[Any]] = type

MAX_KEY_DEPTH = 100
"""How many tuples and frozensets may lie in each other."""

NONE = b"\x00"
ELLIPSIS = b"\x01"
STR = b"\x10"
SURROGATE_STR = b"\x11"
BYTES = b"\x12"
INT = b"\x20"
WIDE_INT = b"\x21"
DOUBLE = b"\x22"
DECIMAL = b"\x23"
RATIO = b"\x24"
COMPLEX = b"\x25"
TUPLE = b"\x30"
FROZENSET = b"\x31"
RANGE = b"\x32"
DATE = b"\x40"
TIME = b"\x41"
TIME_WITH_OFFSET = b"\x42"
DATETIME = b"\x43"
INSTANT = b"\x44"
DATETIME_IN_ZONE = b"\x45"
TIMEDELTA = b"\x46"
TIMEZONE = b"\x47"
UUID = b"\x50"
POSIX_PATH = b"\x51"
WINDOWS_PATH = b"\x52"
ENUM = b"\x60"
FLAG = b"\x61"

_LONG_FRAME = 0xFF
_FRAME_HEADERS = [bytes((length,)) for length in range(_LONG_FRAME)]


def frame(item: bytes) -> bytes:
    """Prefix *item* with its length, so that a reader knows where it ends."""
    length = len(item)
    if length < _LONG_FRAME:
        return _FRAME_HEADERS[length] + item
    return b"\xff" + length.to_bytes(8, "big") + item


def join_frames(tag: bytes, items: Iterable[bytes]) -> bytes:
    """One tag byte and then every item in its frame."""
    return tag + b"".join(map(frame, items))


def split_frame(data: Buffer) -> tuple[Buffer, Buffer]:
    """The first item of `join_frames`, and what follows it; *data* begins after the tag.

    Raises:
        DecodeError: There is no frame, or it is longer than what is left.
    """
    if not data:
        raise DecodeError("a frame is missing")
    length, start = data[0], 1
    if length == _LONG_FRAME:
        length, start = int.from_bytes(data[1:9], "big"), 9
    stop = start + length
    if stop > len(data):
        raise DecodeError("a frame is longer than the bytes that are left")
    return data[start:stop], data[stop:]


def split_frames(data: Buffer) -> list[Buffer]:
    """All the items of `join_frames`; *data* begins after the tag.

    Raises:
        DecodeError: A frame is longer than what is left.
    """
    items: list[Buffer] = []
    position, end = 0, len(data)
    while position < end:
        length = data[position]
        position += 1
        if length == _LONG_FRAME:
            length = int.from_bytes(data[position : position + 8], "big")
            position += 8
        stop = position + length
        if stop > end:
            raise DecodeError("a frame is longer than the bytes that are left")
        items.append(data[position:stop])
        position = stop
    return items


def int_to_bytes(number: int) -> bytes:
    """The shortest two's complement of *number*, big-endian, at least one byte."""
    magnitude = ~number if number < 0 else number
    return number.to_bytes((magnitude.bit_length() >> 3) + 1, "big", signed=True)


def int_from_bytes(data: Buffer) -> int:
    """The inverse of `int_to_bytes`.

    Raises:
        DecodeError: There is no byte at all.
    """
    if not data:
        raise DecodeError("an integer has at least one byte")
    return int.from_bytes(data, "big", signed=True)
