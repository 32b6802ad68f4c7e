"""Keys as bytes: equal keys have equal bytes, unequal ones different bytes, and bytes decode to an equal key."""

from __future__ import annotations

import enum
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from moka_wasm._errors import DecodeError, UnsupportedKeyError
from moka_wasm._key_enums import is_plain
from moka_wasm._keys import decode_key, encode_key

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
UTC = timezone.utc

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = "blue"


class OtherColor(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Name(str, enum.Enum):
    FIRST = "first"

    def __str__(self) -> str:
        return "not the value"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    """A tuple with names."""

    x: Any
    y: Any


# ---------------------------------------------------------------------------------------------------- strategies


def near_power(base: int, exponent: int, sign: int, step: int) -> int:
    power: int = base**exponent
    return sign * power + step


def decimal_of(digits: int, exponent: int) -> Decimal:
    return Decimal(digits).scaleb(exponent)


def finite_fraction(number: int, twos: int, fives: int) -> Fraction:
    return Fraction(number, 2**twos * 5**fives)


def local_time(day: datetime, half_hours: int, fold: int) -> datetime:
    return (day + timedelta(minutes=30 * half_hours)).replace(fold=fold)


def in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    return moment.replace(tzinfo=zone)


def hour_in_zone(hour: int, zone: tzinfo | None) -> time:
    return time(hour, tzinfo=zone)


def tagged(tag: int, payload: bytes) -> bytes:
    return bytes((tag,)) + payload


def has_own_text(path: PureWindowsPath) -> bool:
    """Whether the text of a path is not that of another; pathlib does not manage that for every one."""
    return PureWindowsPath(str(path)) == path


def hours_ahead(hours: int) -> timezone:
    return timezone(timedelta(hours=hours))


SIGNS, STEPS = st.sampled_from([1, -1]), st.integers(-1, 1)
# Integers next to powers of two and of ten, where one form of the encoding ends and the next begins.
POWERS = st.one_of(
    st.builds(near_power, st.just(2), st.sampled_from([7, 8, 31, 63, 64, 1023, 1024, 1025]), SIGNS, STEPS),
    st.builds(near_power, st.just(10), st.integers(0, 400), SIGNS, STEPS),
)
FLOATS = st.floats(allow_nan=False)
COMPLEX = st.builds(complex, FLOATS, FLOATS)
INTEGERS = st.integers(-3, 3) | st.integers() | POWERS
EXACT_DECIMALS = st.builds(decimal_of, st.integers(-1000, 1000), st.integers(-340, 340))
FRACTIONS = st.fractions() | st.builds(finite_fraction, st.integers(-99, 99), st.integers(0, 80), st.integers(0, 80))
NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.booleans(), INTEGERS, FLOATS, COMPLEX, EXACT_DECIMALS, st.decimals(allow_nan=False), FRACTIONS
)
TEXT = st.text(st.characters())
ZONES = st.sampled_from([UTC, BERLIN, NEW_YORK, ZoneInfo("Etc/GMT+5"), timezone(timedelta(hours=-11, minutes=-30))])
# Around the clock changes of both zones, in steps of half an hour: many instants meet, many are ambiguous or skipped.
LOCAL_TIMES = st.builds(
    local_time,
    st.sampled_from([datetime(2024, 3, 10), datetime(2024, 3, 31), datetime(2024, 10, 27), datetime(2024, 11, 3)]),
    st.integers(0, 40),
    st.sampled_from([0, 1]),
)
DATETIMES = st.builds(in_zone, LOCAL_TIMES, st.none() | ZONES) | st.datetimes(timezones=st.none() | ZONES)
OFFSETS = st.integers(-23, 23).map(hours_ahead)
TIMES = st.builds(hour_in_zone, st.integers(0, 23), st.none() | OFFSETS | st.just(BERLIN)) | st.times()
ENUMS = st.sampled_from([*Color, *OtherColor, *Level, *Name, *Permission, Permission(3), Permission(0), *Mode, Mode(3)])
PATH_TEXT = st.text(st.sampled_from("aA/\\.:é"), max_size=6)
RANGES = st.builds(
    range, st.integers(-9, 9), st.integers(-9, 9) | st.integers(), st.integers(-4, 4).filter(bool) | st.just(2**70)
)
ATOMS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just(...),
    NUMBERS,
    st.just(math.nan),
    TEXT,
    st.sampled_from(["\ud800", "\udfff\ud800", "\ud800\udc00", "\U00010000", "", "a"]),
    st.binary(),
    RANGES,
    st.dates(),
    TIMES,
    DATETIMES,
    st.timedeltas(),
    OFFSETS,
    st.uuids(),
    ENUMS,
    PATH_TEXT.map(PurePosixPath),
    PATH_TEXT.map(PureWindowsPath).filter(has_own_text),
)


