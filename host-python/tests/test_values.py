"""Values as bytes: what comes back equals what was set, has exactly its types, and shares nothing with it."""

from __future__ import annotations

import enum
import json
import math
import pickle
import struct
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moka_wasm._errors import ConfigError, DecodeError, UnsupportedValueError
from moka_wasm._key_format import type_of
from moka_wasm._msgpack import MAX_VALUE_DEPTH
from moka_wasm._values import Serializer, resolve_serializer

msgpack: Any = import_module("msgpack")

DEFAULT = resolve_serializer()
PLAIN = resolve_serializer("msgpack")
JSON = resolve_serializer("json")
BYTES = resolve_serializer("bytes")
PICKLE = resolve_serializer("pickle")

BERLIN = ZoneInfo("Europe/Berlin")
NAMED_OFFSET = timezone(timedelta(hours=5, minutes=30, microseconds=7), "name")

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Point(NamedTuple):
    """A tuple with names."""

    x: Any
    y: Any


class Color(enum.Enum):
    RED = 1


class Word(str):
    """A str that is not exactly one."""


@dataclass
class Item:
    """A class of the caller's own."""

    name: str
    parts: list[Any]


class NamelessZone(tzinfo):
    """A zone that no database has."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(0)

    def dst(self, moment: datetime | None, /) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None, /) -> None:
        return None


class Unpicklable:
    """An object that refuses to be pickled."""

    def __reduce__(self) -> str:
        raise RuntimeError("no")


# ---------------------------------------------------------------------------------------------------- strategies

FLOATS = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf])
TEXT = st.text(st.characters()) | st.text(st.characters(categories=["Cs"]), max_size=3)
ZONES = st.sampled_from([None, timezone.utc, timezone(timedelta(0), "UTC"), NAMED_OFFSET, BERLIN])
INTEGERS = st.integers() | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400])


def with_fold(moment: Any, fold: int) -> Any:
    return moment.replace(fold=fold)


def has_own_text(path: PureWindowsPath) -> bool:
    """Whether the text of a path is not that of another; pathlib does not manage that for every one."""
    return PureWindowsPath(str(path)) == path


HASHABLE_ATOMS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just(...),
    st.booleans(),
    INTEGERS,
    FLOATS,
    st.builds(complex, FLOATS, FLOATS),
    TEXT,
    st.binary(),
    st.builds(range, INTEGERS, INTEGERS, INTEGERS.filter(bool)),
    st.decimals().filter(lambda number: not number.is_snan()),  # which cannot be hashed
    st.decimals(places=2, allow_nan=False, allow_infinity=False),
    st.fractions(),
    st.dates(),
    st.builds(with_fold, st.times(timezones=ZONES), st.sampled_from([0, 1])),
    st.builds(with_fold, st.datetimes(timezones=ZONES), st.sampled_from([0, 1])),
    st.timedeltas(),
    ZONES,
    st.uuids(),
    st.text("ab/\\.é", max_size=5).map(PurePosixPath),
    st.text("ab/\\.é", max_size=5).map(PureWindowsPath).filter(has_own_text),
    st.text("ab/.é", max_size=5).map(Path),
)


@st.composite
def hashable_atoms(draw: st.DrawFn) -> Any:
    """Any hashable value that holds no others; a function, because the text of the strategy is too long."""
    return draw(HASHABLE_ATOMS)


HASHABLE: st.SearchStrategy[Any] = st.recursive(
    hashable_atoms(),
    lambda children: st.lists(children, max_size=3).map(tuple) | st.frozensets(children, max_size=3),
    max_leaves=4,
)
ATOMS: st.SearchStrategy[Any] = HASHABLE | st.one_of(
    st.binary().map(bytearray),
    st.just(Decimal("sNaN")),
    st.sets(HASHABLE, max_size=3),
    st.builds(slice, HASHABLE, HASHABLE, HASHABLE),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, children, max_size=3),
    ),
    max_leaves=8,
)
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types at every depth, with NaN, -0.0, names, folds and order."""
    kind = type_of(left)
    if kind is not type_of(right):
        return False
    if kind in (list, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if kind is dict:
        return same(list(left.items()), list(right.items()))
    if kind in (set, frozenset):
        # Items that are equal may be of other types: each has its twin among the others.
        return len(left) == len(right) and all(any(same(item, other) for other in right) for item in left)
    if kind is float:
        return struct.pack("d", left) == struct.pack("d", right)
    if kind is complex:
        return same([left.real, left.imag], [right.real, right.imag])
    if kind in (range, slice):
        return same([left.start, left.stop, left.step], [right.start, right.stop, right.step])
    if kind is Decimal:
        return bool(left.as_tuple() == right.as_tuple())
    if kind in (time, datetime):
        fields = left.replace(tzinfo=None) == right.replace(tzinfo=None)
        return fields and left.fold == right.fold and same(left.tzinfo, right.tzinfo)
    if kind is timezone:
        return repr(left) == repr(right)
    if kind is ZoneInfo:
        return left is right
    if kind is uuid.UUID:
        return left == right and left.is_safe is right.is_safe
    return bool(left == right)


def assert_round_trip(value: Any, serializer: Serializer = PLAIN) -> None:
    data = serializer.dumps(value)
    assert type(data) is bytes
    for buffer in (data, memoryview(data), bytearray(data)):
        assert same(serializer.loads(buffer), value), (serializer.loads(buffer), value)


# ---------------------------------------------------------------------------------------------------- properties


@relaxed
@given(VALUES)
def test_round_trip(value: Any) -> None:
    """Every value of the built-in types comes back with its types, without any pickle."""
    assert_round_trip(value)
    assert DEFAULT.dumps(value) == PLAIN.dumps(value)
    assert DEFAULT.dumps(value)[0] != 0xC1


@relaxed
@given(VALUES)
def test_any_messagepack_library_can_read_it(value: Any) -> None:
    """What is written is MessagePack: a reader that knows no extension decodes it as a whole."""
    msgpack.unpackb(PLAIN.dumps(value), strict_map_key=False, object_pairs_hook=list)


@relaxed
@given(VALUES)
def test_encoding_is_deterministic(value: Any) -> None:
    """One value encodes to the same bytes every time."""
    assert PLAIN.dumps(value) == PLAIN.dumps(value)


@relaxed
@given(st.binary(max_size=60))
def test_hostile_bytes(data: bytes) -> None:
    """Any bytes decode to a value or raise DecodeError."""
    for serializer in (PLAIN, JSON):
        try:
            value = serializer.loads(data)
        except DecodeError:
            continue
        assert "_Marker" not in repr(value)


@relaxed
@given(VALUES, st.data())
def test_mutated_encodings(value: Any, data: st.DataObject) -> None:
    """An encoding with bytes changed, cut off or added decodes to a value or raises DecodeError."""
    mutated = bytearray(PLAIN.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(mutated)))
        stop = data.draw(st.integers(start, min(len(mutated), start + 3)))
        mutated[start:stop] = data.draw(st.binary(max_size=3))
    test_hostile_bytes.hypothesis.inner_test(bytes(mutated))  # type: ignore[attr-defined]


