"""The numbers among the keys: equal numbers of any type have one encoding.

Python's numbers compare by value across types, so the type is not encoded; the value alone chooses the form, and the
first form below that can express it is the only one:

1. ``INT``: an integer from -2**63 to 2**63 - 1;
2. ``WIDE_INT``: an integer from -2**1024 to 2**1024 - 1, which is room for every integral double;
3. ``DOUBLE``: a number that an IEEE 754 double holds exactly, the infinities, and NaN (one bit pattern for all);
4. ``DECIMAL``: a finite decimal, coefficient * 10**exponent with a coefficient that ten does not divide. Integers
   beyond form 2 are here too, so that ``Decimal("1E+1000000")`` is never written out;
5. ``RATIO``: any other fraction in its lowest terms;
6. ``COMPLEX``: a complex number whose imaginary part is not zero.
"""

from __future__ import annotations

import struct
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from fractions import Fraction
from math import isfinite

from . import _key_format as f
from ._errors import DecodeError, UnsupportedKeyError

_WIDE_BITS = 1024
# 10**309 is the first power of ten beyond 2**1024.
_MAX_WIDE_ADJUSTED = 308

# Nothing is rounded in this context, whatever the caller's own decimal context says.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, clamp=0, traps=[])

_pack_int = struct.Struct(">Bq").pack
_pack_double = struct.Struct(">Bd").pack
_complex = struct.Struct(">dd")
_int64 = struct.Struct(">q")
_double = struct.Struct(">d")

_INT_TAG = f.INT[0]
_DOUBLE_TAG = f.DOUBLE[0]
_NAN = f.DOUBLE + b"\x7f\xf8\x00\x00\x00\x00\x00\x00"
_ZERO = f.INT + bytes(8)


def encode_int(number: int) -> bytes:
    """Encode an integer of any size."""
    try:
        return _pack_int(_INT_TAG, number)
    except struct.error:
        pass
    magnitude = ~number if number < 0 else number
    if magnitude.bit_length() <= _WIDE_BITS:
        return f.WIDE_INT + f.int_to_bytes(number)
    return _decimal_form(*_strip_powers(number, 10))


def encode_float(number: float) -> bytes:
    """Encode a float; an integral one as the integer that it equals."""
    if number.is_integer():
        return encode_int(int(number))
    if number != number:
        return _NAN
    return _pack_double(_DOUBLE_TAG, number)


def encode_complex(number: complex) -> bytes:
    """Encode a complex number; one on the real axis as the float that it equals."""
    if not number.imag:
        return encode_float(number.real)
    return f.COMPLEX + _complex.pack(_canonical_part(number.real), _canonical_part(number.imag))


def encode_decimal(number: Decimal) -> bytes:
    """Encode a Decimal by its value: trailing zeros and the sign of zero do not matter.

    Raises:
        UnsupportedKeyError: It is a signaling NaN, which cannot be hashed either.
    """
    if not number.is_finite():
        if number.is_snan():
            raise UnsupportedKeyError("cannot hash a signaling NaN value; pass a quiet NaN or None as the key")
        if number.is_nan():
            return _NAN
        return _pack_double(_DOUBLE_TAG, float(number))
    if not number:
        return _ZERO
    number = _EXACT.normalize(number)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent >= 0 and number.adjusted() <= _MAX_WIDE_ADJUSTED:
        return encode_int(int(number))
    if exponent < 0:
        nearest = float(number)
        if isfinite(nearest) and Decimal(nearest) == number:
            return _pack_double(_DOUBLE_TAG, nearest)
    return _decimal_form(int(number.scaleb(-exponent, _EXACT)), exponent)


def encode_fraction(number: Fraction) -> bytes:
    """Encode a Fraction as the integer, double or decimal that it equals, if there is one."""
    numerator, denominator = number.numerator, number.denominator
    if denominator == 1:
        return encode_int(numerator)
    twos = (denominator & -denominator).bit_length() - 1
    odd = denominator >> twos
    if odd == 1:
        try:
            nearest = numerator / denominator
        except OverflowError:
            nearest = 0.0
        if nearest.as_integer_ratio() == (numerator, denominator):
            return _pack_double(_DOUBLE_TAG, nearest)
    rest, fives = _strip_powers(odd, 5)
    if rest == 1:
        # The coefficient is not divisible by ten: the numerator shares no factor with the denominator, and only one
        # of the two powers below is not 1.
        digits = max(twos, fives)
        return _decimal_form(numerator * 2 ** (digits - twos) * 5 ** (digits - fives), -digits)
    return f.join_frames(f.RATIO, (f.int_to_bytes(numerator), f.int_to_bytes(denominator)))


def decode_int(payload: f.Buffer) -> int:
    """Decode the payload of `INT`."""
    number: int = _int64.unpack(payload)[0]
    return number


def decode_double(payload: f.Buffer) -> float:
    """Decode the payload of `DOUBLE`."""
    number: float = _double.unpack(payload)[0]
    return number


def decode_decimal(payload: f.Buffer) -> int | Decimal:
    """Decode the payload of `DECIMAL`: an int where that is not much longer than its encoding, else a Decimal."""
    exponent: int = _int64.unpack(payload[:8])[0]
    coefficient = f.int_from_bytes(payload[8:])
    if 0 <= exponent * 4 <= max(coefficient.bit_length(), 4 * _WIDE_BITS):
        integer: int = coefficient * 10**exponent
        return integer
    number = Decimal(coefficient).scaleb(exponent, _EXACT)
    if not number.is_finite() or not number:
        raise DecodeError(f"no Decimal has the exponent {exponent}")
    return number


def decode_ratio(payload: f.Buffer) -> Fraction:
    """Decode the payload of `RATIO`."""
    numerator, denominator = f.split_frames(payload)
    return Fraction(f.int_from_bytes(numerator), f.int_from_bytes(denominator))


def decode_complex(payload: f.Buffer) -> complex:
    """Decode the payload of `COMPLEX`."""
    return complex(*_complex.unpack(payload))


def _canonical_part(part: float) -> float:
    # Adding 0.0 turns -0.0, which equals 0.0, into it.
    return part + 0.0 if part == part else float("nan")


def _decimal_form(coefficient: int, exponent: int) -> bytes:
    try:
        return f.DECIMAL + _int64.pack(exponent) + f.int_to_bytes(coefficient)
    except struct.error:
        raise UnsupportedKeyError(f"a number with the exponent {exponent} cannot be a key; pass it as a str") from None


def _strip_powers(number: int, base: int) -> tuple[int, int]:
    """Divide *number* by *base* as often as it goes: the rest, and how often.

    By base, base**2, base**4 and so on, and back down: a number with a million zeros takes forty divisions.
    """
    count = 0
    powers = [base]
    while True:
        quotient, remainder = divmod(number, powers[-1])
        if remainder:
            break
        number = quotient
        count += 1 << (len(powers) - 1)
        powers.append(powers[-1] * powers[-1])
    powers.pop()
    while powers:
        quotient, remainder = divmod(number, powers.pop())
        if not remainder:
            number = quotient
            count += 1 << len(powers)
    return number, count