@st.composite
def atoms(draw: st.DrawFn) -> Any:
    """Any key that holds no others; a function, because the text of the strategy is too long for messages."""
    return draw(ATOMS)


KEYS: st.SearchStrategy[Any] = st.recursive(
    atoms(),
    lambda children: st.one_of(
        st.lists(children, max_size=4).map(tuple),
        st.frozensets(children, max_size=4),
        st.tuples(children, children).map(Point._make),
    ),
    max_leaves=8,
)


def same_number(number: Any) -> Iterator[Any]:
    """*number* as every type that can hold exactly it."""
    yield number
    if type(number) is complex:
        if number.imag:
            return
        number = number.real
        yield number
    if number in (math.inf, -math.inf):
        yield float(number)
        yield Decimal(number)
        yield complex(float(number), -0.0)
        return
    exact = Fraction(number)
    yield exact
    if exact.denominator == 1:
        yield exact.numerator
        yield Decimal(exact.numerator)
        if exact in (0, 1):
            yield bool(exact)
    try:
        double = exact.numerator / exact.denominator
    except OverflowError:
        return
    if Fraction(double) == exact:
        yield double
        yield complex(double, -0.0)
        yield Decimal(double)
        if not double:
            yield -double


def assert_canonical(left: Any, right: Any) -> None:
    assert (encode_key(left) == encode_key(right)) == (left == right), (left, right)


def assert_round_trip(key: Any) -> None:
    encoded = encode_key(key)
    decoded = decode_key(encoded)
    assert decoded == key
    assert hash(decoded) == hash(key)
    assert encode_key(decoded) == encoded
    assert decode_key(memoryview(encoded)) == key


# ---------------------------------------------------------------------------------------------------- properties


@relaxed
@given(KEYS, KEYS)
def test_any_two_keys(left: Any, right: Any) -> None:
    """Two keys have the same encoding exactly when they are equal."""
    assume("nan" not in repr((left, right)).lower())
    assert_canonical(left, right)


@relaxed
@given(NUMBERS, NUMBERS)
def test_any_two_numbers(left: Any, right: Any) -> None:
    """Two numbers of any types have the same encoding exactly when they are equal."""
    assert_canonical(left, right)


@relaxed
@given(NUMBERS)
@example(0.0)
@example(Decimal("1E+400"))
@example(Decimal("0.1"))
@example(2**1024)
def test_one_number_in_every_type(number: Any) -> None:
    """A number's encoding does not depend on the type that holds it."""
    variants = list(same_number(number))
    assert {encode_key(variant) for variant in variants} == {encode_key(number)}
    for variant in variants:
        assert variant == number
        assert_round_trip(variant)


@relaxed
@given(st.lists(KEYS, max_size=5), st.randoms(use_true_random=False))
def test_frozensets_do_not_depend_on_order(items: list[Any], random: Any) -> None:
    """A frozenset's encoding does not depend on the order in which it was filled."""
    shuffled = items[:]
    random.shuffle(shuffled)
    assert encode_key(frozenset(items)) == encode_key(frozenset(shuffled))


@relaxed
@given(DATETIMES, DATETIMES)
def test_any_two_datetimes(left: datetime, right: datetime) -> None:
    """Two datetimes have the same encoding exactly when they are equal, PEP 495's exceptions included."""
    assert_canonical(left, right)


@relaxed
@given(DATETIMES.filter(lambda moment: moment.tzinfo is not None), ZONES)
def test_one_instant_in_two_zones(moment: datetime, zone: tzinfo) -> None:
    """A datetime and the same instant in another zone are as equal as Python says."""
    try:
        other = moment.astimezone(zone)
    except OverflowError:
        return
    assert_canonical(moment, other)


@relaxed
@given(TIMES, TIMES)
def test_any_two_times(left: time, right: time) -> None:
    """Two times of day have the same encoding exactly when they are equal."""
    assert_canonical(left, right)