@relaxed
@given(JSON_VALUES)
def test_json_round_trip(value: Any) -> None:
    """Every value of JSON's types comes back with its types."""
    assert_round_trip(value, JSON)
    json.loads(JSON.dumps(value))


@relaxed
@given(VALUES)
def test_json_changes_nothing(value: Any) -> None:
    """A value that JSON would change is refused."""
    try:
        data = JSON.dumps(value)
    except UnsupportedValueError:
        return
    assert same(JSON.loads(data), value)


# ---------------------------------------------------------------------------------------------------- MessagePack


def test_copies_are_fresh() -> None:
    """Neither a later change of what was set nor of what was returned changes the value."""
    value: dict[str, list[Any]] = {"rows": [[1], {2}, bytearray(b"3")]}
    data = DEFAULT.dumps(value)
    value["rows"].append([])
    DEFAULT.loads(data)["rows"].clear()
    assert same(DEFAULT.loads(data), {"rows": [[1], {2}, bytearray(b"3")]})


@pytest.mark.parametrize("length", [0, 1, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize("unit", ["a", "é", "€", "😀"])
def test_str_sizes(length: int, unit: str) -> None:
    """A str of any size is written as MessagePack's own str, in the shortest form."""
    value = unit * length
    assert PLAIN.dumps(value) == msgpack.packb(value)
    assert_round_trip(value)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535, 65536])
