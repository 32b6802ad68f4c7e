"""The Python types that MessagePack does not have, as its extension types.

Two forms, both without any nesting of encodings, so that every MessagePack library can read what lies inside:

* a *leaf* is an extension with a payload;
* a *typed array* is an array whose first item, its marker, is an extension with an empty payload; the other items are
  what the value is made of.

The codes and payloads are documented in `moka_wasm._msgpack`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, cast
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from ._errors import DecodeError
from ._key_format import int_from_bytes, int_to_bytes, type_of
from ._zones import load_zone, zone_name

# Imported by name: the package has no types of its own, and type checkers differ in what they make of that.
_library: Any = import_module("msgpack")
ExtType: Any = _library.ExtType
Packer: Any = _library.Packer
unpackb: Any = _library.unpackb

TUPLE, SET, FROZENSET, RANGE, SLICE, FRACTION = range(1, 7)
(
    WIDE_INT,
    COMPLEX,
    SURROGATE_STR,
    BYTEARRAY,
    DECIMAL,
    DATE,
    TIME,
    DATETIME,
    TIMEDELTA,
    TZINFO,
    UUID_CODE,
    PURE_POSIX_PATH,
    PURE_WINDOWS_PATH,
    POSIX_PATH,
    WINDOWS_PATH,
    ELLIPSIS,
) = range(16, 32)

_MARKERS = {code: ExtType(code, b"") for code in range(TUPLE, FRACTION + 1)}

_MICROSECOND = timedelta(microseconds=1)
_FIXED_OFFSET, _NAMED_OFFSET, _ZONE = range(3)

_complex = struct.Struct(">dd")
_date = struct.Struct(">HBB")
_time = struct.Struct(">BBBIB")
_datetime = struct.Struct(">HBBBBBIB")
_timedelta = struct.Struct(">iII")
_offset = struct.Struct(">q")


class InexpressibleError(Exception):
    """This value, or one inside of it, has no MessagePack form. The message says what it is."""


def text_to_bytes(text: str) -> bytes:
    """UTF-8, where each lone surrogate is encoded like any other code point of its size."""
    return text.encode("utf-8", "surrogatepass")


def bytes_to_text(data: bytes) -> str:
    """The inverse of `text_to_bytes`."""
    return data.decode("utf-8", "surrogatepass")


def typed_array(code: int, items: Any) -> list[Any]:
    """The typed array of these items."""
    return [_MARKERS[code], *items]


def _encode_tzinfo(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is timezone:
        # Whether it was given a name of its own is not to be seen from tzname().
        arguments: tuple[Any, ...] = cast("Any", zone).__getinitargs__()
        offset = _offset.pack(arguments[0] // _MICROSECOND)
        if len(arguments) == 1:
            return bytes((_FIXED_OFFSET,)) + offset
        return bytes((_NAMED_OFFSET,)) + offset + text_to_bytes(arguments[1])
    name_in_database = zone_name(zone) if type(zone) is ZoneInfo else None
    if name_in_database is None:
        raise InexpressibleError(f"a time zone that the database does not give by name ({type(zone).__qualname__})")
    return bytes((_ZONE,)) + name_in_database.encode()


def _decode_tzinfo(payload: bytes) -> tzinfo | None:
    if not payload:
        return None
    form, rest = payload[0], payload[1:]
    if form == _ZONE:
        return load_zone(str(rest, "ascii"))
    offset = timedelta(microseconds=_offset.unpack(rest[:8])[0])
    if form == _NAMED_OFFSET:
        return timezone(offset, bytes_to_text(rest[8:]))
    if form == _FIXED_OFFSET and len(rest) == 8:
        return timezone(offset)
    raise DecodeError("not a time zone")


def _encode_time(value: time) -> bytes:
    fields = _time.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return fields + _encode_tzinfo(value.tzinfo)


def _decode_time(payload: bytes) -> time:
    hour, minute, second, microsecond, fold = _time.unpack(payload[: _time.size])
    return time(hour, minute, second, microsecond, _decode_tzinfo(payload[_time.size :]), fold=fold)


def _encode_datetime(value: datetime) -> bytes:
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _datetime.pack(*fields) + _encode_tzinfo(value.tzinfo)


def _decode_datetime(payload: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _datetime.unpack(payload[: _datetime.size])
    zone = _decode_tzinfo(payload[_datetime.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _encode_uuid(value: UUID) -> bytes:
    if value.is_safe is SafeUUID.unknown:
        return value.bytes
    safety: int = value.is_safe.value
    return value.bytes + safety.to_bytes(1, "big", signed=True)


def _decode_uuid(payload: bytes) -> UUID:
    if len(payload) == 16:
        return UUID(bytes=payload)
    return UUID(bytes=payload[:16], is_safe=SafeUUID(int.from_bytes(payload[16:], "big", signed=True)))


def _encode_path(value: PurePath) -> bytes:
    text = str(value)
    if type(value)(text) != value:
        # Before Python 3.12, PureWindowsPath("./c:a") has the text of another path, and so have a few others.
        raise InexpressibleError(f"a path that its own text does not give back ({value!r})")
    return text_to_bytes(text)


def _decode_path(kind: type[PurePath]) -> Callable[[bytes], PurePath]:
    return lambda payload: kind(bytes_to_text(payload))


def _decode_ellipsis(payload: bytes) -> Any:
    if payload != b"\x00":
        raise DecodeError("not an Ellipsis")
    return ...


def _decode_decimal(payload: bytes) -> Decimal:
    return Decimal(payload.decode("ascii"))


_LEAVES: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    int: (WIDE_INT, int_to_bytes, int_from_bytes),
    complex: (COMPLEX, lambda v: _complex.pack(v.real, v.imag), lambda p: complex(*_complex.unpack(p))),
    str: (SURROGATE_STR, text_to_bytes, bytes_to_text),
    bytearray: (BYTEARRAY, bytes, bytearray),
    Decimal: (DECIMAL, lambda v: str(v).encode(), _decode_decimal),
    date: (DATE, lambda v: _date.pack(v.year, v.month, v.day), lambda p: date(*_date.unpack(p))),
    time: (TIME, _encode_time, _decode_time),
    datetime: (DATETIME, _encode_datetime, _decode_datetime),
    timedelta: (
        TIMEDELTA,
        lambda v: _timedelta.pack(v.days, v.seconds, v.microseconds),
        lambda p: timedelta(*_timedelta.unpack(p)),
    ),
    timezone: (TZINFO, _encode_tzinfo, _decode_tzinfo),
    ZoneInfo: (TZINFO, _encode_tzinfo, _decode_tzinfo),
    UUID: (UUID_CODE, _encode_uuid, _decode_uuid),
    PurePosixPath: (PURE_POSIX_PATH, _encode_path, _decode_path(PurePosixPath)),
    PureWindowsPath: (PURE_WINDOWS_PATH, _encode_path, _decode_path(PureWindowsPath)),
    PosixPath: (POSIX_PATH, _encode_path, _decode_path(PosixPath)),
    WindowsPath: (WINDOWS_PATH, _encode_path, _decode_path(WindowsPath)),
    type(...): (ELLIPSIS, lambda v: b"\x00", _decode_ellipsis),
}

LEAF_TYPES = frozenset(_LEAVES)
_DECODERS = {code: decode for code, _, decode in _LEAVES.values()}

# What is inside of each type that becomes a typed array, and how to build it again.
_ARRAYS: dict[type, tuple[int, Callable[[Any], Any], Callable[[list[Any]], Any]]] = {
    tuple: (TUPLE, lambda v: v, tuple),
    set: (SET, lambda v: v, set),
    frozenset: (FROZENSET, lambda v: v, frozenset),
    range: (RANGE, lambda v: (v.start, v.stop, v.step), lambda items: range(*_exactly(3, items))),
    slice: (SLICE, lambda v: (v.start, v.stop, v.step), lambda items: slice(*_exactly(3, items))),
    Fraction: (FRACTION, lambda v: (v.numerator, v.denominator), lambda items: Fraction(*_exactly(2, items))),
}

ARRAY_TYPES = frozenset(_ARRAYS)
_BUILDERS = {code: build for code, _, build in _ARRAYS.values()}


def _exactly(count: int, items: list[Any]) -> list[Any]:
    if len(items) != count:
        raise DecodeError(f"a typed array of {count} items has {len(items)}")
    return items


def array_items(value: Any) -> Any:
    """What is inside of a value of one of `ARRAY_TYPES`."""
    return _ARRAYS[type(value)][1](value)


def encode_extension(value: Any) -> Any:
    """The extension or typed array for a value that MessagePack itself has no form for.

    Raises:
        InexpressibleError: There is none.
    """
    kind = type_of(value)
    leaf = _LEAVES.get(kind)
    if leaf is not None:
        code, encode, _ = leaf
        return ExtType(code, encode(value))
    array = _ARRAYS.get(kind)
    if array is not None:
        code, items, _ = array
        return typed_array(code, items(value))
    raise InexpressibleError(f"{kind.__module__}.{kind.__qualname__}")


def decode_leaf(code: int, payload: bytes) -> Any:
    """The value of a leaf.

    Raises:
        DecodeError: No leaf has this code.
    """
    decode = _DECODERS.get(code)
    if decode is None:
        raise DecodeError(f"no type has the MessagePack extension code {code}")
    return decode(payload)


class TypedArrays:
    """The typed arrays of one decoding: pairs each marker with the array that it begins."""

    __slots__ = ("_unpaired",)

    def __init__(self) -> None:
        self._unpaired = 0

    def on_extension(self, code: int, payload: bytes) -> Any:
        """Called for every extension: a marker, or a leaf's value."""
        if code in _BUILDERS and not payload:
            self._unpaired += 1
            return _Marker(code)
        return decode_leaf(code, payload)

    def on_array(self, items: list[Any]) -> Any:
        """Called for every complete array: the value that it stands for."""
        if not items or type(items[0]) is not _Marker:
            return items
        self._unpaired -= 1
        return _BUILDERS[items[0].code](items[1:])

    def finish(self) -> None:
        """Raise `DecodeError` if there was a marker anywhere but at the beginning of an array."""
        if self._unpaired:
            raise DecodeError("the marker of a typed array is not the first item of an array")


class _Marker:
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code