@relaxed
@given(RANGES, RANGES)
def test_any_two_ranges(left: range, right: range) -> None:
    """Two ranges have the same encoding exactly when they are equal as sequences."""
    assert_canonical(left, right)


@relaxed
@given(PATH_TEXT, PATH_TEXT)
def test_any_two_paths(left: str, right: str) -> None:
    """Two paths have the same encoding exactly when they are equal, and a path of one system equals none of another."""
    assert_canonical(PurePosixPath(left), PurePosixPath(right))
    windows = PureWindowsPath(left), PureWindowsPath(right)
    if all(map(has_own_text, windows)):
        assert_canonical(*windows)
        assert_canonical(PurePosixPath(left), windows[1])


@relaxed
@given(KEYS.filter(lambda key: "nan" not in repr(key).lower()))
def test_round_trip(key: Hashable) -> None:
    """What is decoded equals what was encoded, has its hash, and has the same encoding."""
    assert_round_trip(key)


@relaxed
@given(st.binary(max_size=40) | st.builds(tagged, st.integers(0, 0x61), st.binary()))
def test_hostile_bytes(data: bytes) -> None:
    """Any bytes decode to a hashable key or raise DecodeError."""
    try:
        key = decode_key(data)
    except DecodeError:
        return
    hash(key)


@relaxed
@given(KEYS, st.data())
def test_mutated_encodings(key: Any, data: st.DataObject) -> None:
    """An encoding with bytes changed, cut off or added decodes to a hashable key or raises DecodeError."""
    mutated = bytearray(encode_key(key))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(mutated)))
        stop = data.draw(st.integers(start, min(len(mutated), start + 3)))
        mutated[start:stop] = data.draw(st.binary(max_size=3))
    test_hostile_bytes.hypothesis.inner_test(bytes(mutated))  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------- numbers


def test_one() -> None:
    """One is one key in all the types of numbers."""
    ones = [1, True, 1.0, 1 + 0j, Decimal(1), Decimal("1.00"), Fraction(1), Level.LOW, Mode.A]
    assert {encode_key(one) for one in ones} == {encode_key(1)}


def test_zero_has_no_sign() -> None:
    """Zero and minus zero are one key, also as parts of a complex number."""
    zeros = [0, False, 0.0, -0.0, complex(-0.0, -0.0), Decimal("-0"), Decimal("0E+5"), Decimal("0E-999999"), Fraction()]
    assert {encode_key(zero) for zero in zeros} == {encode_key(0)}
    assert encode_key(complex(-0.0, 1)) == encode_key(complex(0.0, 1))


def test_decimal_one_tenth_is_not_the_float() -> None:
    """Decimal("0.1") and 0.1 are two keys, as they are unequal."""
    assert encode_key(Decimal("0.1")) != encode_key(0.1)
    assert encode_key(Decimal("0.1")) == encode_key(Fraction(1, 10))
    assert encode_key(Decimal.from_float(0.1)) == encode_key(0.1)


@pytest.mark.parametrize("text", ["1E+1000000", "-7E+999999999999999999", "1E-1000000", "123.4500E+900000000"])
def test_huge_exponents_stay_small(text: str) -> None:
    """A Decimal with a huge exponent is not written out."""
    encoded = encode_key(Decimal(text))
    assert len(encoded) < 16
    assert decode_key(encoded) == Decimal(text)


def test_large_integers_and_decimals_agree() -> None:
    """Integers beyond the two's complement form have the encoding of the Decimal that they equal."""
    for number in (10**400, -(10**400), 12 * 10**350, 2**1024, -(2**1024) - 1, 10**5000 + 1):
        assert encode_key(number) == encode_key(Decimal(number))
        assert_round_trip(number)
        assert type(decode_key(encode_key(number))) is int


def test_large_integer_with_many_zeros() -> None:
    """An integer with very many trailing zeros is the key that the Decimal is."""
    assert encode_key(3 * 10**20_000) == encode_key(Decimal("3E+20000"))


@pytest.mark.parametrize("number", [0, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**1024 - 1, 2**1024, -(2**1024)])
def test_edges_of_the_integer_forms(number: int) -> None:
    """Integers on both sides of each form's limit come back as they were."""
    assert decode_key(encode_key(number)) == number
    assert type(decode_key(encode_key(number))) is int