def test_bytes_sizes(length: int) -> None:
    """Bytes of any size are written as MessagePack's own bin, bytearray is told apart."""
    assert PLAIN.dumps(bytes(length)) == msgpack.packb(bytes(length))
    assert_round_trip(bytes(length))
    assert_round_trip([bytearray(length), {"a": bytearray(length)}, (bytearray(length),)])


def test_documented_bytes() -> None:
    """The documented forms, byte for byte: other languages write them too."""
    forms: list[tuple[Any, str]] = [
        (None, "c0"),
        ((1, "a"), "93 c70001 01 a161"),
        ({5}, "92 c70002 05"),
        (frozenset([5]), "92 c70003 05"),
        (range(1, 7, 2), "94 c70004 01 07 02"),
        (slice(None, 3), "94 c70005 c0 03 c0"),
        (Fraction(1, 3), "93 c70006 01 03"),
        (2**64, "c7 09 10 010000000000000000"),
        (-(2**63) - 1, "c7 09 10 ff7fffffffffffffff"),
        (1j, "d8 11 0000000000000000 3ff0000000000000"),
        ("\ud800", "c7 03 12 eda080"),
        (bytearray(b"x"), "d4 13 78"),
        (Decimal("1.00"), "d6 14 312e3030"),
        (date(2024, 2, 3), "d6 15 07e8 02 03"),
        (time(1, 2, 3, 4, fold=1), "d7 16 01 02 03 00000004 01"),
        (datetime(2024, 2, 3, 4, 5, 6, 7), "c7 0c 17 07e8 02 03 04 05 06 00000007 00"),
        (datetime(2024, 2, 3, tzinfo=timezone.utc), "c7 15 17 07e8 02 03 00 00 00 00000000 00 00 0000000000000000"),
        (timedelta(-1, 2, 3), "c7 0c 18 ffffffff 00000002 00000003"),
        (timezone(timedelta(seconds=1), "x"), "c7 0a 19 01 00000000000f4240 78"),
        (ZoneInfo("UTC"), "d6 19 02 555443"),
        (uuid.UUID(int=1), "d8 1a 00000000000000000000000000000001"),
        (PurePosixPath("a"), "d4 1b 61"),
        (PureWindowsPath("a"), "d4 1c 61"),
        (..., "d4 1f 00"),
    ]
    for value, expected in forms:
        assert PLAIN.dumps(value).hex() == expected.replace(" ", "")
        assert_round_trip(value)


def test_float_specials() -> None:
    """NaN, the infinities and the sign of zero come back."""
    for value in (math.nan, math.inf, -math.inf, -0.0, [0.0, -0.0], complex(-0.0, math.nan)):
        assert_round_trip(value)


def test_decimals_are_exact() -> None:
    """A Decimal keeps its trailing zeros, sign, exponent, and which NaN it is."""
    for text in ("1.00", "-0", "0E-7", "1E+999999", "NaN", "-NaN12", "sNaN", "Infinity", "1." + "3" * 500):
        assert_round_trip(Decimal(text))


def test_dict_keys_and_order() -> None:
    """A dict may have keys of any type, and keeps its order."""
    assert_round_trip(
        {3: 1, "b": 2, None: 3, (1, ("x",)): 4, 1.5: 5, b"a": 6, frozenset([1]): 7, "a": 8, Decimal(9): 9}
    )


def test_forms_of_equal_keys_do_not_meet() -> None:
    """Keys that are written as extensions are not taken for tuples that look like one."""
    assert_round_trip({"\udc00": 1, (18, b"\xed\xb0\x80"): 2, ("\udc00",): 3, (msgpack_like := (1, b"")): 4, ((),): 5})
    assert msgpack_like == (1, b"")


def test_ranges_and_slices_of_anything() -> None:
    """Ranges of huge integers and slices of nested values come back."""
    assert_round_trip([range(10**30, -(10**30), -(10**29)), slice((1, [2]), {"a": slice(None)}, bytearray(b"x"))])


