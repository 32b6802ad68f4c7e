"""What pyproject.toml cannot say: a wheel without the component must not come to be."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

COMPONENT = Path(__file__).parent / "src" / "moka_wasm" / "moka_cache.wasm"


class WheelWithComponent(bdist_wheel):
    """Builds the wheel, if there is a component to put into it."""

    def run(self) -> None:
        if not COMPONENT.is_file():
            raise SystemExit(f"{COMPONENT} is missing: 'make wheel' builds it and the wheel")
        super().run()


setup(cmdclass={"bdist_wheel": WheelWithComponent})
