"""An option that says by which way the suite is to go into the sandbox: it passes over both, and a run that meant the
other one would prove nothing."""

from __future__ import annotations

import pytest

from moka_wasm import Moka


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--extension used`` or ``--extension unused``."""
    parser.addoption("--extension", choices=("used", "unused"), help="whether the native extension is to be in use")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stops a run that goes the other way than it was told."""
    wanted = session.config.getoption("--extension")
    if wanted is None:
        return
    with Moka[str, int](1) as cache:
        found = "used" if getattr(cache, "_takes_short_ways", False) else "unused"
    if found != wanted:
        raise pytest.UsageError(
            f"the native extension is {found}, and --extension says {wanted}: run make native, and see MOKA_WASM_PURE"
        )
