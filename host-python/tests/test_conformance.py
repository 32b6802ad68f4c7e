"""The language-neutral suite, over every channel of this host."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Case, cases, weight

from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel

ALL = dict(cases())
# A byte takes wasmtime-py a microsecond or more on its way over the component face, and it refuses calls that move very
# many. The cases that move more than this are about the cache, not about the face.
LIGHT = {name: case for name, case in ALL.items() if weight(case["steps"]) < 2_000_000}


@pytest.mark.parametrize("start", [0, 12_345_678_901_234_567], ids=["from-zero", "from-later"])
@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_direct_abi(case: dict[str, Any], start: int) -> None:
    """The direct ABI does what the suite's case states."""
    Case(case, DirectChannel, start).run()


@pytest.mark.parametrize("case", LIGHT.values(), ids=LIGHT.keys())
def test_component_face(case: dict[str, Any]) -> None:
    """The component face does what the suite's case states."""
    Case(case, ComponentChannel, 12_345_678_901_234_567).run()


def test_most_cases_are_light() -> None:
    """The component face is tested by nearly the whole suite."""
    assert len(LIGHT) >= 0.85 * len(ALL)
