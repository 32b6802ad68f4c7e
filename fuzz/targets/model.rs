//! What a cache may answer: a key is absent or holds the last value that was set, an entry lives no longer than its
//! deadline, and nothing is lost that need not be.

use std::collections::HashMap;

use moka_cache::{EntryOptions, Life};

/// A time that never comes.
pub const NEVER: u64 = u64::MAX;

/// By how many nanoseconds an entry may expire before its deadline.
const EARLY: u64 = 64;

/// For how many nanoseconds entries that have expired may be left in the cache by `run-pending-tasks`.
const LEFT: u64 = 17_000_000;

/// What the cache was last told of a key.
pub struct Entry {
    pub value: Vec<u8>,
    weight: u32,
    /// The number of the first of the stores that this key was there ever since.
    pub since: u64,
    deadline: u64,
    idle: u64,
    idle_deadline: u64,
}

impl Entry {
    /// When it is gone at the latest.
    pub fn expires(&self) -> u64 {
        self.deadline.min(self.idle_deadline)
    }

    /// Whether it may be there.
    pub fn may_live(&self, now: u64) -> bool {
        now < self.expires()
    }

    /// Whether no deadline is a reason for it not to be there.
    pub fn must_live(&self, now: u64) -> bool {
        self.expires() == NEVER || now.saturating_add(EARLY) < self.expires()
    }
}

/// The entries that may be in a cache. Times are in nanoseconds, as the cache sees them.
pub struct Model {
    pub entries: HashMap<Vec<u8>, Entry>,
    /// Those that have expired, and may be counted still.
    expired: HashMap<Vec<u8>, Entry>,
    /// How many values were stored.
    pub stored: u64,
    /// Whether entries may be evicted.
    evicts: bool,
    ttl: Option<u64>,
    tti: Option<u64>,
}

impl Model {
    pub fn new(ttl: Option<u64>, tti: Option<u64>, evicts: bool) -> Self {
        Self { entries: HashMap::new(), expired: HashMap::new(), stored: 0, evicts, ttl, tti }
    }

    /// Whether the cache need not hold the entry any more.
    pub fn may_be_lost(&self, entry: &Entry, now: u64) -> bool {
        self.evicts || !entry.must_live(now)
    }

    /// A value was stored.
    pub fn put(&mut self, now: u64, key: Vec<u8>, value: Vec<u8>, options: &EntryOptions) {
        let earlier = |own: Option<u64>, all: Option<u64>| own.into_iter().chain(all).min().unwrap_or(NEVER);
        let deadline = now.saturating_add(earlier(options.ttl, self.ttl));
        let idle = earlier(options.tti, self.tti);
        self.stored += 1;
        let before = self.entries.get(&key).filter(|entry| !self.may_be_lost(entry, now));
        let since = before.map_or(self.stored, |entry| entry.since);
        let (weight, idle_deadline) = (options.weight, now.saturating_add(idle));
        self.expired.remove(&key);
        self.entries.insert(key, Entry { value, weight, since, deadline, idle, idle_deadline });
    }

    /// A value was answered, or that there is none; a read extends the time to idle.
    pub fn answered(&mut self, now: u64, key: &[u8], found: Option<&[u8]>, read: bool) {
        self.there(now, key, found.is_some());
        if let (Some(found), Some(entry)) = (found, self.entries.get_mut(key)) {
            assert!(entry.value == found, "of {}: {} is not {}", Bytes(key), Bytes(found), Bytes(&entry.value));
            if read {
                entry.idle_deadline = now.saturating_add(entry.idle);
            }
        }
    }

    /// It was answered whether there is an entry.
    pub fn there(&mut self, now: u64, key: &[u8], there: bool) {
        match self.entries.get(key) {
            Some(entry) if there => assert!(entry.may_live(now), "{} outlived its deadline", Bytes(key)),
            Some(entry) => {
                assert!(self.may_be_lost(entry, now), "{} was lost", Bytes(key));
                self.expired.extend(self.entries.remove_entry(key).filter(|(_, entry)| !entry.must_live(now)));
            }
            None => assert!(!there, "{} should be absent", Bytes(key)),
        }
    }

    /// A key was taken out; answers what it may have held.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.expired.remove(key);
        self.entries.remove(key)
    }

    /// All keys were taken out.
    pub fn clear(&mut self) {
        self.expired.clear();
        self.entries.clear();
    }

    /// A live entry was given a new life, or there was none.
    pub fn expired(&mut self, now: u64, key: &[u8], life: Option<u64>, there: bool) {
        self.there(now, key, there);
        // The end of time is no life without end.
        let deadline = life.map_or(NEVER, |life| now.saturating_add(life).min(NEVER - 1));
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.deadline, entry.idle, entry.idle_deadline) = (deadline, NEVER, NEVER);
        }
    }

    /// It was answered how long an entry has to live.
    pub fn remains(&mut self, now: u64, key: &[u8], life: Life) {
        self.there(now, key, life != Life::Absent);
        if let Some(entry) = self.entries.get(key) {
            let expected = match entry.expires() {
                NEVER => Life::Unlimited,
                deadline => Life::Limited(deadline - now),
            };
            assert_eq!(expected, life, "of {}", Bytes(key));
        }
    }

    /// The cache did its pending tasks, and has so many entries, that weigh so much.
    pub fn counted(&self, now: u64, entries: u64, weight: u64) {
        let must_be = |entry: &&Entry| !self.may_be_lost(entry, now);
        let may_be = |entry: &&Entry| now < entry.expires().saturating_add(LEFT);
        let weigh = |weight, entry: &Entry| weight + u64::from(entry.weight);
        let least = || self.entries.values().filter(must_be);
        let most = || self.entries.values().chain(self.expired.values()).filter(may_be);
        let counts = least().count() as u64..=most().count() as u64;
        assert!(counts.contains(&entries), "{entries} entries, not {counts:?}");
        let weights = least().fold(0, weigh)..=most().fold(0, weigh);
        assert!(weights.contains(&weight), "a weight of {weight}, not {weights:?}");
    }
}

/// Shows the beginning of bytes, and how many there are.
pub struct Bytes<'a>(pub &'a [u8]);

impl std::fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ({} bytes)", &self.0[..self.0.len().min(8)], self.0.len())
    }
}
