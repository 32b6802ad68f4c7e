"""The component file: where it is, and the core module inside it.

A component is an 8-byte header and a list of sections, each an id, a LEB128 length and that many bytes; a section with
id 1 is a whole core module (https://component-model.bytecodealliance.org, ``Binary.md``).
"""

from __future__ import annotations

import functools
import os

from ._errors import IncompatibleComponentError

NAME = "moka_cache.wasm"

_COMPONENT_HEADER = b"\0asm\x0d\0\x01\0"
_CORE_HEADER = b"\0asm\x01\0\0\0"
_CORE_MODULE_SECTION = 1
# Every core module that speaks the direct ABI exports this name; wit-component's own helper modules do not.
_MARK = b"moka_abi_version"


def read_component() -> bytes:
    """The bytes of the component.

    The environment variable ``MOKA_WASM_COMPONENT`` names another file than the package's own. That one is compared to
    the digest that the wheel carries beside it.

    Raises:
        IncompatibleComponentError: There is no such file, or it is not the one that the wheel brought.
    """
    override = os.environ.get("MOKA_WASM_COMPONENT")
    path = override or os.path.join(os.path.dirname(__file__), NAME)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise IncompatibleComponentError(
            f"the component cannot be read: {error}; install the moka-wasm wheel, or build it with `make component`"
        ) from error
    if not override:
        _check_digest(data, f"{path}.sha256")
    return data


def _check_digest(data: bytes, path: str) -> None:
    """Compares the bytes to a file in the format of ``sha256sum``, which a checkout does not have."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            expected = file.read(64)
    except FileNotFoundError:
        return
    import hashlib  # a twentieth of what it takes to import the package

    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise IncompatibleComponentError(
            f"the component file was changed since it was installed: its SHA-256 is {found}, not {expected}; install "
            "moka-wasm anew"
        )


@functools.cache
def component() -> bytes:
    """The bytes of the component, read once a process."""
    return read_component()


def core_module(component: bytes) -> bytes:
    """The core module that speaks the direct ABI, out of the bytes of a component.

    Args:
        component: The whole file; a bare core module is answered as it is.

    Raises:
        IncompatibleComponentError: The bytes are no component, are cut short, or hold no such module.
    """
    if component.startswith(_CORE_HEADER):
        return component
    if not component.startswith(_COMPONENT_HEADER):
        raise IncompatibleComponentError(
            f"the component file begins with {component[:8]!r}, not with a component's header: install it anew"
        )
    position = len(_COMPONENT_HEADER)
    while position < len(component):
        section = component[position]
        length, start = _read_leb128(component, position + 1)
        position = start + length
        if position > len(component):
            raise IncompatibleComponentError("the component file is cut short: install it anew")
        if section == _CORE_MODULE_SECTION and component.find(_MARK, start, position) >= 0:
            return component[start:position]
    raise IncompatibleComponentError("the component file holds no core module with the direct ABI: install it anew")


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned LEB128 number of up to 32 bits, and the position after it."""
    number = 0
    for shift in range(0, 35, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise IncompatibleComponentError("the component file has a damaged section length: install it anew")
