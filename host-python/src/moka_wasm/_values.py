"""Values as bytes: what a serializer is, and the ones that have a name.

A cache keeps its values inside of the sandbox, as bytes. What `get` returns is therefore always a fresh copy, and with
every serializer here it equals what was set and has exactly its types.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Protocol, runtime_checkable

from ._errors import ConfigError, DecodeError, UnsupportedValueError
from ._key_format import type_of
from ._msgpack import MAX_VALUE_DEPTH, MessagePackSerializer, pickle_value

__all__ = ["Serializer", "resolve_serializer"]


@runtime_checkable
class Serializer(Protocol):
    """What turns values into bytes and back."""

    def dumps(self, value: Any, /) -> bytes:
        """Encode a value."""
        ...

    def loads(self, data: Any, /) -> Any:
        """Decode what `dumps` gave. *data* is a bytes-like object."""
        ...


def resolve_serializer(spec: object = None) -> Serializer:
    """The serializer that a caller's ``serializer=`` argument means.

    Args:
        spec: One of

            * ``None``: MessagePack, and pickle for values that have no MessagePack form;
            * ``"msgpack"``: MessagePack alone, other values are refused;
            * ``"json"``: JSON alone (``None``, ``bool``, ``int``, finite ``float``, ``str``, ``list``, ``dict`` with
              ``str`` keys). Whatever would come back changed is refused; so are NaN and the infinities, which JSON
              does not have;
            * ``"bytes"``: ``bytes`` alone, stored as they are;
            * ``"pickle"``: always pickle;
            * any object that has ``dumps`` and ``loads``, for example a module: ``dumps(value)`` returns ``bytes``,
              ``loads(data)`` is called with ``bytes``.

    Raises:
        ConfigError: *spec* is none of these.
    """
    if spec is None:
        return _DEFAULT
    if isinstance(spec, str):
        named = _NAMED.get(spec)
        if named is not None:
            return named
    elif callable(getattr(spec, "dumps", None)) and callable(getattr(spec, "loads", None)):
        return spec if isinstance(spec, _OURS) else _CustomSerializer(spec)
    raise ConfigError(
        f"serializer is {spec!r}; pass None, {', '.join(map(repr, _NAMED))}, or an object with methods dumps and loads"
    )


class _JsonSerializer:
    __slots__ = ("_decoder", "_encoder")

    def __init__(self) -> None:
        self._encoder = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
        )
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def dumps(self, value: Any, /) -> bytes:
        _require_json(value, 0)
        try:
            # Strict UTF-8: two lone surrogates in a row would come back as one character.
            return self._encoder.encode(value).encode()
        except ValueError as error:
            raise UnsupportedValueError(
                f"a value of type {type(value).__qualname__} cannot be encoded as JSON ({error}); use the default "
                "serializer"
            ) from error

    def loads(self, data: bytes | bytearray | memoryview, /) -> Any:
        try:
            return self._decoder.decode(str(data, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not JSON: {error}") from error


class _BytesSerializer:
    __slots__ = ()

    def dumps(self, value: Any, /) -> bytes:
        if type(value) is not bytes:
            raise UnsupportedValueError(
                f"the serializer 'bytes' takes bytes, not {type(value).__qualname__}; convert the value, or use the "
                "default serializer"
            )
        return value

    def loads(self, data: bytes | bytearray | memoryview, /) -> bytes:
        return bytes(data)


class _PickleSerializer:
    __slots__ = ()

    def dumps(self, value: Any, /) -> bytes:
        return pickle_value(value)

    def loads(self, data: bytes | bytearray | memoryview, /) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:
            # Whatever the classes in it raise.
            raise DecodeError(f"not a pickle that can be loaded here: {error}") from error


class _CustomSerializer:
    """A caller's own serializer. Its exceptions are the caller's; that it deals in bytes is checked here."""

    __slots__ = ("_serializer",)

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._serializer!r})"

    def dumps(self, value: Any, /) -> bytes:
        data: Any = self._serializer.dumps(value)
        if isinstance(data, bytes):
            return data
        raise UnsupportedValueError(
            f"dumps of {self._serializer!r} returned {type(data).__qualname__}; a serializer's dumps must return bytes"
        )

    def loads(self, data: bytes | bytearray | memoryview, /) -> Any:
        # json.loads, for one, takes no memoryview.
        return self._serializer.loads(bytes(data))


def _require_json(value: Any, depth: int) -> None:
    """Refuse whatever JSON would change: every type but its own, and keys that are not str."""
    kind = type_of(value)
    if kind in _JSON_SCALARS:
        return
    if kind is not list and kind is not dict:
        raise UnsupportedValueError(
            f"{kind.__module__}.{kind.__qualname__} is not a JSON type and would come back as another; convert it, or "
            "use the default serializer"
        )
    if depth >= MAX_VALUE_DEPTH:
        raise UnsupportedValueError(f"the value has more than {MAX_VALUE_DEPTH} containers in each other; flatten it")
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise UnsupportedValueError(
                    f"a dict key of type {type(key).__qualname__} would come back as a str; use str keys, or the "
                    "default serializer"
                )
        value = value.values()
    for item in value:
        if type(item) not in _JSON_SCALARS:
            _require_json(item, depth + 1)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_JSON_SCALARS = frozenset({type(None), bool, int, float, str})

_DEFAULT = MessagePackSerializer(pickle_fallback=True)
_NAMED: dict[str, Serializer] = {
    "msgpack": MessagePackSerializer(pickle_fallback=False),
    "json": _JsonSerializer(),
    "bytes": _BytesSerializer(),
    "pickle": _PickleSerializer(),
}
_OURS = (MessagePackSerializer, _JsonSerializer, _BytesSerializer, _PickleSerializer, _CustomSerializer)
