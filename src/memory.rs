//! The memory limit: what an entry is charged, how that and its weight share one bound, and room for what moka needs.
//!
//! moka bounds one sum of weights. With a memory limit an entry's moka weight is the larger of two shares: of the
//! capacity that its own weight takes, and of the memory that its bytes take. Since the larger shares sum up to no more
//! than the whole, both sums stay within their bounds.

use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

#[cfg(all(target_family = "wasm", feature = "guest"))]
use crate::allocator;
use crate::entry::{Key, Value};
use crate::hash::segments_for;

/// Outside of the guest, where memory has no end.
#[cfg(not(all(target_family = "wasm", feature = "guest")))]
mod allocator {
    pub(super) fn taken() -> u64 {
        0
    }

    pub(super) fn tidy() {}

    pub(super) fn trim() {}

    pub(super) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// The smallest memory limit that a cache can be opened with: 1 MiB.
pub(crate) const LEAST_LIMIT: u64 = 1 << 20;

/// What an entry takes beyond its key and value bytes, in bytes, tables at their emptiest included. Measured in wasm.
const ENTRY_OVERHEAD: u64 = 352;

/// The weights are scaled to sums of about this size, which leaves room for the heaviest in 32 bits.
const SCALE: u64 = 1 << 30;

/// A single allocation of this size, or of a part of the memory limit, must be possible before an entry is stored:
/// moka's own cannot be refused.
const HEADROOM: u64 = 512 << 10;

/// The least of these, in bytes.
const LEAST_HEADROOM: usize = 64 << 10;

fn headroom(limit: Option<u64>) -> u64 {
    limit.map_or(HEADROOM, |limit| (limit / 32).clamp(LEAST_HEADROOM as u64, HEADROOM))
}

/// How many stores, into whichever caches, may pass between two looks at the headroom.
const LOOK_EVERY: u64 = 64;

/// Evicting takes a little memory itself, before it gives any back: this much at most beyond the [`RESERVE`], in bytes.
const TO_EVICT: usize = 16 << 10;

/// An empty moka cache takes less than this, in bytes. Measured in wasm: 28 KB.
const EMPTY_CACHE: usize = 32 << 10;

/// The tables of an empty moka cache take less than this, in bytes: 64 of some 600.
const EMPTY_TABLES: usize = 40 << 10;

/// What all of moka's tables and queues take before there are entries to speak of, in bytes.
const TABLES_AT_FIRST: usize = 128 << 10;

/// Entries from this size on are looked at singly, in bytes.
pub(crate) const LARGE: usize = 32 << 10;

/// The text for [`SetError::OutOfMemory`].
pub(crate) const OUT_OF_MEMORY: &str = "the host gives the sandbox no more memory: store less or raise its limit";

/// Why an entry was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// It can never fit.
    TooLarge {
        /// What it would take, in bytes.
        size: u64,
        /// What an entry may take.
        limit: u64,
    },
    /// The host gives no more memory.
    OutOfMemory,
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => {
                write!(f, "the entry would take {size} bytes and may take {limit}: store less or raise memory_limit")
            }
            Self::OutOfMemory => f.write_str(OUT_OF_MEMORY),
        }
    }
}

/// Bytes of linear memory that the guest holds; 0 outside wasm.
pub(crate) fn linear_memory() -> u64 {
    #[cfg(target_family = "wasm")]
    return (core::arch::wasm32::memory_size(0) as u64) << 16;
    #[cfg(not(target_family = "wasm"))]
    0
}

/// What an entry is charged against the memory limit.
pub(crate) fn charge(key: usize, value: usize) -> u64 {
    ENTRY_OVERHEAD + key as u64 + value as u64
}

/// The bound that a memory limit, and a capacity if there is one, make together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// What all entries may be charged.
    bytes: u64,
    capacity: Option<u64>,
    /// What all moka weights may sum up to: at most [`SCALE`].
    max_weight: u64,
}

