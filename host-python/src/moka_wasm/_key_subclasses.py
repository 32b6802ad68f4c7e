"""Subclasses of the built-in types among the keys: which of them equal instances of the base, and which instances."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

from ._errors import UnsupportedKeyError


def inherits_equality(kind: type, equality_of: type, hash_of: type) -> bool:
    """Whether *kind* has the very ``__eq__`` of one class and the very ``__hash__`` of another."""
    # Through Any: to a type checker, methods of different classes are never the same object.
    subject: Any = kind
    return subject.__eq__ is equality_of.__eq__ and subject.__hash__ is hash_of.__hash__


def base_with_its_equality(kind: type) -> tuple[type, Callable[[Any], Any]]:
    """The built-in type that *kind* has its equality and hash from, and how to make an instance of it.

    Raises:
        UnsupportedKeyError: *kind* is unhashable, or has an equality of its own.
    """
    for base, plain in _PLAIN.items():
        # Their equality and hash, not only their class: datetime is a date but compares in its own way.
        if issubclass(kind, base) and inherits_equality(kind, base, base):
            return base, plain
    if kind.__hash__ is None:
        raise UnsupportedKeyError(f"unhashable type: {kind.__name__!r}")
    raise UnsupportedKeyError(
        f"unsupported key type: {kind.__module__}.{kind.__qualname__}; keys are compared as bytes, and which instances "
        "of this type are equal is not known: pass a tuple of built-in values, or a key= function that makes one"
    )


# How to make an exact instance from one of a subclass. Where the subclass may well have changed what the instance says
# of itself (str and int of an Enum, say), a method of the base class is called.
def _plain_date(key: date) -> date:
    return date.fromordinal(date.toordinal(key))


_TUPLE: Any = tuple
_FROZENSET: Any = frozenset


def _plain_tuple(key: tuple[Any, ...]) -> tuple[Any, ...]:
    items: tuple[Any, ...] = _TUPLE.__getitem__(key, slice(None))
    return items


def _plain_frozenset(key: frozenset[Any]) -> frozenset[Any]:
    return frozenset(_FROZENSET.__iter__(key))


def _plain_datetime(key: datetime) -> datetime:
    return datetime.combine(datetime.date(key), datetime.timetz(key))


_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    bytes: lambda key: bytes.__getitem__(key, slice(None)),
    tuple: _plain_tuple,
    frozenset: _plain_frozenset,
    Decimal: Decimal,
    Fraction: Fraction,
    datetime: _plain_datetime,
    date: _plain_date,
    time: lambda key: time(key.hour, key.minute, key.second, key.microsecond, key.tzinfo),
    timedelta: timedelta.__pos__,
    UUID: lambda key: UUID(int=key.int),
    PurePosixPath: lambda key: PurePosixPath(PurePath.__str__(key)),
    PureWindowsPath: lambda key: PureWindowsPath(PurePath.__str__(key)),
}