def test_times_keep_zone_and_fold() -> None:
    """Dates and times keep their zone object, its name and the fold."""
    for zone in (None, timezone.utc, timezone(timedelta(0), ""), timezone(timedelta(0), "UTC"), NAMED_OFFSET, BERLIN):
        assert_round_trip(datetime(2024, 10, 27, 2, 30, 0, 1, tzinfo=zone, fold=1))
        assert_round_trip(time(2, 30, tzinfo=zone, fold=1))
    assert PLAIN.loads(PLAIN.dumps(timezone.utc)) is timezone.utc


def test_uuid_keeps_is_safe() -> None:
    """A UUID keeps whether it was generated in a multiprocessing-safe way."""
    for safety in uuid.SafeUUID:
        assert_round_trip(uuid.UUID(int=7, is_safe=safety))


def test_concrete_paths() -> None:
    """A path comes back as the concrete class that it was."""
    assert_round_trip([Path("a/b"), Path(), PurePosixPath("//a"), PurePosixPath("x\udcff"), PureWindowsPath("C:/Ab")])


@pytest.mark.parametrize("text", ["//.//", "//.///", "//.//a", "./c:a", "./c:/a"])
def test_paths_with_the_text_of_another(text: str) -> None:
    """A path whose text pathlib reads as another path is pickled instead; Python's version says which."""
    path = PureWindowsPath(text)
    assert (DEFAULT.dumps(path)[0] != 0xC1) == has_own_text(path)


def test_first_byte_of_no_value_is_the_pickle_mark() -> None:
    """The byte 0xC1 begins pickles and nothing else."""
    assert DEFAULT.dumps(OrderedDict(a=1))[0] == 0xC1
    others: list[Any] = [None, 1, "x" * 200, b"", [], {}, (), {1}, Decimal(1)]
    for value in others:
        assert DEFAULT.dumps(value)[0] != 0xC1


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict([("b", 1), ("a", 2)]),
        Point(1, (2,)),
        Color.RED,
        Word("x"),
        [1, {"k": Word("x")}],
        {Word("k"): 1},
        (Color.RED, {"a": [Point(1, 2)]}),
        True.__class__,
        msgpack.Timestamp(1, 2),
        msgpack.ExtType(1, b""),
        [msgpack.ExtType(20, b"1")],
        {msgpack.ExtType(1, b""): 1},
    ],
    ids=repr,
)
def test_other_types_are_pickled(value: Any) -> None:
    """Subclasses and other classes come back through a pickle of the whole value; without pickle they are refused."""
    data = DEFAULT.dumps(value)
    assert data[0] == 0xC1
    loaded = DEFAULT.loads(data)
    assert loaded == value
    assert type(loaded) is type(value)
    assert repr(loaded) == repr(value)
    with pytest.raises(UnsupportedValueError, match="MessagePack has no form"):
        PLAIN.dumps(value)


def test_dataclasses_are_pickled() -> None:
    """An object of one's own comes back as a fresh copy."""
    value = Item("a", [1, (2,)])
    loaded = DEFAULT.loads(DEFAULT.dumps(value))
    assert loaded == value
    assert loaded is not value


def test_cycles_are_pickled() -> None:
    """A value that contains itself comes back so."""
    value: list[Any] = [1]
    value.append(value)
    loaded = DEFAULT.loads(DEFAULT.dumps(value))
    assert loaded[1] is loaded
    cyclic: dict[str, Any] = {}
    cyclic["self"] = (cyclic,)
    loaded = DEFAULT.loads(DEFAULT.dumps(cyclic))
    assert loaded["self"][0] is loaded
    for endless in (value, cyclic):
        with pytest.raises(UnsupportedValueError, match="containers in each other"):
            PLAIN.dumps(endless)


def dict_of(items: Sequence[Any] = ()) -> dict[int, Any]:
    return dict(enumerate(items))


def nested(depth: int, wrap: Any) -> Any:
    value = wrap()
    for _ in range(depth - 1):
        value = wrap([value])
    return value


@pytest.mark.parametrize("wrap", [list, tuple, dict_of])
def test_depth(wrap: Any) -> None:
    """The limit of depth is exact: at it a value is MessagePack, beyond it a pickle."""
    at_limit = nested(MAX_VALUE_DEPTH, wrap)
    assert PLAIN.loads(PLAIN.dumps(at_limit)) == at_limit
    deeper = nested(MAX_VALUE_DEPTH + 1, wrap)
    assert DEFAULT.dumps(deeper)[0] == 0xC1
    assert DEFAULT.loads(DEFAULT.dumps(deeper)) == deeper
    with pytest.raises(UnsupportedValueError, match="containers in each other"):
        PLAIN.dumps(deeper)