def test_infinities() -> None:
    """The infinities of float and Decimal are one key for each sign."""
    assert encode_key(math.inf) == encode_key(Decimal("Infinity"))
    assert encode_key(-math.inf) == encode_key(Decimal("-Infinity"))
    assert decode_key(encode_key(-math.inf)) == -math.inf


def test_all_nans_are_one_key() -> None:
    """Every quiet NaN is one key, so that an entry under it can be found again."""
    nans = [math.nan, -math.nan, float("nan"), Decimal("NaN"), Decimal("-NaN123"), complex(math.nan, 0)]
    assert {encode_key(nan) for nan in nans} == {encode_key(math.nan)}
    decoded: Any = decode_key(encode_key(math.nan))
    assert math.isnan(decoded)
    assert encode_key(complex(1, math.nan)) == encode_key(complex(1, -math.nan))
    assert encode_key(frozenset([float("nan"), float("nan")])) == encode_key(frozenset([math.nan]))


def test_signaling_nan() -> None:
    """A signaling NaN is unhashable in Python and no key here."""
    with pytest.raises(TypeError, match="signaling NaN"):
        encode_key(Decimal("sNaN"))


def test_the_decimal_context_does_not_matter() -> None:
    """A Decimal longer than the caller's precision is encoded exactly."""
    long = Decimal("1." + "0" * 60 + "1")
    assert encode_key(long) != encode_key(Decimal(1))
    assert decode_key(encode_key(long)) == long


def test_fraction_beyond_doubles() -> None:
    """Fractions whose denominator no double holds are decimals where they can be, else ratios."""
    for number in (Fraction(1, 2**1100), Fraction(10**400 + 1, 2), Fraction(1, 5**30), Fraction(1, 3 * 2**80)):
        assert_round_trip(number)
    assert encode_key(Fraction(1, 2**1100)) == encode_key(Decimal(f"{5**1100}E-1100"))


# ---------------------------------------------------------------------------------------------------- text and bytes


def test_str_is_a_tag_and_utf8() -> None:
    """A str is the byte 0x10 and its UTF-8."""
    assert encode_key("zoë") == b"\x10zo\xc3\xab"


def test_lone_surrogates() -> None:
    """Strings with lone surrogates are keys, and two surrogates are not the character that they would spell."""
    assert_round_trip("a\ud800")
    assert encode_key("\ud800\udc00") != encode_key("\U00010000")
    assert encode_key("\ud800")[:1] != encode_key("a")[:1]


def test_str_and_bytes_differ() -> None:
    """A str and the bytes of its UTF-8 are two keys."""
    assert encode_key("a") != encode_key(b"a")


def test_memoryview_is_bytes_where_it_equals_them() -> None:
    """A read-only memoryview of bytes is the same key as the bytes; others are refused."""
    assert encode_key(memoryview(b"ab")) == encode_key(b"ab")
    with pytest.raises(UnsupportedKeyError, match="writable"):
        encode_key(memoryview(bytearray(b"ab")))
    with pytest.raises(UnsupportedKeyError, match="format 'b'"):
        encode_key(memoryview(b"ab").cast("b"))


# ---------------------------------------------------------------------------------------------------- containers


def test_tuples_nest() -> None:
    """The structure of nested tuples is part of the key."""
    nested = [((),), (), (1, (2,)), ((1, 2),), (1, 2), ("1", 2), ("12",), ("1", "2"), (("1",), "2")]
    assert len({encode_key(key) for key in nested}) == len(nested)


@pytest.mark.parametrize("length", [252, 253, 254, 255, 256, 70_000])
def test_long_items(length: int) -> None:
    """Items around the size where a frame's length no longer fits into one byte come back as they were."""
    assert_round_trip(("x" * length, b"y" * length, (1, "z" * length)))


def test_frames() -> None:
    """An item is framed by one byte of length, and from 255 bytes on by 0xFF and eight bytes."""
    assert encode_key(("a", 1)) == b"\x30\x02\x10a\x09\x20" + bytes(7) + b"\x01"
    assert encode_key((b"a" * 254,)) == b"\x30\xff" + (255).to_bytes(8, "big") + b"\x12" + b"a" * 254


def test_sharing_does_not_matter() -> None:
    """A tuple that holds one str twice is the same key as one that holds two equal strs."""
    word = "".join(["a", "b"])
    assert encode_key((word, word)) == encode_key(("ab", "".join(["a", "b"])))


