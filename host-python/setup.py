"""What pyproject.toml cannot say.

A wheel without the component must not come to be, and it carries the component's digest. There are two kinds: the pure
one, for every interpreter, and, with ``MOKA_WASM_NATIVE=1`` in the environment, one for this platform that carries the
native extension.
"""

import hashlib
import os
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

COMPONENT = Path(__file__).parent / "src" / "moka_wasm" / "moka_cache.wasm"
# Only in wheels: in a checkout the component is built anew whenever its sources change.
DIGEST = COMPONENT.with_name(f"{COMPONENT.name}.sha256")


class WheelWithComponent(bdist_wheel):
    """Builds the wheel, if there is a component to put into it."""

    def run(self) -> None:
        if not COMPONENT.is_file():
            raise SystemExit(f"{COMPONENT} is missing: 'make wheel' builds it and the wheel")
        DIGEST.write_text(f"{hashlib.sha256(COMPONENT.read_bytes()).hexdigest()}  {COMPONENT.name}\n")
        try:
            super().run()
        finally:
            DIGEST.unlink()


native = {}
if os.environ.get("MOKA_WASM_NATIVE"):
    from setuptools_rust import Binding, RustExtension

    native = {
        "rust_extensions": [
            RustExtension(
                "moka_wasm._native",
                "native/Cargo.toml",
                args=["--locked"],
                binding=Binding.PyO3,
                debug=False,
                py_limited_api=True,
            )
        ],
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }

setup(cmdclass={"bdist_wheel": WheelWithComponent}, **native)
