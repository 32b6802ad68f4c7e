"""The dates and times among the keys: equal ones, in whichever time zone, have one encoding."""

from __future__ import annotations

import struct
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from . import _key_format as f
from ._errors import UnsupportedKeyError
from ._zones import load_zone, zone_name

_MICROSECOND = timedelta(microseconds=1)
_DAY = 86400

_date = struct.Struct(">HBB")
_time = struct.Struct(">BBBI")
_datetime = struct.Struct(">HBBBBBI")
_time_with_offset = struct.Struct(">iI")
_timedelta = struct.Struct(">iII")
_int64 = struct.Struct(">q")


def encode_date(key: date) -> bytes:
    """Encode a date."""
    return f.DATE + _date.pack(key.year, key.month, key.day)


def encode_time(key: time) -> bytes:
    """Encode a time of day; an aware one by its distance from midnight UTC.

    Raises:
        UnsupportedKeyError: Its UTC offset has a fraction of a second, which Python ignores when it compares times.
    """
    offset = key.utcoffset()
    if offset is None:
        return f.TIME + _time.pack(key.hour, key.minute, key.second, key.microsecond)
    if offset.microseconds:
        raise UnsupportedKeyError(
            "a time whose UTC offset has a fraction of a second cannot be a key; convert it to another offset"
        )
    seconds = key.hour * 3600 + key.minute * 60 + key.second - offset // timedelta(seconds=1)
    return f.TIME_WITH_OFFSET + _time_with_offset.pack(seconds, key.microsecond)


def encode_datetime(key: datetime) -> bytes:
    """Encode a datetime: a naive one by its fields, an aware one by its instant.

    By PEP 495, a datetime whose UTC offset depends on ``fold`` (it lies in the hour that a clock change repeats or
    skips) equals none in another zone, and in its own zone the one with the same fields: that one is encoded as its
    fields and its zone.

    Raises:
        UnsupportedKeyError: It is such a datetime, and its zone has no name; or its zone maps two different local
            times to one instant, so that Python's own comparison of them is contradictory.
    """
    zone = key.tzinfo
    if zone is None:
        return f.DATETIME + _datetime_fields(key)
    if key.fold:
        key = key.replace(fold=0)
    offset = key.utcoffset()
    if type(zone) is not timezone:
        if offset != key.replace(fold=1).utcoffset():
            return f.DATETIME_IN_ZONE + _datetime_fields(key) + _name_of(zone, key).encode()
        if offset is None:
            # Python compares it as a naive one.
            return f.DATETIME + _datetime_fields(key)
        if type(zone) is not ZoneInfo:
            _require_round_trip(key, zone, offset)
    assert offset is not None
    return f.INSTANT + _int64.pack(_microseconds(key) - offset // _MICROSECOND)


def encode_timedelta(key: timedelta) -> bytes:
    """Encode a timedelta."""
    return f.TIMEDELTA + _timedelta.pack(key.days, key.seconds, key.microseconds)


def encode_timezone(key: timezone) -> bytes:
    """Encode a fixed offset; Python compares timezones by it, and ignores the name."""
    return f.TIMEZONE + _int64.pack(key.utcoffset(None) // _MICROSECOND)


def decode_date(payload: f.Buffer) -> date:
    """Decode the payload of `DATE`."""
    return date(*_date.unpack(payload))


def decode_time(payload: f.Buffer) -> time:
    """Decode the payload of `TIME`."""
    return time(*_time.unpack(payload))


def decode_time_with_offset(payload: f.Buffer) -> time:
    """Decode the payload of `TIME_WITH_OFFSET`: a time in UTC if there is an equal one, else in the nearest offset."""
    seconds, microsecond = _time_with_offset.unpack(payload)
    local = min(max(seconds, 0), _DAY - 1)
    zone = timezone(timedelta(seconds=local - seconds))
    return time(local // 3600, local // 60 % 60, local % 60, microsecond, zone)


def decode_datetime(payload: f.Buffer) -> datetime:
    """Decode the payload of `DATETIME`."""
    return datetime(*_datetime.unpack(payload))


def decode_instant(payload: f.Buffer) -> datetime:
    """Decode the payload of `INSTANT`: in UTC, or in the nearest offset where UTC has no such year."""
    instant: int = _int64.unpack(payload)[0]
    local = min(max(instant, _FIRST), _LAST)
    zone = timezone(timedelta(microseconds=local - instant))
    return (datetime.min + timedelta(microseconds=local - _FIRST)).replace(tzinfo=zone)


def decode_datetime_in_zone(payload: f.Buffer) -> datetime:
    """Decode the payload of `DATETIME_IN_ZONE`; the zone is loaded from the time zone database."""
    fields, name = payload[: _datetime.size], payload[_datetime.size :]
    return datetime(*_datetime.unpack(fields)).replace(tzinfo=load_zone(str(name, "ascii")))


def decode_timedelta(payload: f.Buffer) -> timedelta:
    """Decode the payload of `TIMEDELTA`."""
    return timedelta(*_timedelta.unpack(payload))


def decode_timezone(payload: f.Buffer) -> timezone:
    """Decode the payload of `TIMEZONE`."""
    return timezone(timedelta(microseconds=_int64.unpack(payload)[0]))


def _datetime_fields(key: datetime) -> bytes:
    return _datetime.pack(key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond)


def _microseconds(key: datetime) -> int:
    """The local time of *key* in microseconds since midnight of the day before 0001-01-01."""
    seconds = key.toordinal() * _DAY + key.hour * 3600 + key.minute * 60 + key.second
    return seconds * 1_000_000 + key.microsecond


_FIRST = _microseconds(datetime.min)
_LAST = _microseconds(datetime.max)


def _name_of(zone: tzinfo, key: datetime) -> str:
    name = zone_name(zone) if type(zone) is ZoneInfo else None
    if name is None:
        raise UnsupportedKeyError(
            f"{key!r} lies in the hour that a clock change repeats or skips, and its time zone has no name to find it "
            "by again; use a zoneinfo.ZoneInfo from the time zone database, or convert the key to UTC"
        )
    return name


def _require_round_trip(key: datetime, zone: tzinfo, offset: timedelta) -> None:
    """Refuse a local time that its zone never gives back, where the zone does not follow PEP 495.

    Such a zone maps two local times to one instant: each equals that instant in UTC, yet they are not equal.
    """
    try:
        back = (key.replace(tzinfo=None) - offset).replace(tzinfo=zone)
        back = zone.fromutc(back)
    except (OverflowError, ValueError, NotImplementedError):
        back = None
    if back is None or back.replace(tzinfo=None, fold=0) != key.replace(tzinfo=None, fold=0):
        raise UnsupportedKeyError(
            f"the time zone of {key!r} gives another local time for its instant; use a zoneinfo.ZoneInfo, or convert "
            "the key to UTC"
        )