def test_namedtuple_is_a_tuple() -> None:
    """A namedtuple is the key that the tuple is which it equals."""
    assert encode_key(Point(1, "a")) == encode_key((1, "a"))


def test_frozenset_holds_equal_numbers_once() -> None:
    """Frozensets of equal numbers in different types are one key."""
    assert encode_key(frozenset([1, 2.5])) == encode_key(frozenset([True, Decimal("2.50")]))


def test_huge_ranges() -> None:
    """Ranges of any size are keys, and are compared as sequences."""
    assert encode_key(range(0, 10**30, 2)) == encode_key(range(0, 10**30 - 1, 2))
    assert encode_key(range(5, 5)) == encode_key(range(0))
    assert encode_key(range(3, 4, 7)) == encode_key(range(3, 10, 7))
    assert encode_key(range(10, 0, -(10**30))) == encode_key(range(10, 11))
    assert_round_trip(range(10**40, -(10**50), -(10**20)))


def test_nesting_has_a_limit() -> None:
    """A hundred levels of tuples are a key; more, up to any depth, are refused cleanly."""
    key: Any = ()
    for _ in range(99):
        key = (key,)
    assert_round_trip(key)
    for _ in range(200_000):
        key = (key,)
    with pytest.raises(UnsupportedKeyError, match="at most 100"):
        encode_key(key)
    while key:  # freed in a loop, and not by as deep a recursion
        (key,) = key


# ---------------------------------------------------------------------------------------------------- dates and times


def test_date_is_no_datetime() -> None:
    """A date and its midnight are two keys, a naive and an aware datetime too."""
    midnight = datetime(2024, 5, 6)
    assert len({encode_key(key) for key in (midnight.date(), midnight, midnight.replace(tzinfo=UTC))}) == 3


def test_one_instant_is_one_key() -> None:
    """Aware datetimes are one key in all zones where they are the same instant."""
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    zones = [BERLIN, NEW_YORK, timezone(timedelta(hours=3), "name")]
    assert {encode_key(moment.astimezone(zone)) for zone in zones} == {encode_key(moment)}


def test_repeated_hour() -> None:
    """In the hour that a clock change repeats, a datetime equals only those of its own zone with the same fields."""
    first = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
    assert encode_key(first) == encode_key(first.replace(fold=1))
    assert encode_key(first) != encode_key(first.astimezone(UTC))
    assert_round_trip(first)
    assert decode_key(encode_key(first)) == first


def test_skipped_hour() -> None:
    """In the hour that a clock change skips, a datetime equals only those of its own zone with the same fields."""
    skipped = datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN)
    assert encode_key(skipped) != encode_key(skipped.astimezone(UTC))
    assert_round_trip(skipped)


def test_repeated_hour_in_a_zone_without_a_name() -> None:
    """A datetime in a repeated hour is refused if its zone cannot be found by name; outside of it, it is a key."""
    nameless = ZoneInfo.no_cache("Europe/Berlin")
    with pytest.raises(UnsupportedKeyError, match="convert the key to UTC"):
        encode_key(datetime(2024, 10, 27, 2, 30, tzinfo=nameless))
    summer = datetime(2024, 7, 1, tzinfo=nameless)
    assert encode_key(summer) == encode_key(summer.astimezone(UTC))


class FixedZone(tzinfo):
    """A zone of one's own, always two hours ahead of UTC."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(hours=2)

    def dst(self, moment: datetime | None, /) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None, /) -> str:
        return "fixed"


class SpringZone(FixedZone):
    """A zone that skips an hour but knows nothing of fold: 02:30 and 03:30 of that day are one instant."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(hours=1) + self.dst(moment)

    def dst(self, moment: datetime | None, /) -> timedelta:
        summer = moment is not None and moment.replace(tzinfo=None) >= datetime(2024, 3, 31, 3)
        return timedelta(hours=1 if summer else 0)


class UnknownOffset(FixedZone):
    """A zone that does not know its offset."""

    def utcoffset(self, moment: datetime | None, /) -> None:  # type: ignore[override]
        return None


