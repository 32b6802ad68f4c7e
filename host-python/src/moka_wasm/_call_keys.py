"""From a call's arguments to a cache key.

A key is made of what the cache can encode canonically. Arguments that cannot be keys (lists, dicts, sets) are frozen
into tuples that say which kind they were, so that ``[1]`` and ``(1,)`` stay apart while the order of a dict's or a
set's members does not matter.

There are two shapes, which cannot be mistaken for each other, as nothing in the first is a tuple:

* plain arguments by position only, the common case: the tuple of them;
* everything else: a tuple of the keywords' names, in order; the arguments by position; those by keyword, in the order
  of their names; and with ``typed`` the types of all these.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

CallKey = tuple[Hashable, ...]

_PLAIN = frozenset({str, int, bytes, float, bool, type(None)})


def hashkey(*args: Any, **kwargs: Any) -> CallKey:
    """Answer the key of a call with these arguments; equal arguments (``3`` and ``3.0``) share one.

    As with ``functools.lru_cache``, the order of keyword arguments does not matter, and the same argument passed by
    position and by keyword may make two keys.
    """
    return call_key(args, kwargs)


def typedkey(*args: Any, **kwargs: Any) -> CallKey:
    """Answer the key of a call, keeping immediate arguments of different types (``3`` and ``3.0``) apart."""
    return typed_call_key(args, kwargs)


def methodkey(self: Any, /, *args: Any, **kwargs: Any) -> CallKey:
    """Answer the key of a method's call without ``self``, so that all instances share one entry."""
    return call_key(args, kwargs)


def typedmethodkey(self: Any, /, *args: Any, **kwargs: Any) -> CallKey:
    """Answer ``typedkey`` without ``self``, so that all instances share one entry."""
    return typed_call_key(args, kwargs)


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallKey:
    """Answer ``hashkey(*args, **kwargs)`` without packing the arguments again."""
    if not kwargs:
        if _PLAIN.issuperset(map(type, args)):
            return args
        return ((), *map(freeze, args))
    names = tuple(sorted(kwargs))
    return (names, *map(freeze, args), *[freeze(kwargs[name]) for name in names])


def typed_call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallKey:
    """Answer ``typedkey(*args, **kwargs)`` without packing the arguments again."""
    names = tuple(sorted(kwargs))
    values = (*args, *[kwargs[name] for name in names])
    return (names, *map(freeze, values), *map(freeze, map(type, values)))


def key_maker(
    typed: bool, key: Callable[..., Hashable] | None
) -> Callable[[tuple[Any, ...], dict[str, Any]], Hashable]:
    """Answer the function that makes keys as the decorators' ``typed`` and ``key`` say."""
    if key is None:
        return typed_call_key if typed else call_key
    chosen = key
    return lambda args, kwargs: chosen(*args, **kwargs)


def freeze(value: Any) -> Hashable:
    """Answer something to be part of a key in place of ``value``: equal for equal values of one kind, and only then.

    Anything that is no container is answered as it is; the cache says whether it can be part of a key.
    """
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind not in _PLAIN:
        freezer = _FREEZERS.get(kind)
        if freezer is not None:
            return freezer(value)
        for base, freezer in _FREEZERS.items():
            if isinstance(value, base):
                return freezer(value)
    plain: Hashable = value
    return plain


def _frozen_members(members: Iterable[Any]) -> frozenset[Hashable]:
    return frozenset(map(freeze, members))


# What a subclass adds to its base class is no part of the key.
_FREEZERS: dict[type[Any], Callable[[Any], CallKey]] = {
    tuple: lambda value: ("tuple", *map(freeze, value)),
    list: lambda value: ("list", *map(freeze, value)),
    dict: lambda value: ("dict", frozenset((freeze(name), freeze(item)) for name, item in value.items())),
    set: lambda value: ("set", _frozen_members(value)),
    frozenset: lambda value: ("frozenset", _frozen_members(value)),
    bytearray: lambda value: ("bytearray", bytes(value)),
    type: lambda value: ("type", value.__module__, value.__qualname__, _number_of_class(value)),
}


_class_numbers: WeakKeyDictionary[type, int] = WeakKeyDictionary()
_numbers_by_name: dict[tuple[str, str], count[int]] = {}


def _number_of_class(cls: type) -> int:
    """Tell classes of one name apart, such as those that a function defines anew in every call.

    The first class of a name gets 0 in every process, so the keys of ordinary classes are the same everywhere.
    """
    number = _class_numbers.get(cls)
    if number is None:
        numbers = _numbers_by_name.setdefault((cls.__module__, cls.__qualname__), count())
        number = _class_numbers.setdefault(cls, next(numbers))
    return number
