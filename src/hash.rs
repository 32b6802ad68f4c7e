//! How keys hash.

use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;

/// `SipHash`-1-3 with a key of its own for each cache: who chooses keys cannot make them collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedHash(u64, u64);

impl KeyedHash {
    /// Keyed by random numbers.
    pub(crate) fn new(seed: (u64, u64)) -> Self {
        Self(seed.0, seed.1)
    }

    /// What a stored key keeps: its table grows without looking at its bytes again.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "all bits of the hash are equally good")]
    pub(crate) fn of(self, bytes: &[u8]) -> u32 {
        SipHasher13::new_with_keys(self.0, self.1).hash(bytes) as u32
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { keyed: *self, hash: 0 }
    }
}

/// Hashes a slice of bytes, or takes the `u32` that [`KeyedHash::of`] made of one: both come to the same.
#[derive(Debug)]
pub(crate) struct KeyHasher {
    keyed: KeyedHash,
    hash: u64,
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.write_u32(self.keyed.of(bytes));
    }

    /// The golden ratio spreads the bits: moka's tables use the highest and the lowest.
    #[inline]
    fn write_u32(&mut self, hash: u32) {
        self.hash = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// The length of the slice that follows, whose hash depends on it anyway.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Key;

    #[test]
    fn a_key_hashes_as_its_bytes_do() {
        let hash = KeyedHash::new((1, 2));
        for length in [0, 1, 7, 8, 23, 24, 25, 1000] {
            let bytes = vec![7; length];
            assert_eq!(hash.hash_one(Key::new(&bytes, hash)), hash.hash_one(bytes.as_slice()), "{length}");
        }
    }

    #[test]
    fn another_seed_makes_another_hash() {
        assert_ne!(
            KeyedHash::new((1, 2)).hash_one(b"key".as_slice()),
            KeyedHash::new((1, 3)).hash_one(b"key".as_slice())
        );
    }

    #[test]
    fn the_length_counts() {
        let hash = KeyedHash::new((1, 2));
        assert_ne!(hash.hash_one([0; 3].as_slice()), hash.hash_one([0; 4].as_slice()));
    }
}
