"""The language-neutral suite, over every face that this host uses."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Case, ComponentFace, DirectFace, Face, cases

ALL = dict(cases())


@pytest.mark.parametrize("start", [0, 12_345_678_901_234_567], ids=["from-zero", "from-later"])
@pytest.mark.parametrize("face", [DirectFace(), ComponentFace()], ids=["direct-abi", "component-face"])
@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_face(case: dict[str, Any], face: Face, start: int) -> None:
    """The direct ABI and the component face do what the suite's case states, wherever their clock starts."""
    Case(case, face, start).run()
