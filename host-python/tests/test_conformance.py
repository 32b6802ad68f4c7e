"""The language-neutral suite, over every channel of this host."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Case, cases

from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel

ALL = dict(cases())


@pytest.mark.parametrize("start", [0, 12_345_678_901_234_567], ids=["from-zero", "from-later"])
@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_direct_abi(case: dict[str, Any], start: int) -> None:
    """The direct ABI does what the suite's case states."""
    Case(case, DirectChannel, start).run()


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_component_face(case: dict[str, Any]) -> None:
    """The component face does what the suite's case states."""
    Case(case, ComponentChannel, 12_345_678_901_234_567).run()
