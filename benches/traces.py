"""The request sequences that hit ratios are measured with: one recorded, one made."""

from __future__ import annotations

import functools
import io
import random
import shutil
import subprocess
from array import array
from itertools import accumulate
from pathlib import Path

OLTP_FILE = "OLTP.lis.zst"
ZIPF_KEYS = 100_000
ZIPF_EXPONENT = 0.99


@functools.cache
def oltp(folder: Path, limit: int | None) -> array[int]:
    """The OLTP trace of the ARC paper (Megiddo and Modha, FAST 2003): the blocks in the order of the requests.

    Its lines are ``start length ignored number``, and each requests the blocks start to start+length-1.

    Args:
        folder: Where the zstd-compressed file is.
        limit: The most requests to read; ``None`` for all.
    """
    blocks: array[int] = array("q")
    for line in io.StringIO(_decompressed(folder / OLTP_FILE)):
        start, length = map(int, line.split()[:2])
        blocks.extend(range(start, start + length))
        if limit is not None and len(blocks) >= limit:
            return blocks[:limit]
    return blocks


@functools.cache
def zipf(requests: int) -> array[int]:
    """Requests drawn from 100,000 keys with Zipf's distribution of exponent 0.99; the same every time."""
    weights = accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, ZIPF_KEYS + 1))
    return array("q", random.Random(20240229).choices(range(ZIPF_KEYS), cum_weights=list(weights), k=requests))


def _decompressed(file: Path) -> str:
    try:
        import zstandard
    except ImportError:
        zstd = shutil.which("zstd")
        if zstd is None:
            raise RuntimeError(f"{file.name} needs the package zstandard or the program zstd") from None
        return subprocess.run([zstd, "-dc", str(file)], check=True, stdout=subprocess.PIPE, text=True).stdout
    with file.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as data:
        return data.read().decode("ascii")
