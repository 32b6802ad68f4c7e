//! Comparing bytes, as libc's `memcmp` does, which is a part of every lookup that finds something.

#![expect(unsafe_code, reason = "words are read wherever the bytes lie")]

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Less than zero, zero or more than zero, as the first byte that differs is less on the left, there is none, or it is more.
///
/// Compares words, where libc's for wasm compares bytes. The last word may overlap the one before: that its first bytes were
/// found equal already does not change which number is the lower one.
///
/// # Safety
/// There are so many bytes on both sides.
#[inline]
pub(crate) unsafe fn compare(left: *const u8, right: *const u8, length: usize) -> i32 {
    let mut at = 0;
    if length >= WORD {
        loop {
            // SAFETY: these words end where the bytes end, or before.
            let [a, b] = [left, right].map(|bytes| unsafe { bytes.add(at).cast::<u64>().read_unaligned() });
            if a != b {
                return if u64::from_be(a) < u64::from_be(b) { -1 } else { 1 };
            }
            if at == length - WORD {
                return 0;
            }
            at = (at + WORD).min(length - WORD);
        }
    }
    while at < length {
        // SAFETY: as above, of bytes.
        let [a, b] = [left, right].map(|bytes| i32::from(unsafe { bytes.add(at).read() }));
        if a != b {
            return a - b;
        }
        at += 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(left: &[u8], right: &[u8]) -> i32 {
        assert_eq!(left.len(), right.len());
        unsafe { compare(left.as_ptr(), right.as_ptr(), left.len()) }.signum()
    }

    #[test]
    fn any_byte_that_differs_decides() {
        for length in 0..40 {
            // From wherever they lie.
            for start in 0..9 {
                let bytes: Vec<u8> = (0..start + length).map(|byte| (byte * 37 + 128) as u8).collect();
                let left = &bytes[start..];
                assert_eq!(compared(left, left), 0, "{length}");
                for at in 0..length {
                    for byte in [0, 1, 127, 128, 255] {
                        let mut right = left.to_vec();
                        right[at] = byte;
                        // What comes behind it does not count.
                        for (after, byte) in right[at + 1..].iter_mut().zip([255, 0].into_iter().cycle()) {
                            *after = byte;
                        }
                        let expected = left.cmp(&right) as i32;
                        assert_eq!(compared(left, &right), expected, "{length} {at}");
                        assert_eq!(compared(&right, left), -expected, "{length} {at}");
                    }
                }
            }
        }
    }
}
