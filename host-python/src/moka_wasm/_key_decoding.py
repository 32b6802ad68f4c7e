"""From an encoded key back to the key."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from uuid import UUID

from . import _key_enums as enums
from . import _key_format as f
from . import _key_numbers as numbers
from . import _key_times as times
from ._errors import DecodeError

_STR_TAG = f.STR[0]
_TUPLE_TAG = f.TUPLE[0]
_FROZENSET_TAG = f.FROZENSET[0]


def decode_item(data: f.Buffer, depth: int) -> Hashable:
    """Decode one item, which lies in *depth* others.

    Raises:
        DecodeError: It is none. Other exceptions mean the same.
    """
    if not data:
        raise DecodeError("an encoded key has at least one byte")
    tag, payload = data[0], data[1:]
    if tag == _STR_TAG:
        return str(payload, "utf-8")
    leaf = _DECODERS.get(tag)
    if leaf is not None:
        return leaf(payload)
    if depth >= f.MAX_KEY_DEPTH:
        raise DecodeError(f"more than {f.MAX_KEY_DEPTH} tuples or frozensets in each other")
    if tag == _TUPLE_TAG:
        return tuple([decode_item(item, depth + 1) for item in f.split_frames(payload)])
    if tag == _FROZENSET_TAG:
        return frozenset([decode_item(item, depth + 1) for item in f.split_frames(payload)])
    raise DecodeError(f"no type has the tag 0x{tag:02x}")


def _decode_constant(constant: Hashable) -> Callable[[f.Buffer], Hashable]:
    def decode(payload: f.Buffer) -> Hashable:
        if payload:
            raise DecodeError(f"{constant} has no payload")
        return constant

    return decode


def _decode_surrogate_str(payload: f.Buffer) -> str:
    return str(payload, "utf-8", "surrogatepass")


def _decode_range(payload: f.Buffer) -> range:
    values = [f.int_from_bytes(item) for item in f.split_frames(payload)]
    if not values:
        return range(0)
    if len(values) == 1:
        return range(values[0], values[0] + 1)
    start, step, length = values
    return range(start, start + length * step, step)


def _decode_uuid(payload: f.Buffer) -> UUID:
    return UUID(bytes=bytes(payload))


def _decode_posix_path(payload: f.Buffer) -> PurePath:
    return _posix_path_type(_decode_surrogate_str(payload))


def _decode_windows_path(payload: f.Buffer) -> PurePath:
    return _windows_path_type(_decode_surrogate_str(payload))


# A path of this system's kind can also be opened; it equals the pure one.
_posix_path_type: type[PurePath] = PurePosixPath
_windows_path_type: type[PurePath] = PureWindowsPath
if os.name == "nt":
    _windows_path_type = Path
else:
    _posix_path_type = Path

_DECODERS: dict[int, Callable[[f.Buffer], Hashable]] = {
    tag[0]: decoder
    for tag, decoder in {
        f.NONE: _decode_constant(None),
        f.ELLIPSIS: _decode_constant(...),
        f.SURROGATE_STR: _decode_surrogate_str,
        f.BYTES: bytes,
        f.INT: numbers.decode_int,
        f.WIDE_INT: f.int_from_bytes,
        f.DOUBLE: numbers.decode_double,
        f.DECIMAL: numbers.decode_decimal,
        f.RATIO: numbers.decode_ratio,
        f.COMPLEX: numbers.decode_complex,
        f.RANGE: _decode_range,
        f.DATE: times.decode_date,
        f.TIME: times.decode_time,
        f.TIME_WITH_OFFSET: times.decode_time_with_offset,
        f.DATETIME: times.decode_datetime,
        f.INSTANT: times.decode_instant,
        f.DATETIME_IN_ZONE: times.decode_datetime_in_zone,
        f.TIMEDELTA: times.decode_timedelta,
        f.TIMEZONE: times.decode_timezone,
        f.UUID: _decode_uuid,
        f.POSIX_PATH: _decode_posix_path,
        f.WINDOWS_PATH: _decode_windows_path,
        f.ENUM: enums.decode_enum,
        f.FLAG: enums.decode_flag,
    }.items()
}
