"""What an entry takes in the sandbox, as the README states it."""

from __future__ import annotations

import pytest

from moka_wasm import Moka
from moka_wasm._keys import encode_key
from moka_wasm._msgpack import MessagePackSerializer

ENTRIES = 100_000
VALUE = "v" * 20


def key(number: int) -> str:
    return f"key:{number:016d}"


def cost(ttl: float | None, *values: str) -> float:
    """Bytes that an entry takes beyond its key's and its value's, when these values were stored one after the other."""
    payload = len(encode_key(key(0))) + len(MessagePackSerializer(pickle_fallback=False).dumps(values[-1]))
    with Moka[str, str](None, ttl=ttl) as cache:
        before = cache.stats().memory_bytes
        for value in values:
            cache.update((key(number), value) for number in range(ENTRIES))
        taken = cache.stats().memory_bytes - before
        assert len(cache) == ENTRIES
    return taken / ENTRIES - payload


@pytest.mark.parametrize(("ttl", "most"), [(None, 190), (3600.0, 250)])
def test_an_entry_costs_no_more_than_stated(ttl: float | None, most: int) -> None:
    """Beside the bytes of its key and its value, tables and pages that are not full included."""
    assert cost(ttl, VALUE) <= most


@pytest.mark.parametrize(("ttl", "most"), [(None, 250), (3600.0, 400)])
def test_an_entry_whose_value_was_replaced_costs_no_more_than_stated(ttl: float | None, most: int) -> None:
    """Again and again, by ones that do not fit in its place: moka then has the key twice."""
    assert cost(ttl, *(VALUE, 3 * VALUE) * 3) <= most


def test_memory_serves_other_sizes_once_it_is_free() -> None:
    """What entries of one size leave behind is room for those of any other."""
    with Moka[int, str](None) as cache:
        for size in (10, 100, 1_000, 30, 200, 50):
            cache.update((number, "x" * size) for number in range(4_000_000 // (size + 200)))
            cache.clear()
            assert cache.stats().memory_bytes < 6_000_000