def test_endless_depth() -> None:
    """A value too deep for pickle as well is refused, and nothing crashes."""
    value: Any = []
    for _ in range(200_000):
        value = [value]
    with pytest.raises(UnsupportedValueError) as caught:
        DEFAULT.dumps(value)
    assert isinstance(caught.value.__cause__, RecursionError)
    while value:  # freed in a loop, and not by as deep a recursion
        (value,) = value


@pytest.mark.parametrize(
    "value", [lambda: 1, Unpicklable(), [1, {"a": Unpicklable()}], (number for number in range(3)), memoryview(b"")]
)
@pytest.mark.parametrize("serializer", [DEFAULT, PICKLE])
def test_unpicklable_values(value: Any, serializer: Serializer) -> None:
    """A value without any form is refused with its type and a remedy, from the original exception."""
    with pytest.raises(
        TypeError, match=f"type {type(value).__qualname__} cannot be pickled.*convert it to data"
    ) as caught:
        serializer.dumps(value)
    assert isinstance(caught.value, UnsupportedValueError)
    assert caught.value.__cause__ is not None


def test_a_failure_leaves_nothing_behind() -> None:
    """After a value that cannot be encoded half-way, the next one is encoded as ever."""
    expected = PLAIN.dumps({"a": (1,)})
    for _ in range(20):
        with pytest.raises(UnsupportedValueError):
            PLAIN.dumps([1, 2, time(1, tzinfo=ForeignZone())])
        assert PLAIN.dumps({"a": (1,)}) == expected


class ForeignZone(NamelessZone):
    """A zone of one's own."""

    def __eq__(self, other: object) -> bool:
        return type(other) is ForeignZone

    __hash__ = None  # type: ignore[assignment]


def test_foreign_zones_are_pickled() -> None:
    """A datetime in a zone that the time zone database does not give is pickled with its zone."""
    value = [datetime(2024, 1, 1, tzinfo=ForeignZone())]
    assert DEFAULT.dumps(value)[0] == 0xC1
    assert DEFAULT.loads(DEFAULT.dumps(value))[0].tzinfo == ForeignZone()
    private = ZoneInfo.no_cache("Europe/Berlin")
    assert DEFAULT.dumps(private)[0] == 0xC1


