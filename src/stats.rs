//! Counters since a cache was opened, and its size.

/// See the WIT record of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups that found a live entry.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Values stored.
    pub insertions: u64,
    /// Entries removed because a deadline passed.
    pub expired: u64,
    /// Entries removed by `remove`, `remove_many` and `clear`.
    pub explicit: u64,
    /// Entries whose value was overwritten.
    pub replaced: u64,
    /// Entries removed because the cache was too full.
    pub size: u64,
    /// Removals that did not fit into the log.
    pub removals_lost: u64,
    /// Entries now.
    pub entries: u64,
    /// Their weights, summed up.
    pub weight: u64,
    /// Bytes of linear memory of the whole guest; 0 outside wasm.
    pub memory_bytes: u64,
}
