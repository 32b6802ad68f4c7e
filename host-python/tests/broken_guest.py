"""The package's own component, changed so that chosen functions of it trap, or never end, when a test says so.

The core module gets one more function for each chosen export, which looks at a byte of linear memory (at an address
that nothing else uses), does what that says, and otherwise calls the function of that export.
"""

# pyright: basic

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from moka_wasm import _component_channel, _sandbox
from moka_wasm._component_file import _read_leb128, component, core_module

WORKS, TRAPS, TRAPS_AFTERWARDS, NEVER_ENDS = range(4)

# The lowest addresses are the far end of the stack, which grows down to them.
SWITCHES = 16

_TYPE, _IMPORT, _FUNCTION, _EXPORT, _CODE = 1, 2, 3, 7, 10
_HEADER = b"\0asm\x01\0\0\0"


def forget_compiled() -> None:
    """Forgets all of the component that is kept for the process."""
    for cached in (component, _sandbox._module, _sandbox._linker, _component_channel._component):
        cached.cache_clear()


def switch(cache: Any, number: int, what: int) -> None:
    """Has the cache's present sandbox do this in the function of that number."""
    channel = getattr(cache, "_channel", cache)
    channel = getattr(channel, "_channel", channel)
    channel._guest.memory[SWITCHES + number] = what


def broken_component(names: Iterable[str], switched_on: int | None = None) -> bytes:
    """The component with these exports of its core module changed.

    Args:
        names: The exports; the position of each is the number of its switch.
        switched_on: What they do always, whatever the switch says.
    """
    whole = component()
    core = core_module(whole)
    changed = _broken_module(core, list(names), switched_on)
    start = whole.index(core)
    length = len(_leb128(len(core)))
    assert _read_leb128(whole, start - length) == (len(core), start)
    return whole[: start - length] + _leb128(len(changed)) + changed + whole[start + len(core) :]


def _broken_module(core: bytes, names: list[str], switched_on: int | None) -> bytes:
    sections = {kind: content for kind, content in _sections(core) if kind}
    types = _read_types(sections[_TYPE])
    imported = _count_imported_functions(sections[_IMPORT])
    of_function = list(_read_function_types(sections[_FUNCTION], types))
    exports = {name: index for name, kind, index in _walk_exports(sections[_EXPORT]) if kind == 0}
    new_types: list[int] = []
    bodies: list[bytes] = []
    for number, name in enumerate(names):
        index = exports[name]
        type_index, parameters = of_function[index - imported]
        exports[name] = imported + len(of_function) + number
        new_types.append(type_index)
        bodies.append(_body(index, parameters, number, switched_on))
    all_types = [index for index, _ in of_function] + new_types
    _, first_body = _read_leb128(sections[_CODE], 0)
    changed = {
        _FUNCTION: _vector([_leb128(index) for index in all_types]),
        _CODE: _leb128(len(all_types)) + sections[_CODE][first_body:] + b"".join(bodies),
        _EXPORT: _export_section(sections[_EXPORT], exports),
    }
    out = bytearray(_HEADER)
    for kind, content in _sections(core):
        content = changed.get(kind, content)
        out += bytes([kind]) + _leb128(len(content)) + content
    return bytes(out)


def _body(called: int, parameters: int, number: int, switched_on: int | None) -> bytes:
    """The code of a function that calls another with its own parameters, unless it is told otherwise."""
    unreachable, end = b"\x00", b"\x0b"
    # i32.const 0; i32.load8_u offset=SWITCHES + number, or i32.const switched_on
    looked_up = b"\x41\x00\x2d\x00" + _leb128(SWITCHES + number)
    what = looked_up if switched_on is None else b"\x41" + bytes([switched_on])

    def where(value: int, then: bytes) -> bytes:
        # what; i32.const value; i32.eq; if; then; end
        return what + b"\x41" + bytes([value]) + b"\x46\x04\x40" + then + end

    # loop; br 0; end
    code = where(TRAPS, unreachable) + where(NEVER_ENDS, b"\x03\x40\x0c\x00" + end)
    code += b"".join(b"\x20" + _leb128(parameter) for parameter in range(parameters)) + b"\x10" + _leb128(called)
    code += where(TRAPS_AFTERWARDS, unreachable) + end
    body = b"\x00" + code
    return _leb128(len(body)) + body


def _leb128(number: int) -> bytes:
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _vector(items: list[bytes]) -> bytes:
    return _leb128(len(items)) + b"".join(items)


def _sections(core: bytes) -> Iterator[tuple[int, bytes]]:
    """The id and the content of each section."""
    assert core.startswith(_HEADER)
    position = len(_HEADER)
    while position < len(core):
        kind = core[position]
        length, start = _read_leb128(core, position + 1)
        position = start + length
        yield kind, core[start:position]


def _read_types(section: bytes) -> list[int]:
    """How many parameters each type has; all value types take one byte."""
    count, at = _read_leb128(section, 0)
    found: list[int] = []
    for _ in range(count):
        assert section[at] == 0x60
        parameters, at = _read_leb128(section, at + 1)
        results, at = _read_leb128(section, at + parameters)
        at += results
        found.append(parameters)
    return found


def _count_imported_functions(section: bytes) -> int:
    count, at = _read_leb128(section, 0)
    for _ in range(count):
        for _ in range(2):
            length, at = _read_leb128(section, at)
            at += length
        assert section[at] == 0, "only functions are imported"
        _, at = _read_leb128(section, at + 1)
    return count


def _read_function_types(section: bytes, types: list[int]) -> Iterator[tuple[int, int]]:
    """The type of each function, and the number of its parameters."""
    count, at = _read_leb128(section, 0)
    for _ in range(count):
        index, at = _read_leb128(section, at)
        yield index, types[index]


def _walk_exports(section: bytes) -> Iterator[tuple[str, int, int]]:
    count, at = _read_leb128(section, 0)
    for _ in range(count):
        length, at = _read_leb128(section, at)
        name = section[at : at + length].decode()
        kind = section[at + length]
        index, at = _read_leb128(section, at + length + 1)
        yield name, kind, index


def _export_section(section: bytes, functions: dict[str, int]) -> bytes:
    return _vector(
        [
            _leb128(len(name.encode())) + name.encode() + bytes([kind]) + _leb128(functions.get(name, index))
            for name, kind, index in _walk_exports(section)
        ]
    )
