"""Values as MessagePack, with extension types for Python's own.

A value comes back equal and of exactly the same types, at any depth. What MessagePack has itself (nil, bool, integers
of 64 bits, float 64, str, bin, array for ``list``, map for ``dict`` with any keys in their order) is written in its
shortest form. The rest are these extensions; all numbers in them are big-endian, "integer" is the shortest two's
complement of at least one byte, and "text" is UTF-8 where each lone surrogate is encoded like any other code point of
its size:

==== ================== ============================================================================================
code type               payload, or for the typed arrays (codes below 16) what follows the marker in the array
==== ================== ============================================================================================
1    tuple              the items
2    set                the items, in the order of iteration
3    frozenset          the items, in the order of iteration
4    range              start, stop, step
5    slice              start, stop, step
6    Fraction           numerator, denominator
16   int                integer, outside of -2**63 to 2**64 - 1
17   complex            two doubles: real, imaginary
18   str                text with at least one lone surrogate
19   bytearray          the bytes
20   Decimal            its str(), ASCII
21   date               year u16, month u8, day u8
22   time               hour u8, minute u8, second u8, microsecond u32, fold u8, time zone
23   datetime           year u16, month u8, day u8, hour u8, minute u8, second u8, microsecond u32, fold u8, time zone
24   timedelta          days i32, seconds u32, microseconds u32
25   timezone, ZoneInfo time zone
26   UUID               16 bytes; then, unless is_safe is unknown, its value as i8
27   PurePosixPath      text
28   PureWindowsPath    text
29   PosixPath          text
30   WindowsPath        text
31   Ellipsis           one zero byte
==== ================== ============================================================================================

A time zone is nothing (naive), or 0 and the UTC offset in microseconds (i64), or 1 and the offset and the zone's own
name (text), or 2 and the name in the time zone database. A typed array is a MessagePack array whose first item is the
extension of its code with an empty payload (ext 8: ``C7 00 code``), so ``(1, "a")`` is ``93 C7 00 01 01 A1 61``.

Whatever else there is (subclasses, an Enum, a dataclass, an object that contains itself, more than `MAX_VALUE_DEPTH`
levels) makes the whole value a pickle behind the byte 0xC1, which MessagePack never uses: every value that does not
begin with it can be read by any MessagePack library. An object that a value refers to in two places is written twice.

The timestamp of MessagePack's own specification (code -1) is never written; it is read as an aware datetime in UTC.
"""

from __future__ import annotations

import pickle
from itertools import chain
from typing import Any

from . import _ext_types as ext
from ._errors import DecodeError, UnsupportedValueError
from ._key_format import type_of

__all__ = ["MAX_VALUE_DEPTH", "PICKLE_PROTOCOL", "MessagePackSerializer", "pickle_value"]

MAX_VALUE_DEPTH = 200
"""How many containers may lie in each other; msgpack itself stops at 511, and its pure-Python form earlier."""

PICKLE_PROTOCOL = 5

_PICKLED = b"\xc1"
# A packer keeps its buffer; one that grew beyond this for a large value is not kept.
_MAX_KEPT_BUFFER = 1 << 20
_MAX_KEPT_PACKERS = 16

# Exact types that the packer writes as what they are. It would also write bytearray, memoryview, its own ExtType and
# Timestamp, and whatever a later version learns, which would come back as something else: hence a list of what is
# allowed, not of what is refused.
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_STR_HEADS = [bytes((0xA0 + n,)) if n < 32 else bytes((0xD9, n)) for n in range(256)]

# Packers that nobody uses now. list.pop and list.append are atomic, and a packer is never used by two at once: not by
# two threads, and not by a finalizer that interrupts dumps and uses a cache itself.
_packers: list[Any] = []


class MessagePackSerializer:
    """MessagePack with the extension types of this module.

    Args:
        pickle_fallback: Whether values that have no MessagePack form are pickled. Without it they are refused, and so
            is any pickle on loading: bytes of unknown origin cannot execute anything.
    """

    __slots__ = ("_pickle_fallback",)

    def __init__(self, *, pickle_fallback: bool) -> None:
        self._pickle_fallback = pickle_fallback

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pickle_fallback={self._pickle_fallback})"

    def dumps(self, value: Any) -> bytes:
        """Encode a value.

        Raises:
            UnsupportedValueError: *value*, or something inside of it, cannot be encoded.
        """
        kind = type_of(value)
        if kind is str:
            try:
                raw: bytes = value.encode()
            except UnicodeEncodeError:
                return _pack(value)
            if len(raw) < 256:
                return _STR_HEADS[len(raw)] + raw
        try:
            return _pack(value)
        except ext.InexpressibleError as error:
            if self._pickle_fallback:
                return _PICKLED + pickle_value(value)
            raise UnsupportedValueError(
                f"a value of type {kind.__qualname__} cannot be encoded: it is or contains {error}, for which "
                "MessagePack has no form; convert it to built-in types, or use the default serializer, which pickles it"
            ) from None

    def loads(self, data: bytes | bytearray | memoryview) -> Any:
        """Decode what `dumps` gave.

        Raises:
            DecodeError: *data* is not one whole encoding, or is a pickle where none is allowed.
        """
        try:
            head = data[0]
            # The two heads of a short str. A str of other bytes, and a str with more after it, go to unpackb.
            if 0xA0 <= head <= 0xBF and len(data) == head - 0x9F:
                return str(data[1:], "utf-8")
            if head == 0xD9 and len(data) == data[1] + 2:
                return str(data[2:], "utf-8")
            if head == 0xC1:
                return self._loads_pickle(data)
            return _unpack(data)
        except DecodeError:
            raise
        except Exception as error:
            # Hostile bytes can reach any error of msgpack and of the constructors in _ext_types, and a pickle can raise
            # whatever its classes raise; all of them mean the same.
            raise DecodeError(f"not an encoded value: {error}") from error

    def _loads_pickle(self, data: bytes | bytearray | memoryview) -> Any:
        if not self._pickle_fallback:
            raise DecodeError("the value is a pickle, which this serializer does not load")
        return pickle.loads(memoryview(data)[1:])