def test_zones_of_ones_own() -> None:
    """A zone of one's own counts by its instants; where it maps two times to one instant, the key is refused."""
    moment = datetime(2024, 7, 1, 14, tzinfo=FixedZone())
    assert encode_key(moment) == encode_key(datetime(2024, 7, 1, 12, tzinfo=UTC))
    given_back = datetime(2024, 3, 31, 2, 30, tzinfo=SpringZone())
    other = given_back.replace(hour=3)
    assert given_back != other
    assert given_back.astimezone(UTC) == other.astimezone(UTC)
    assert encode_key(given_back) == encode_key(given_back.astimezone(UTC))
    with pytest.raises(UnsupportedKeyError, match=r"use a zoneinfo\.ZoneInfo"):
        encode_key(other)


def test_unknown_offset_is_naive() -> None:
    """Python compares an aware time without an offset as a naive one."""
    assert_canonical(datetime(2024, 7, 1, tzinfo=UnknownOffset()), datetime(2024, 7, 1))
    assert_canonical(time(3, tzinfo=BERLIN), time(3))


def test_instants_outside_of_the_calendar() -> None:
    """Aware datetimes whose UTC lies before year 1 or after year 9999 are keys."""
    for moment in (
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23, minutes=59))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23, microseconds=-1))),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ):
        assert_round_trip(moment)


def test_aware_times() -> None:
    """Aware times are one key where their distance from midnight UTC is the same, which may be beyond a day."""
    noon = time(12, tzinfo=UTC)
    assert encode_key(noon) == encode_key(time(14, tzinfo=timezone(timedelta(hours=2))))
    assert encode_key(noon) != encode_key(time(12))
    for hours in (-23, 23):
        assert_round_trip(time(0, 30, tzinfo=timezone(timedelta(hours=hours))))
        assert_round_trip(time(23, 30, tzinfo=timezone(timedelta(hours=hours))))


def test_time_with_a_fraction_in_its_offset() -> None:
    """An aware time whose offset has a fraction of a second, which Python's comparison drops, is refused."""
    with pytest.raises(UnsupportedKeyError, match="fraction of a second"):
        encode_key(time(12, tzinfo=timezone(timedelta(microseconds=1))))


def test_fold_does_not_matter() -> None:
    """Naive datetimes and times that differ in fold alone are one key."""
    assert encode_key(datetime(2024, 1, 1, fold=1)) == encode_key(datetime(2024, 1, 1))
    assert encode_key(time(1, fold=1)) == encode_key(time(1))


def test_timezones_compare_by_offset() -> None:
    """The name of a timezone is no part of the key."""
    assert encode_key(timezone(timedelta(hours=1), "CET")) == encode_key(timezone(timedelta(hours=1)))


# ---------------------------------------------------------------------------------------------------- classes


def test_enums_that_are_values() -> None:
    """Members of IntEnum, IntFlag and of enums with a str are the values that they equal, whatever str() says."""
    assert encode_key(Level.HIGH) == encode_key(2)
    assert encode_key(Mode.A | Mode.B) == encode_key(3)
    assert encode_key(Name.FIRST) == encode_key("first")


def test_plain_enums() -> None:
    """Members of a plain Enum equal only themselves; an alias is its member."""
    assert encode_key(Color.RED) != encode_key(1)
    assert encode_key(Color.RED) != encode_key(OtherColor.RED)
    assert encode_key(Color.RED) == encode_key(Color.CRIMSON)
    assert decode_key(encode_key(Color.BLUE)) is Color.BLUE


def test_flags() -> None:
    """Members of a Flag, combined or empty, come back as the same objects."""
    for member in (Permission.READ, Permission.READ | Permission.WRITE, Permission(0)):
        assert decode_key(encode_key(member)) is member


def test_two_classes_of_one_name() -> None:
    """A second Enum class of the same qualified name is refused, so that their members are never confused."""

    def make() -> type[enum.Enum]:
        class Local(enum.Enum):
            A = 1

        return Local

    first, second = make(), make()
    assert decode_key(encode_key(first["A"])) is first["A"]
    with pytest.raises(UnsupportedKeyError, match="two different classes"):
        encode_key(second["A"])


def test_enum_with_its_own_equality() -> None:
    """An Enum that overrides equality is refused."""

    class Odd(enum.Enum):
        A = 1

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = enum.Enum.__hash__

    assert not is_plain(Odd)
    with pytest.raises(UnsupportedKeyError, match="Odd"):
        encode_key(Odd.A)