def test_threads_share_nothing() -> None:
    """Threads that encode at the same time get each their own bytes."""
    wrong: list[Any] = []

    def work(number: int) -> None:
        value = {"n": number, "t": [(number, str(number))] * 20}
        wrong.extend(value for _ in range(200) if PLAIN.loads(PLAIN.dumps(value)) != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_encoding_within_encoding() -> None:
    """An encoding that begins while another is under way, in a finalizer say, does not disturb it."""
    inner: list[bytes] = []

    class Reentrant(NamelessZone):
        def __reduce__(self) -> Any:
            inner.append(DEFAULT.dumps({"inner": (1, 2)}))
            return timezone, (timedelta(0),)

    data = DEFAULT.dumps([(1,), datetime(2024, 1, 1, tzinfo=Reentrant())])
    assert DEFAULT.loads(data) == [(1,), datetime(2024, 1, 1, tzinfo=timezone.utc)]
    assert DEFAULT.loads(inner[0]) == {"inner": (1, 2)}


def test_large_values() -> None:
    """A value of some megabytes comes back, and the next small one too."""
    assert_round_trip(["x" * 3_000_000, b"y" * 3_000_000, list(range(100_000))])
    assert_round_trip({"a": 1})


def test_pure_python_msgpack() -> None:
    """The bytes are the same with the pure-Python form of msgpack, which interpreters without the C one have."""
    script = (
        "from moka_wasm._values import resolve_serializer\n"
        "from decimal import Decimal\n"
        "s = resolve_serializer('msgpack')\n"
        "value = [1, 2**70, ('a', {(1,): {2}}, bytearray(b'x')), 1.5, None, Decimal('1.0'), '\\ud800']\n"
        "deep = ()\n"
        "for _ in range(150): deep = (deep,)\n"
        "assert s.loads(s.dumps(value)) == value\n"
        "assert s.loads(s.dumps(deep)) == deep\n"
        "print(s.dumps(value).hex())\n"
    )

    def run(**environment: str) -> str:
        environment["PYTHONPATH"] = ":".join(filter(None, sys.path))
        return subprocess.run(
            [sys.executable, "-c", script], check=True, env=environment, capture_output=True, text=True
        ).stdout

    assert run(MSGPACK_PUREPYTHON="1") == run()


# ---------------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    "data",
    [
        "",
        "a3 61",
        "d9 05 61",
        "a1 ff",
        "c0 c0",
        "a1 61 61",
        "dd ffffffff",
        "df ffffffff",
        "db ffffffff",
        "c6 ffffffff",
        "c9 ffffffff 01",
        "81 90 01",
        "81 80 01",
        "c7 00 01",
        "92 01 c7 00 01",
        "81 c7 00 01 01",
        "92 c7 00 01 c7 00 02",
        "92 c7 00 02 90",
        "91 c7 00 03 c7 00 03",
        "91 c7 00 04",
        "94 c7 00 04 01 02 00",
        "94 c7 00 04 01 02 a1 61",
        "93 c7 00 06 01 00",
        "93 c7 00 06 01 a1 61",
        "91 c7 00 07",
        "c7 00 10",
        "d4 01 00",
        "d4 11 00",
        "d4 14 ff",
        "c7 03 14 616263",
        "d6 15 07e8 0d 01",
        "d6 15 0000 01 01",
        "c7 0d 17 07e8 02 03 04 05 06 00000007 00 03",
        "c7 0d 17 07e8 02 03 04 05 06 00000007 00 00",
        "c7 0c 17 07e8 02 03 04 05 06 00000007 02",
        "c7 0c 18 7fffffff 00000002 00000003",
        "c7 09 19 00 7fffffffffffffff",
        "d4 1a 00",
        "c7 11 1a 00000000000000000000000000000001 05",
        "d4 1f 01",
        "d4 7f 00",
        "d4 80 00",
        "d6 ff 00",
        "d4 ff 00",
        "c1",
        "91 c1",
    ],
)
def test_damaged_encodings(data: str) -> None:
    """Wrong lengths, payloads, keys and markers raise DecodeError, as does what follows a whole value."""
    with pytest.raises(DecodeError):
        PLAIN.loads(bytes.fromhex(data))


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xc0", b"\x92\xc7\x00\x01", b"\x81"])
def test_hostile_depth(head: bytes) -> None:
    """Containers in each other without end raise DecodeError."""
    for end in (b"", b"\xc0"):
        with pytest.raises(DecodeError):
            PLAIN.loads(head * 100_000 + end)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "Europe/../../x", "Europe", "No/Where", "a.b", ""])
def test_hostile_zone_names(name: str) -> None:
    """A zone's name that leaves the time zone database, or is not in it, raises DecodeError."""
    payload = b"\x02" + name.encode()
    with pytest.raises(DecodeError):
        PLAIN.loads(b"\xc7" + bytes((len(payload), 0x19)) + payload)


class Armed:
    """An object whose pickle runs code when it is loaded."""

    loaded = 0

    def __reduce__(self) -> Any:
        return Armed.fire, ()

    @staticmethod
    def fire() -> None:
        Armed.loaded += 1


def test_pickles_are_not_loaded_without_leave() -> None:
    """The serializer "msgpack" refuses a pickle and runs nothing of it."""
    data = DEFAULT.dumps(Armed())
    before = Armed.loaded
    with pytest.raises(DecodeError, match="pickle"):
        PLAIN.loads(data)
    assert Armed.loaded == before


def test_pickles_that_cannot_be_loaded() -> None:
    """A damaged pickle, or one whose classes are gone, raises DecodeError."""
    for serializer, prefix in ((DEFAULT, b"\xc1"), (PICKLE, b"")):
        for data in (b"", b"garbage", pickle.dumps(Item("a", []))[:-3], b"cno_such_module\nx\n."):
            with pytest.raises(DecodeError):
                serializer.loads(prefix + data)


def test_timestamps_of_other_writers() -> None:
    """A timestamp of MessagePack's own, which is never written here, is read as a datetime in UTC."""
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert PLAIN.loads(msgpack.packb(moment, datetime=True)) == moment


