"""Fuzzing of the Python codecs guided by coverage: any bytes are a value or a key, or a clean error.

    fuzz_codecs_guided.py [libFuzzer's options, such as -runs=N] [FOLDER OF INPUTS]...

By atheris, which is not available for every interpreter and system (``host-python/requirements-fuzz.txt``). What
``fuzz_codecs.py`` makes of bytes is done here with inputs that libFuzzer chooses for the branches they reach.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found, unused-ignore]

with atheris.instrument_imports(include=["moka_wasm"]):  # pyright: ignore[reportUnknownMemberType]
    import fuzz_codecs


def main() -> None:
    differential = fuzz_codecs.Differential()

    def check(data: bytes) -> None:
        fuzz_codecs.check_decode(data)
        fuzz_codecs.check_key(data)
        differential.read(data)

    atheris.Setup(sys.argv, check)  # pyright: ignore[reportUnknownMemberType]
    atheris.Fuzz()  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    main()
