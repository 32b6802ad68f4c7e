"""Has a guest that counts its branches do what caches do most, and writes what it counted.

    count_branches.py GUEST.wasm COUNTS

The guest is what ``branch-hints instrument`` made; ``branch-hints derive`` reads the file: 64-bit numbers, the lowest
byte first, as they lie in the guest's memory for them, summed up over caches of each kind.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import profile_guest

from moka_wasm._direct_channel import DirectChannel


def counted(channel: DirectChannel) -> tuple[int, ...]:
    """What the guest counted."""
    sandbox: Any = channel._guest.sandbox  # type: ignore[union-attr]
    counts = bytes(sandbox._exports["branch_counts"].read(sandbox.store))
    return struct.unpack(f"<{len(counts) // 8}Q", counts)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    profile_guest.use_guest(Path(sys.argv[1]))
    totals = list(map(sum, zip(*map(counted, profile_guest.exercised()), strict=True)))
    Path(sys.argv[2]).write_bytes(struct.pack(f"<{len(totals)}Q", *totals))
    return 0


if __name__ == "__main__":
    sys.exit(main())