# ---------------------------------------------------------------------------------------------------- the others


NOT_JSON: list[Any] = [
    (),
    [(1,)],
    {1: 2},
    {"a": {None: 1}},
    math.nan,
    [math.inf],
    b"x",
    {1},
    "\ud800",
    "\ud83d\ude00",
    Word("x"),
    {Word("k"): 1},
    Color.RED,
    OrderedDict(),
    Decimal(1),
    datetime(2024, 1, 1),
]


@pytest.mark.parametrize("value", NOT_JSON, ids=ascii)
def test_json_refuses(value: Any) -> None:
    """What JSON would silently change, and what is no JSON, is refused."""
    with pytest.raises(UnsupportedValueError):
        JSON.dumps(value)


def test_json_refuses_endless_values() -> None:
    """A value that contains itself is refused by JSON."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UnsupportedValueError, match="flatten"):
        JSON.dumps(value)


@pytest.mark.parametrize(
    "data", [b"", b"NaN", b"[1,]", b"1 2", b"\xff", b"[Infinity]", b"[" * 100_000, b"\xef\xbb\xbf1"]
)
def test_json_refuses_bytes(data: bytes) -> None:
    """Bytes that are no strict JSON raise DecodeError."""
    with pytest.raises(DecodeError):
        JSON.loads(data)


def test_json_is_compact_text() -> None:
    """JSON is written without spaces and in UTF-8."""
    assert JSON.dumps({"é": [1, None, 1.5]}) == '{"é":[1,null,1.5]}'.encode()


@pytest.mark.parametrize("value", ["x", bytearray(b"x"), memoryview(b"x"), None, type("Sub", (bytes,), {})(b"x")])
def test_bytes_refuses(value: Any) -> None:
    """The serializer "bytes" takes exactly bytes."""
    with pytest.raises(UnsupportedValueError, match="takes bytes, not"):
        BYTES.dumps(value)


def test_bytes_are_stored_as_they_are() -> None:
    """The serializer "bytes" adds nothing."""
    assert BYTES.dumps(b"\xc1x") == b"\xc1x"
    assert_round_trip(b"\xc1x", BYTES)


def test_pickle_serializer() -> None:
    """The serializer "pickle" pickles everything, and nothing else."""
    assert pickle.loads(PICKLE.dumps(1)) == 1
    assert PICKLE.loads(memoryview(PICKLE.dumps(Item("a", [1])))) == Item("a", [1])


def test_resolving_names() -> None:
    """Every name gives one serializer, and a serializer of this package is taken as it is."""
    for spec in (None, "msgpack", "json", "bytes", "pickle"):
        serializer = resolve_serializer(spec)
        assert isinstance(serializer, Serializer)
        assert resolve_serializer(spec) is serializer
        assert resolve_serializer(serializer) is serializer


@pytest.mark.parametrize("spec", ["yaml", "", b"json", 5, object(), [], dict, PurePath("json")])
def test_resolving_something_else(spec: object) -> None:
    """Anything else is a ConfigError, which is a ValueError, with the argument, what was got, and the remedy."""
    with pytest.raises(ValueError, match=r"serializer is .*pass None, 'msgpack', .*dumps and loads") as caught:
        resolve_serializer(spec)
    assert isinstance(caught.value, ConfigError)


def test_custom_serializers() -> None:
    """Any object with dumps and loads is a serializer: a module, for example."""
    serializer = resolve_serializer(pickle)
    assert serializer.loads(memoryview(serializer.dumps({1}))) == {1}


def test_custom_serializers_must_return_bytes() -> None:
    """A serializer whose dumps returns no bytes is found out on the first value."""
    with pytest.raises(UnsupportedValueError, match=r"returned str.*must return bytes"):
        resolve_serializer(json).dumps({})


def test_exceptions_of_custom_serializers() -> None:
    """Exceptions of a caller's own serializer reach the caller as they are."""

    class Failing:
        def dumps(self, value: object) -> bytes:
            raise KeyError(value)

        def loads(self, data: bytes) -> object:
            raise ZeroDivisionError

    serializer = resolve_serializer(Failing())
    with pytest.raises(KeyError):
        serializer.dumps(1)
    with pytest.raises(ZeroDivisionError):
        serializer.loads(b"")