def pickle_value(value: Any) -> bytes:
    """Pickle a value.

    Raises:
        UnsupportedValueError: It cannot be pickled. The cause is the original exception.
    """
    try:
        return pickle.dumps(value, PICKLE_PROTOCOL)
    except Exception as error:
        # __reduce__ and __getstate__ are the classes' own and raise what they like.
        raise UnsupportedValueError(
            f"a value of type {type(value).__qualname__} cannot be pickled ({error}); a cache keeps copies, so convert "
            "it to data, or pass a serializer for it"
        ) from error


def _pack(value: Any) -> bytes:
    try:
        if type(value) not in _SCALARS and _needs_rewriting(value, 0):
            value = _rewrite(value)
        try:
            return _pack_natively(value)
        except UnicodeEncodeError:
            return _pack_natively(_rewrite(value))
    except RecursionError:
        raise ext.InexpressibleError("containers nested too deeply") from None
    except ValueError as error:
        # The packer's limits: no str, bytes or container of 4 GiB or more.
        raise ext.InexpressibleError(str(error)) from None


def _pack_natively(value: Any) -> bytes:
    try:
        packer = _packers.pop()
    except IndexError:
        packer = ext.Packer(strict_types=True, default=_default, buf_size=4096)
    data: bytes = packer.pack(value)
    if len(data) <= _MAX_KEPT_BUFFER and len(_packers) < _MAX_KEPT_PACKERS:
        _packers.append(packer)
    return data


def _needs_rewriting(value: Any, depth: int) -> bool:
    """Check that every type inside of *value* has a form, and say whether the packer would take one for another.

    Raises:
        InexpressibleError: A type has no form, or containers are nested too deeply (they may contain themselves).
    """
    kind = type_of(value)
    if kind in ext.LEAF_TYPES:
        return kind is bytearray
    if depth >= MAX_VALUE_DEPTH:
        raise ext.InexpressibleError(f"more than {MAX_VALUE_DEPTH} containers in each other")
    if kind is dict:
        if _SCALARS.issuperset(map(type, value.values())) and _SCALARS.issuperset(map(type, value)):
            return False
        items = chain(value, value.values())
    elif kind is list:
        if _SCALARS.issuperset(map(type, value)):
            return False
        items = value
    elif kind in ext.ARRAY_TYPES:
        items = ext.array_items(value)
    else:
        raise ext.InexpressibleError(f"{kind.__module__}.{kind.__qualname__}")
    found = False
    for item in items:
        if type(item) not in _SCALARS and _needs_rewriting(item, depth + 1):
            found = True
    return found


class _Form:
    """A finished MessagePack form in place of a value; hashable, so that it can stand for a key too."""

    __slots__ = ("form",)

    def __init__(self, form: Any) -> None:
        self.form = form


def _rewrite(value: Any) -> Any:
    """*value* with a `_Form` for each bytearray, and for each str with lone surrogates.

    The packer would write the first as bytes and refuse the second without asking.
    """
    kind = type_of(value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return _Form(ext.encode_extension(value))
        return value
    if kind is bytearray:
        return _Form(ext.encode_extension(value))
    if kind is list:
        return [_rewrite(item) for item in value]
    if kind is dict:
        return {_rewrite(key): _rewrite(item) for key, item in value.items()}
    if kind in ext.ARRAY_TYPES:
        marker, *items = ext.encode_extension(value)
        return _Form([marker, *map(_rewrite, items)])
    return value


def _default(value: Any) -> Any:
    """What the packer asks about every value that it has no form for."""
    if type(value) is _Form:
        return value.form
    return ext.encode_extension(value)


def _unpack(data: bytes | bytearray | memoryview) -> Any:
    # Every marker is an ext 8. Where there is none, lists need no second look.
    if type(data) is bytes and 0xC7 not in data:
        return ext.unpackb(data, ext_hook=ext.decode_leaf, strict_map_key=False, timestamp=3)
    arrays = ext.TypedArrays()
    value = ext.unpackb(
        data, ext_hook=arrays.on_extension, list_hook=arrays.on_array, strict_map_key=False, timestamp=3
    )
    arrays.finish()
    return value