impl Budget {
    /// The budget of a memory limit, of which `taken` bytes are taken by the program itself.
    pub(crate) fn new(limit: u64, taken: u64, capacity: Option<u64>) -> Self {
        // An eighth is left to the writes that moka has not weighed yet, a sixteenth to fragmentation.
        let bytes = limit.saturating_sub(taken + headroom(Some(limit))).max(LEAST_LIMIT / 8) / 16 * 13;
        let max_weight = match capacity {
            None => bytes.min(SCALE),
            Some(0) => 0,
            Some(capacity) if capacity > SCALE => SCALE,
            Some(capacity) => SCALE / capacity * capacity,
        };
        Self { bytes, capacity, max_weight }
    }

    /// What a single entry may be charged: when it is set it is in memory three times for a moment, as the caller's
    /// bytes, as the stored ones, and as those that they replace.
    pub(crate) fn entry_limit(&self) -> u64 {
        self.bytes / 3
    }

    /// What all moka weights may sum up to.
    pub(crate) fn max_weight(&self) -> u32 {
        u32::try_from(self.max_weight).unwrap_or(u32::MAX)
    }

    /// The moka weight of an entry.
    pub(crate) fn weigh(&self, charge: u64, weight: u32) -> u32 {
        let share = |part: u64, whole: u64| {
            let share = (u128::from(part) * u128::from(self.max_weight)).div_ceil(u128::from(whole.max(1)));
            u32::try_from(share).unwrap_or(u32::MAX)
        };
        let of_capacity = self.capacity.map_or(0, |capacity| share(weight.into(), capacity));
        share(charge, self.bytes).max(of_capacity)
    }
}

/// What there was in the component, whose memory all of its caches share.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stores: u64,
    /// What the allocator had taken.
    bytes: u64,
}

thread_local! {
    /// Into all caches, ever.
    static STORES: Cell<u64> = const { Cell::new(0) };
    /// What the tables of all caches may soon take, in bytes.
    static ALL_AHEAD: Cell<usize> = const { Cell::new(0) };
}

/// Watches for a cache that the guest can still get memory.
#[derive(Debug)]
pub(crate) struct Headroom {
    size: usize,
    /// When it was last looked at, if it was there.
    seen: Option<Seen>,
    /// What the tables of this cache may soon take, in bytes.
    ahead: usize,
}

impl Headroom {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { size: usize::try_from(headroom(limit)).unwrap_or(usize::MAX), seen: None, ahead: 0 }
    }

    /// Whether an entry of this size can be stored without running out of memory on the way; looks now and then, when a
    /// quarter of the headroom may be gone, to whichever caches, and at large entries always. `ahead` is what
    /// [`tables_ahead`] answers.
    #[inline]
    pub(crate) fn holds(&mut self, size: usize, ahead: impl FnOnce() -> usize) -> bool {
        let now = Seen { stores: STORES.get() + 1, bytes: allocator::taken() };
        STORES.set(now.stores);
        if size < LARGE
            && let Some(seen) = self.seen
            && now.stores - seen.stores < LOOK_EVERY
            && now.bytes - seen.bytes + size as u64 <= self.size as u64 / 4
        {
            return true;
        }
        self.expect(ahead());
        let there = self.is_there(size);
        // Where it is not there, the next entry is looked at too.
        self.seen = there.then_some(now);
        there
    }

    /// Notes what the tables of this cache may soon take: nobody else is to take it.
    pub(crate) fn expect(&mut self, ahead: usize) {
        ALL_AHEAD.set(ALL_AHEAD.get().saturating_sub(self.ahead).saturating_add(ahead));
        self.ahead = ahead;
    }

    /// Whether an entry of this size can be stored without running out of memory on the way.
    pub(crate) fn is_there(&self, size: usize) -> bool {
        keep_reserve() && can_be_had(self.size.saturating_add(size).saturating_add(ALL_AHEAD.get()))
    }
}

impl Drop for Headroom {
    fn drop(&mut self) {
        self.expect(0);
    }
}

/// What moka's tables may soon take in one piece, in bytes: a segment of its hash table when it doubles, to under three slots
/// for each entry, of which some have a third more than others, and the sketch of how often keys were asked for, which it
/// makes when the cache is half full.
pub(crate) fn tables_ahead(entries: u64, weight: u64, capacity: Option<u64>) -> usize {
    let half = capacity.unwrap_or(u64::MAX) / 2;
    // A little before, as moka's counts lag behind. By then the cache holds no more than five eighths.
    let sketch = if weight < half && weight.saturating_add(half / 4) >= half {
        (entries * 5 / 8).next_power_of_two() * 8
    } else {
        0
    };
    let segment = entries.saturating_mul(16) / u64::from(segments_for(capacity));
    usize::try_from(segment + sketch).unwrap_or(usize::MAX)
}