def test_enum_of_a_class_never_encoded() -> None:
    """An Enum class that is loaded but was never encoded is found by its name."""

    class Fresh(enum.Enum):
        A = 1

    Fresh.__qualname__ = "FreshlyLoaded"
    sys.modules[__name__].__dict__["FreshlyLoaded"] = Fresh
    encoded = b"\x60" + b"".join(bytes((len(part),)) + part for part in (__name__.encode(), b"FreshlyLoaded")) + b"A"
    assert decode_key(encoded) is Fresh.A


@pytest.mark.parametrize(
    ("module", "name", "member"),
    [
        ("antigravity", "X", "A"),
        ("os", "system", "A"),
        ("os", "path.join", "A"),
        ("enum", "Enum", "A"),
        ("enum", "Flag", "A"),
        ("builtins", "int", "A"),
        (__name__, "Color", "GREEN"),
        (__name__, "Color.RED", "RED"),
        (__name__, "Level", "LOW"),
        ("", "", ""),
    ],
)
def test_enum_names_that_are_no_members(module: str, name: str, member: str) -> None:
    """Bytes that name no member of a loaded plain Enum raise DecodeError, and no module is imported for them."""
    before = set(sys.modules)
    for tag in (b"\x60", b"\x61"):
        frames = b"".join(bytes((len(part),)) + part for part in (module.encode(), name.encode()))
        with pytest.raises(DecodeError):
            decode_key(tag + frames + member.encode())
    assert set(sys.modules) == before


