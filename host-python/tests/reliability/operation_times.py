"""How long operations took: every one counts, in the memory of a few thousand numbers."""

from __future__ import annotations

# A time of up to 7 bits has a count of its own; of longer ones, those have one together that agree in the first 7 bits.
_BITS = 7
_HALF = 1 << (_BITS - 1)


class Times:
    """Counts of times, in nanoseconds up to 2^63."""

    def __init__(self) -> None:
        self._counts = [0] * (_HALF * (63 - _BITS + 2))

    def add(self, nanoseconds: int) -> None:
        """Counts one operation."""
        shift = max(nanoseconds.bit_length() - _BITS, 0)
        self._counts[shift * _HALF + (nanoseconds >> shift)] += 1

    def add_all(self, other: Times) -> None:
        """Counts what another has counted."""
        for place, count in enumerate(other._counts):
            if count:
                self._counts[place] += count

    def percentile(self, share: float) -> float:
        """The time that this share of the operations took at most, in microseconds, and too high by up to 1.6 %; 0 if
        there were none."""
        total = sum(self._counts)
        left = min(int(total * share), total - 1)
        for place, count in enumerate(self._counts):
            left -= count
            if count and left < 0:
                shift = max(place // _HALF - 1, 0)
                return (((place - shift * _HALF + 1) << shift) - 1) / 1000
        return 0.0
