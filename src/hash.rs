//! How keys hash.

use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;

/// Of moka's table. A hash's highest bits choose one.
const SEGMENTS: u32 = 64;

/// Slots of a segment, at the fewest.
const LEAST_SLOTS: u64 = 128;

/// `SipHash`-1-3 with a key of its own for each cache: who chooses keys cannot make them collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedHash {
    seed: (u64, u64),
    /// What 32 bits are multiplied with, so that the highest six bits of the product choose one of the segments that are
    /// used, all alike (Lemire, "Fast Random Integer Generation in an Interval", 2019), and the lowest ones are as they were.
    spread: u64,
}

impl KeyedHash {
    /// Keyed by random numbers, for a cache that holds so many entries when it is full, if that is known.
    pub(crate) fn new(seed: (u64, u64), capacity: Option<u64>) -> Self {
        let segments = segments_for(capacity);
        Self { seed, spread: u64::from(segments) << (32 - SEGMENTS.ilog2()) | 1 }
    }

    /// What a stored key keeps: its table grows without looking at its bytes again.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "all bits of the hash are equally good")]
    pub(crate) fn of(self, bytes: &[u8]) -> u32 {
        SipHasher13::new_with_keys(self.seed.0, self.seed.1).hash(bytes) as u32
    }
}

/// How many segments are used so that each is two fifths to a half full when the cache is.
///
/// moka copies a segment when a tenth of its slots are those of removed keys: then it has four to five entries to copy for
/// each new key of a full cache, where it would have up to seven if there always were 64 segments, and fewer slots to look
/// at for each key. It doubles a segment that is seven tenths full, and halves one that is less than 0.35 full.
///
/// And no fewer: the more slots there are, the more of the keys that a cache does not have find an empty one at once.
pub(crate) fn segments_for(capacity: Option<u64>) -> u32 {
    let Some(capacity) = capacity else { return SEGMENTS };
    let slots = (capacity / u64::from(SEGMENTS / 2)).next_power_of_two();
    let segments = if slots > LEAST_SLOTS { capacity / (slots / 5 * 2) } else { u64::MAX };
    u32::try_from(segments).map_or(SEGMENTS, |segments| segments.min(SEGMENTS))
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

    /// moka's table takes the segment from the highest bits, and the slot from the lowest.
    #[inline]
    fn write_u32(&mut self, hash: u32) {
        self.hash = u64::from(hash).wrapping_mul(self.keyed.spread);
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
        let hash = KeyedHash::new((1, 2), None);
        for length in [0, 1, 7, 8, 23, 24, 25, 1000] {
            let bytes = vec![7; length];
            assert_eq!(hash.hash_one(Key::new(&bytes, hash)), hash.hash_one(bytes.as_slice()), "{length}");
        }
    }

    #[test]
    fn another_seed_makes_another_hash() {
        assert_ne!(
            KeyedHash::new((1, 2), None).hash_one(b"key".as_slice()),
            KeyedHash::new((1, 3), None).hash_one(b"key".as_slice())
        );
    }

    #[test]
    fn segments_of_a_full_cache_are_two_fifths_to_a_half_full() {
        for capacity in (4097..10_000_000).step_by(1009).chain([u64::from(u32::MAX), u64::MAX]) {
            let segments = segments_for(Some(capacity));
            let entries = capacity / u64::from(segments);
            let slots = (2 * u128::from(entries)).next_power_of_two() as f64;
            let full = entries as f64 / slots;
            assert!((0.39..=0.5).contains(&full), "{capacity}: {full} of {segments}");
            assert!(segments >= 40, "{capacity}: {segments} of {slots} slots each");
        }
        assert!(
            (0..=4096).all(|capacity| segments_for(Some(capacity)) == SEGMENTS),
            "of the smallest there are enough"
        );
    }

    #[test]
    fn keys_go_to_each_of_the_segments_alike() {
        for capacity in [None, Some(0), Some(1000), Some(10_000), Some(1_000_000)] {
            let hash = KeyedHash::new((1, 2), capacity);
            let mut keys = [0; SEGMENTS as usize];
            (0..100_000_u32).for_each(|key| keys[(hash.hash_one(key.to_le_bytes().as_slice()) >> 58) as usize] += 1);
            let (used, unused) = keys.split_at(segments_for(capacity) as usize);
            let even = 100_000 / used.len() as i32;
            assert!(used.iter().all(|keys| (keys - even).abs() < even / 5), "{capacity:?}: {keys:?}");
            assert!(unused.iter().all(|keys| *keys == 0), "{capacity:?}: {keys:?}");
        }
    }

    #[test]
    fn the_length_counts() {
        let hash = KeyedHash::new((1, 2), None);
        assert_ne!(hash.hash_one([0; 3].as_slice()), hash.hash_one([0; 4].as_slice()));
    }
}