/// Has memory that was given back be there for whatever asks for some next.
pub(crate) fn tidy() {
    allocator::tidy();
}

/// Has memory that was given back be there in pieces as large as can be.
pub(crate) fn trim() {
    allocator::trim();
}

/// Whether there is memory left to evict with.
pub(crate) fn can_evict() -> bool {
    can_be_had(TO_EVICT)
}

/// Whether there is memory for a walk over so many entries: a pointer for each, in a vector that doubles.
pub(crate) fn can_walk(entries: u64) -> bool {
    usize::try_from(entries).is_ok_and(|entries| can_be_had(TO_EVICT.saturating_add(entries.saturating_mul(12))))
}

/// What it takes to move so many entries to another moka cache: the key and the value of each, in a vector that doubles.
pub(crate) fn to_move(entries: u64) -> usize {
    usize::try_from(entries).unwrap_or(usize::MAX).saturating_mul(3 * size_of::<(Arc<Key>, Value)>())
}

/// Whether so many entries can be moved to another moka cache, which is made for them.
pub(crate) fn can_move(entries: u64) -> bool {
    can_be_had((TO_EVICT + EMPTY_CACHE).saturating_add(to_move(entries)))
}

/// moka frees what it takes out some time after that, up to 500 entries later: until then their removal takes memory. This
/// much is kept for it, in bytes, untouched as long as there is other memory.
const RESERVE: usize = 64 << 10;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Sees to the memory that is kept for [`with_reserve`]; whether it is.
pub(crate) fn keep_reserve() -> bool {
    let mut kept = KEPT.take();
    let keeps = kept.try_reserve_exact(RESERVE).is_ok();
    KEPT.set(kept);
    keeps
}

/// Runs `work` with the memory that is kept for such work. Without memory to keep it again, that is made up for before
/// anything is stored.
pub(crate) fn with_reserve<T>(work: impl FnOnce() -> T) -> T {
    drop(KEPT.take());
    let result = work();
    keep_reserve();
    result
}

/// Whether a cache can be opened, its tables made and its queues filled, and there is memory left for arguments and for an
/// entry. Where it can, the guest holds that memory.
pub(crate) fn can_open() -> bool {
    keep_reserve() && can_be_had((TABLES_AT_FIRST + LEAST_HEADROOM).saturating_add(ALL_AHEAD.get()))
}

/// Whether there is memory for the tables of an empty moka cache.
pub(crate) fn holds_tables() -> bool {
    can_be_had(EMPTY_TABLES)
}

/// Whether an empty moka cache can be made.
pub(crate) fn holds_empty_cache() -> bool {
    can_be_had(EMPTY_CACHE)
}

/// Whether there are so many bytes in one piece.
pub(crate) fn can_be_had(size: usize) -> bool {
    allocator::uncounted(|| {
        let mut probe = Vec::<u8>::new();
        let had = probe.try_reserve_exact(size).is_ok();
        // A compiler that sees that nobody uses the memory need not ask for it, and may say that there is some.
        black_box(&probe);
        had
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_whatever_the_entries() {
        for capacity in [None, Some(1), Some(3), Some(1000), Some(SCALE), Some(SCALE + 1), Some(u64::MAX)] {
            let budget = Budget::new(64 << 20, 1 << 18, capacity);
            for (charge, weight) in [(ENTRY_OVERHEAD, 1), (400, 0), (1 << 20, 7), (budget.entry_limit(), 1000)] {
                let weighed = u64::from(budget.weigh(charge, weight));
                let fit = budget.max_weight / weighed.max(1);
                assert!(fit * charge <= budget.bytes, "{capacity:?} {charge}");
                assert!(capacity.is_none_or(|c| weight == 0 || u128::from(fit) * u128::from(weight) <= c.into()));
            }
        }
    }

    #[test]
    fn small_entries_leave_the_whole_capacity_to_the_weights() {
        let budget = Budget::new(64 << 20, 1 << 18, Some(1000));
        assert_eq!(budget.max_weight / u64::from(budget.weigh(400, 1)), 1000);
    }
}
