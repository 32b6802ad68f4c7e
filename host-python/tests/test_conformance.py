"""The language-neutral suite, over every channel of this host."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Case, Opener, cases
from moka_wasm._component_channel import ComponentChannel
from moka_wasm._direct_channel import DirectChannel

ALL = dict(cases())


@pytest.mark.parametrize("start", [0, 12_345_678_901_234_567], ids=["from-zero", "from-later"])
@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("opener", [DirectChannel, ComponentChannel], ids=["direct-abi", "component-face"])
def test_conformance(opener: Opener, case: dict[str, Any], start: int) -> None:
    """Every channel does what the suite's case states."""
    Case(case, opener, start).run()
