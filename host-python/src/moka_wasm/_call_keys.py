"""From a call's arguments to a cache key.

A key is made of what the cache can encode canonically. Arguments that cannot be keys (lists, dicts, sets) are frozen
into tuples that say which kind they were, so that ``[1]`` and ``(1,)`` stay apart while the order of a dict's or a
set's members does not matter.

There are two shapes, which cannot be mistaken for each other, as the first begins with no tuple:

* few plain arguments, the common case: the tuple of them;
* everything else: ``((positional...), ((name, keyword)...), (types...))``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
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
    if not kwargs and _PLAIN.issuperset(map(type, args)):
        return args
    return (tuple(map(freeze, args)), _frozen_keywords(kwargs), ())


def typed_call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallKey:
    """Answer ``typedkey(*args, **kwargs)`` without packing the arguments again."""
    types = [type(value) for value in args]
    types += [type(kwargs[name]) for name in sorted(kwargs)]
    return (tuple(map(freeze, args)), _frozen_keywords(kwargs), tuple(map(freeze, types)))


def key_maker(typed: bool, key: Callable[..., Hashable] | None) -> Callable[[tuple[Any, ...], dict[str, Any]], Hashable]:
    """Answer the function that makes keys as the decorators' ``typed`` and ``key`` say."""
    if key is None:
        return typed_call_key if typed else call_key
    chosen = key
    return lambda args, kwargs: chosen(*args, **kwargs)


def freeze(value: Any) -> Hashable:
    """Answer something to be part of a key in place of ``value``: equal for equal values of one kind, and only then.

    Anything that is no container is answered as it is; the cache says whether it can be part of a key.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, tuple):
        return ("tuple", *map(freeze, value))
    if isinstance(value, list):
        return ("list", *map(freeze, value))
    if isinstance(value, dict):
        return ("dict", frozenset((freeze(name), freeze(item)) for name, item in value.items()))
    if isinstance(value, set):
        return ("set", frozenset(map(freeze, value)))
    if isinstance(value, frozenset):
        return ("frozenset", frozenset(map(freeze, value)))
    if isinstance(value, bytearray):
        return ("bytearray", bytes(value))
    if isinstance(value, type):
        return ("type", value.__module__, value.__qualname__, _number_of_class(value))
    return value  # type: ignore[no-any-return]


def _frozen_keywords(kwargs: dict[str, Any]) -> tuple[Hashable, ...]:
    return tuple((name, freeze(kwargs[name])) for name in sorted(kwargs))


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