def test_enum_decoding_runs_no_module_getattr() -> None:
    """A lazy module attribute, which could import something, is not touched by decoding."""
    script = (
        "import sys, types\n"
        "module = types.ModuleType('lazy')\n"
        "def fail(name): raise SystemExit(3)\n"
        "module.__getattr__ = fail\n"
        "sys.modules['lazy'] = module\n"
        "from moka_wasm._keys import decode_key\n"
        "try: decode_key(b'\\x60\\x04lazy\\x01XA')\n"
        "except ValueError: raise SystemExit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, env={"PYTHONPATH": _path()}).returncode == 0


def _path() -> str:
    return os.pathsep.join(filter(None, sys.path))


def test_paths() -> None:
    """Pure and concrete paths are one key; Windows paths ignore case; the two kinds differ."""
    assert encode_key(Path("a/b")) == encode_key((PureWindowsPath if os.name == "nt" else PurePosixPath)("a/b"))
    assert encode_key(PureWindowsPath("C:/Users")) == encode_key(PureWindowsPath("c:\\users"))
    assert encode_key(PurePosixPath("A")) != encode_key(PurePosixPath("a"))
    assert encode_key(PurePosixPath("a")) != encode_key(PureWindowsPath("a"))
    assert encode_key(PurePosixPath("a")) != encode_key("a")
    assert_round_trip(PurePosixPath("a\udcff"))
    assert_round_trip(PureWindowsPath("//Host/Share/İ"))
    assert_round_trip(Path("a/B"))


@pytest.mark.parametrize("text", ["//.//", "//.///", "//.//a", "./c:a", "./c:/a"])
def test_paths_with_the_text_of_another(text: str) -> None:
    """A path whose text pathlib reads as another path is refused: it would be confused with that one."""
    path = PureWindowsPath(text)
    # Which paths these are depends on the version of Python.
    if has_own_text(path):
        assert_round_trip(path)
    else:
        with pytest.raises(UnsupportedKeyError, match="its text is that of another path"):
            encode_key(path)


def test_uuid() -> None:
    """A UUID is its sixteen bytes and a tag."""
    key = uuid.UUID(int=5)
    assert encode_key(key) == b"\x50" + bytes(15) + b"\x05"
    assert decode_key(encode_key(key)) == key


@pytest.mark.parametrize("base", [str, int, float, complex, bytes, tuple, frozenset, Decimal, Fraction])
def test_subclasses_that_inherit_equality(base: Callable[..., Any]) -> None:
    """A subclass without an equality of its own is the value that it equals, whatever it says of itself."""

    def lie(self: object, *args: object) -> Any:
        raise AssertionError("not to be called")

    overridden = dict.fromkeys(("__str__", "__iter__", "__int__", "__index__", "__float__", "encode", "__bytes__"), lie)
    subclass = type("Sub", (base,), overridden)  # type: ignore[arg-type]
    assert encode_key(subclass()) == encode_key(base())


def test_subclasses_of_dates() -> None:
    """Subclasses of the classes of datetime are the values that they equal."""

    class Day(date):
        pass

    class Moment(datetime):
        pass

    class Clock(time):
        pass

    class Span(timedelta):
        pass

    assert encode_key(Day(2024, 1, 2)) == encode_key(date(2024, 1, 2))
    assert encode_key(Moment(2024, 1, 2, tzinfo=UTC)) == encode_key(datetime(2024, 1, 2, tzinfo=UTC))
    assert encode_key(Clock(1, 2)) == encode_key(time(1, 2))
    assert encode_key(Span(1, 2, 3)) == encode_key(timedelta(1, 2, 3))


class CaseInsensitive(str):
    """A str with an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return str(self).lower() == str(other).lower()

    def __hash__(self) -> int:
        return hash(self.lower())


@dataclass(frozen=True)
class Frozen:
    """A hashable dataclass."""

    x: int


@pytest.mark.parametrize("key", [CaseInsensitive("a"), Frozen(1), object(), len, Frozen, lambda: 1, (1, (Frozen(1),))])
def test_unsupported_types(key: object) -> None:
    """A type whose equality is not known is refused with its name and a remedy."""
    with pytest.raises(UnsupportedKeyError, match=r"unsupported key type: .*key= function"):
        encode_key(key)


UNHASHABLE: list[tuple[Any, str]] = [
    ([], "list"),
    ({}, "dict"),
    (set(), "set"),
    (bytearray(), "bytearray"),
    ((1, ([],)), "list"),
]


@pytest.mark.parametrize(("key", "name"), UNHASHABLE)
def test_unhashable_types(key: object, name: str) -> None:
    """An unhashable key, or a tuple that holds one, is a TypeError in Python's own words."""
    with pytest.raises(TypeError, match=f"unhashable type: '{name}'"):
        encode_key(key)


def test_classes_made_without_end() -> None:
    """Subclasses beyond the number that is remembered are encoded all the same."""
    for number in range(1100):
        assert encode_key(type("Sub", (str,), {})(number)) == encode_key(str(number))


# ---------------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\x00x",
        b"\x10\xff",
        b"\x20\x01",
        b"\x21",
        b"\x22",
        b"\x23" + b"\x7f" + b"\xff" * 7 + b"\x01",
        b"\x23" + b"\x80" + bytes(7) + b"\x01",
        b"\x24\x01\x01\x01\x00",
        b"\x24\x01\x01",
        b"\x30\x05\x10",
        b"\x30\x00",
        b"\x30\xff" + b"\xff" * 8,
        b"\x30\xff\x01",
        b"\x32\x01\x00\x01\x00\x01\x05",
        b"\x32\x01\x00\x01\x01",
        b"\x40\x00\x00\x00\x00",
        b"\x42\x7f\xff\xff\xff\x00\x00\x00\x00",
        b"\x44\x7f" + b"\xff" * 7,
        b"\x46\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x47\x7f" + b"\xff" * 7,
        b"\x50\x00",
        b"\x30\x00" * 3,
    ],
)
def test_damaged_encodings(data: bytes) -> None:
    """Lengths, fields and exponents out of their range raise DecodeError."""
    with pytest.raises(DecodeError):
        decode_key(data)


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "/etc/passwd", "Europe/../../x", "Europe", "No/Where", "a.b/c", "é", "Europe/Berlin\n"],
)
def test_hostile_zone_names(name: str) -> None:
    """A zone's name that leaves the time zone database, or is not in it, raises DecodeError."""
    fields = encode_key(datetime(2024, 1, 1))[1:]
    with pytest.raises(DecodeError):
        decode_key(b"\x45" + fields + name.encode())


def test_hostile_depth() -> None:
    """Tuples in each other beyond the limit raise DecodeError."""
    data = b"\x30"
    for _ in range(3000):
        data = b"\x30\xff" + len(data).to_bytes(8, "big") + data
    with pytest.raises(DecodeError, match="more than 100"):
        decode_key(data)


def test_unhashable_is_never_decoded() -> None:
    """A frozenset of every kind of key is hashable."""
    key = frozenset([(1,), frozenset([2]), "a"])
    assert hash(decode_key(encode_key(key))) == hash(key)
