//! Numbers of 128 bits, on a machine that has 64.

use std::hint::black_box;

/// The lower 128 bits of a product: fast where both numbers are small.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are what is asked for")]
pub(crate) fn product(left: u128, right: u128) -> u128 {
    let (left_low, right_low) = (left as u64, right as u64);
    let (left_high, right_high) = ((left >> 64) as u64, (right >> 64) as u64);
    let low = left_low.wrapping_mul(right_low);
    if left_high | right_high | (left_low | right_low) >> 32 == 0 {
        return low.into();
    }
    let mut high = left_low.wrapping_mul(right_high).wrapping_add(left_high.wrapping_mul(right_low));
    if (left_low | right_low) >> 32 != 0 {
        high = high.wrapping_add(upper_half(left_low, right_low));
    }
    (high as u128) << 64 | low as u128
}

/// The upper 64 bits of a product of 64-bit numbers, by the school's method with digits of 32 bits.
#[inline]
fn upper_half(left: u64, right: u64) -> u64 {
    const DIGIT: u64 = 0xffff_ffff;
    let (a, b) = (left >> 32, left & DIGIT);
    let (c, d) = (right >> 32, right & DIGIT);
    // Not to be seen through: the compiler would know it for a product of 128 bits, and call what calls this.
    let middle = black_box(b * c + ((b * d) >> 32));
    let other_middle = a * d + (middle & DIGIT);
    a * c + (middle >> 32) + (other_middle >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_compiler() {
        let ends =
            [0, 1, 2, 0xffff_fffe, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 1_000_000_000, 1 << 63, u64::MAX - 1, u64::MAX];
        let numbers =
            || ends.iter().flat_map(|&high| ends.iter().map(move |&low| u128::from(high) << 64 | u128::from(low)));
        for (left, right) in numbers().flat_map(|left| numbers().map(move |right| (left, right))) {
            assert_eq!(product(left, right), left.wrapping_mul(right), "{left} * {right}");
        }
    }
}
