"""The short run of ``fuzz_codecs``, and proof that its checks can fail."""

# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fuzz_codecs
import pytest
from fuzz_codecs import DefectError, canonical, run


@pytest.mark.parametrize("seed", range(2))
def test_codecs_stand_anything(seed: int) -> None:
    """Any bytes are a value or a clean error; any value comes back; the extension and Python agree."""
    counts = run(20_000, seed)
    assert counts["refused"] > 1000
    assert len(counts) > 20


class Changed:
    """A serializer with a defect in one of its functions."""

    def __init__(self, serializer: Any, **functions: Callable[[Any], Any]) -> None:
        self._serializer, self._functions = serializer, functions

    def __getattr__(self, name: str) -> Any:
        return self._functions.get(name, getattr(self._serializer, name))


def lose_the_sign(value: Any) -> bytes:
    return fuzz_codecs.resolve_serializer("msgpack").dumps(abs(value) if isinstance(value, (int, float)) else value)


def raise_something_else(data: bytes) -> Any:
    if data[:1] == b"\xc7":
        raise IndexError("index out of range")
    return fuzz_codecs.resolve_serializer("msgpack").loads(data)


def read_false_as_zero(data: bytes) -> Any:
    value = fuzz_codecs.resolve_serializer(None).loads(data)
    return 0 if value is False else value


@pytest.mark.parametrize(
    ("name", "functions", "error"),
    [
        ("_PLAIN", {"dumps": lose_the_sign}, DefectError),
        ("_PLAIN", {"loads": raise_something_else}, IndexError),
        ("_PYTHON", {"loads": read_false_as_zero}, DefectError),
        ("_PYTHON", {"dumps": lose_the_sign}, DefectError),
    ],
)
def test_each_defect_is_found(
    name: str, functions: dict[str, Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec that changes a value, differs from the other one or raises something else ends the run."""
    monkeypatch.setattr(fuzz_codecs, name, Changed(getattr(fuzz_codecs, name), **functions))
    with pytest.raises(error):
        run(20_000, 0)


def test_keys_that_are_another_key_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that decodes to something whose encoding does not hold ends the run."""
    encode, calls = fuzz_codecs.encode_key, [0]

    def unsteady(key: Any) -> bytes:
        calls[0] += 1
        return encode((key, calls[0]) if calls[0] > 2000 else key)

    monkeypatch.setattr(fuzz_codecs, "encode_key", unsteady)
    with pytest.raises(DefectError):
        run(20_000, 0)


def test_equal_is_not_the_same() -> None:
    """Values of other types, and in another order where order counts, are told apart; NaN is NaN."""
    assert canonical([1, float("nan"), {2, 3}]) == canonical([1, float("nan"), {3, 2}])
    for one, other in ([1], [True]), ([1.0], [1]), ((1,), [1]), ({1: 2, 3: 4}, {3: 4, 1: 2}), (0.0, -0.0), ({1}, {1.0}):
        assert canonical(one) != canonical(other)
