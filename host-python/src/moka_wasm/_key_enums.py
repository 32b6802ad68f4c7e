"""Enum members among the keys, by the names of their class and of themselves.

Decoding never imports: a class is found among those that were encoded before, or in a module that is already loaded.
"""

from __future__ import annotations

import sys
from enum import Enum, EnumMeta, Flag
from types import ModuleType
from typing import Any

from . import _key_format as f
from ._errors import DecodeError, UnsupportedKeyError
from ._key_subclasses import inherits_equality

_FLAG_TAG = f.FLAG[0]

# Strong references: an encoded member may outlive the last use of its class, and a new class of the same name must
# not take its place.
_classes: dict[tuple[str, str], EnumMeta] = {}
_heads: dict[type, bytes] = {}


def is_plain(cls: type) -> bool:
    """Whether members of *cls* are compared by identity, as Enum has it, and not by a mixed-in type or its own way."""
    return isinstance(cls, EnumMeta) and inherits_equality(cls, object, Enum)


def encode_enum(member: Any) -> bytes:
    """Encode a member by module, qualified class name and member name; of a Flag, by its value instead of its name.

    Raises:
        UnsupportedKeyError: Another class of the same name was used as a key before.
    """
    cls = f.type_of(member)
    head = _heads.get(cls)
    if head is None:
        head = _heads[cls] = _register(cls)
    if head[0] == _FLAG_TAG:
        return head + f.int_to_bytes(member._value_)
    name: str = member._name_
    return head + name.encode("utf-8", "surrogatepass")


def decode_enum(payload: f.Buffer) -> Enum:
    """Decode the payload of `ENUM`."""
    cls, name = _find_class(payload)
    members: dict[str, Enum] = cls.__dict__["_member_map_"]
    return members[str(name, "utf-8", "surrogatepass")]


def decode_flag(payload: f.Buffer) -> Flag:
    """Decode the payload of `FLAG`."""
    cls, value = _find_class(payload)
    if not issubclass(cls, Flag):
        raise DecodeError(f"{cls.__qualname__} is not a Flag")
    member: Any = cls(f.int_from_bytes(value))
    if not isinstance(member, Flag):
        raise DecodeError(f"{cls.__qualname__} has no such value")
    return member


def _register(cls: Any) -> bytes:
    module, name = cls.__module__, cls.__qualname__
    if _classes.setdefault((module, name), cls) is not cls:
        raise UnsupportedKeyError(
            f"two different classes are named {module}.{name}, and members of the first are keys already; give the "
            "class another name, or pass the member's value as the key"
        )
    tag = f.FLAG if issubclass(cls, Flag) else f.ENUM
    return f.join_frames(tag, (module.encode("utf-8", "surrogatepass"), name.encode("utf-8", "surrogatepass")))


def _find_class(payload: f.Buffer) -> tuple[EnumMeta, f.Buffer]:
    """The class that *payload* names, and the rest of it."""
    module_name, rest = f.split_frame(payload)
    class_name, rest = f.split_frame(rest)
    module, name = str(module_name, "utf-8", "surrogatepass"), str(class_name, "utf-8", "surrogatepass")
    cls = _classes.get((module, name)) or _loaded_class(module, name)
    if cls is None:
        raise DecodeError(f"there is no loaded Enum class {module}.{name}")
    return cls, rest


def _loaded_class(module: str, name: str) -> EnumMeta | None:
    # Only dictionaries are read: a module's __getattr__ could import, and a class attribute could be a descriptor.
    scope: object = sys.modules.get(module)
    if not isinstance(scope, ModuleType):
        return None
    for part in name.split("."):
        if isinstance(scope, ModuleType):
            scope = ModuleType.__getattribute__(scope, "__dict__").get(part)
        elif isinstance(scope, type):
            scope = type.__getattribute__(scope, "__dict__").get(part)
        else:
            return None
    if isinstance(scope, EnumMeta) and is_plain(scope) and (scope.__module__, scope.__qualname__) == (module, name):
        return scope
    return None
