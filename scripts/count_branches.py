"""Has a guest that counts its branches do what caches do most, and writes what it counted.

    count_branches.py GUEST.wasm COUNTS

The guest is what ``branch-hints instrument`` made; ``branch-hints derive`` reads the file: 64-bit numbers, the lowest
byte first, as they lie in the guest's memory for them, summed up over caches of each kind.
"""

from __future__ import annotations

import array
import sys
from pathlib import Path
from typing import Any

import profile_guest

from moka_wasm._direct_channel import DirectChannel


def counted(channel: DirectChannel) -> array.array[int]:
    """What the guest counted."""
    sandbox: Any = channel._guest.sandbox  # type: ignore[union-attr]
    counts = array.array("Q", bytes(sandbox._exports["branch_counts"].read(sandbox.store)))
    if sys.byteorder == "big":
        counts.byteswap()
    return counts


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    profile_guest.use_guest(Path(sys.argv[1]))
    totals = array.array("Q", map(sum, zip(*map(counted, profile_guest.exercised()), strict=True)))
    if sys.byteorder == "big":
        totals.byteswap()
    Path(sys.argv[2]).write_bytes(totals.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
