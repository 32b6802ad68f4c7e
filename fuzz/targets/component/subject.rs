//! One cache of the component, beside what is known of it.

use std::collections::{HashMap, HashSet};

use moka_cache::{EntryOptions, Life};
use moka_cache_host::types::{self, RemainingLife, SetError};
use wasmtime::component::ResourceAny;

use crate::model::{Bytes, Model};
use crate::sandbox::Reads::{Never, Once};
use crate::sandbox::Sandbox;

/// What makes a value known: how long it is, and how it begins.
type Mark = (usize, Vec<u8>);

fn mark(value: &[u8]) -> Mark {
    (value.len(), value[..value.len().min(4)].to_vec())
}

/// The value of this number.
pub fn value(number: u32, length: usize) -> Vec<u8> {
    let start = number.to_le_bytes();
    let mut value = start.to_vec();
    value.resize(length, start[0]);
    value
}

/// Whether [`value`] makes it.
fn is_value(bytes: &[u8]) -> bool {
    // The second comparison is of memory, not of bytes one by one.
    bytes.len() <= 4 || bytes[4] == bytes[0] && bytes[5..] == bytes[4..bytes.len() - 1]
}

/// A cache.
pub struct Subject {
    /// Unlike its handle, no other cache's later on.
    pub id: u32,
    pub handle: ResourceAny,
    pub model: Model,
    /// By key, the lease that is out, and when it ends.
    leases: HashMap<Vec<u8>, (u64, u64)>,
    leases_given: u64,
    config: types::Config,
    /// Whether the host may refuse memory.
    walled: bool,
    hits: u64,
    misses: u64,
    insertions: u64,
    /// How often each value was stored under each key and was not told to have left.
    stored: HashMap<(Vec<u8>, Mark), u64>,
    drained: u64,
    lost: u64,
}

impl Subject {
    /// Opens a cache, unless there is something wrong with its configuration.
    pub fn open(sandbox: &mut Sandbox, id: u32, config: types::Config, walled: bool) -> Option<Self> {
        let wrong = [
            (types::ConfigField::Ttl, config.ttl == Some(0)),
            (types::ConfigField::Tti, config.tti == Some(0)),
            (types::ConfigField::MemoryLimit, config.memory_limit.is_some_and(|limit| limit < 1 << 20)),
        ];
        match sandbox.call(Once, |face, store| face.cache().call_open(store, &config)) {
            Ok(handle) => {
                assert!(wrong.iter().all(|(_, wrong)| !wrong), "opened with {config:?}");
                let evicts = config.capacity.is_some() || config.memory_limit.is_some() || walled;
                let model = Model::new(config.ttl, config.tti, evicts);
                Some(Self {
                    id,
                    handle,
                    model,
                    leases: HashMap::new(),
                    leases_given: 0,
                    config,
                    walled,
                    hits: 0,
                    misses: 0,
                    insertions: 0,
                    stored: HashMap::new(),
                    drained: 0,
                    lost: 0,
                })
            }
            Err(error) => {
                let no_memory = walled && error.field == types::ConfigField::MemoryLimit;
                assert!(no_memory || wrong.contains(&(error.field, true)), "{config:?} is refused for {error:?}");
                assert!(!error.reason.is_empty(), "a person is to read why");
                None
            }
        }
    }

    fn logs(&self) -> bool {
        self.config.removal_log.is_some_and(|limit| limit > 0)
    }

    /// A lookup was answered.
    fn looked_up(&mut self, now: u64, key: &[u8], found: Option<&[u8]>) {
        *(if found.is_some() { &mut self.hits } else { &mut self.misses }) += 1;
        self.model.answered(now, key, found, true);
    }

    /// A value was stored.
    fn put(&mut self, now: u64, key: Vec<u8>, value: Vec<u8>, options: &EntryOptions) {
        self.insertions += 1;
        self.leases.remove(&key);
        if self.logs() {
            *self.stored.entry((key.clone(), mark(&value))).or_default() += 1;
        }
        self.model.put(now, key, value, options);
    }

    /// A value was refused: for a reason that there can be.
    fn refused(&self, key: &[u8], value: &[u8], reason: SetError) {
        match reason {
            SetError::TooLarge(types::TooLarge { size, limit }) => {
                assert!(self.config.memory_limit.is_some_and(|most| limit <= most), "a limit of {limit}");
                assert!(size > limit && size >= (key.len() + value.len()) as u64, "{size} bytes, with {limit}");
            }
            SetError::OutOfMemory => assert!(self.walled, "the host refused no memory"),
        }
    }

    pub fn get(&mut self, sandbox: &mut Sandbox, key: &[u8]) {
        let found = sandbox.call(Once, |face, store| face.cache().call_get(store, self.handle, &key.to_vec()));
        self.looked_up(sandbox.now(), key, found.as_deref());
    }

    pub fn contains(&mut self, sandbox: &mut Sandbox, key: &[u8]) {
        let there = sandbox.call(Once, |face, store| face.cache().call_contains(store, self.handle, &key.to_vec()));
        self.model.there(sandbox.now(), key, there);
    }

    pub fn set(&mut self, sandbox: &mut Sandbox, key: Vec<u8>, value: Vec<u8>, options: &EntryOptions) {
        match sandbox.call(Once, |face, store| face.cache().call_set(store, self.handle, &key, &value, wit(options))) {
            Ok(()) => self.put(sandbox.now(), key, value, options),
            Err(reason) => self.refused(&key, &value, reason),
        }
    }

    pub fn get_or_insert(&mut self, sandbox: &mut Sandbox, key: Vec<u8>, value: Vec<u8>, options: &EntryOptions) {
        let found = sandbox
            .call(Once, |face, store| face.cache().call_get_or_insert(store, self.handle, &key, &value, wit(options)));
        let now = sandbox.now();
        match found {
            Ok(types::GetOrInsertResult::Present(found)) => self.looked_up(now, &key, Some(&found)),
            Ok(types::GetOrInsertResult::Inserted) => {
                self.looked_up(now, &key, None);
                self.put(now, key, value, options);
            }
            Err(reason) => {
                self.looked_up(now, &key, None);
                self.refused(&key, &value, reason);
            }
        }
    }

    pub fn expire(&mut self, sandbox: &mut Sandbox, key: &Vec<u8>, life: Option<u64>) {
        let there = sandbox.call(Once, |face, store| face.cache().call_expire(store, self.handle, key, life));
        self.model.expired(sandbox.now(), key, life, there);
    }

    pub fn remaining(&mut self, sandbox: &mut Sandbox, key: &Vec<u8>) {
        let life = match sandbox.call(Once, |face, store| face.cache().call_remaining(store, self.handle, key)) {
            RemainingLife::Absent => Life::Absent,
            RemainingLife::Unlimited => Life::Unlimited,
            RemainingLife::Limited(life) => Life::Limited(life),
        };
        self.model.remains(sandbox.now(), key, life);
    }

    pub fn remove(&mut self, sandbox: &mut Sandbox, key: &Vec<u8>) {
        let found = sandbox.call(Once, |face, store| face.cache().call_remove(store, self.handle, key));
        self.model.answered(sandbox.now(), key, found.as_deref(), false);
        self.model.remove(key);
        self.leases.remove(key);
    }

    pub fn clear(&mut self, sandbox: &mut Sandbox) {
        sandbox.call(Once, |face, store| face.cache().call_clear(store, self.handle));
        self.model.clear();
        self.leases.clear();
    }

    pub fn get_many(&mut self, sandbox: &mut Sandbox, keys: &[Vec<u8>]) {
        let answers = sandbox.call(Once, |face, store| face.cache().call_get_many(store, self.handle, keys));
        assert_eq!(keys.len(), answers.len(), "answers");
        for (key, found) in keys.iter().zip(answers) {
            self.looked_up(sandbox.now(), key, found.as_deref());
        }
    }

    pub fn set_many(&mut self, sandbox: &mut Sandbox, entries: Vec<(Vec<u8>, Vec<u8>, types::EntryOptions)>) {
        let mut stored = entries.len();
        if let Err(error) = sandbox.call(Once, |face, store| face.cache().call_set_many(store, self.handle, &entries)) {
            stored = error.index as usize;
            let (key, value, _) = &entries[stored];
            self.refused(key, value, error.reason);
        }
        for (key, value, types::EntryOptions { ttl, tti, weight }) in entries.into_iter().take(stored) {
            self.put(sandbox.now(), key, value, &EntryOptions { ttl, tti, weight });
        }
    }

    pub fn remove_many(&mut self, sandbox: &mut Sandbox, keys: &[Vec<u8>]) {
        let removed = sandbox.call(Once, |face, store| face.cache().call_remove_many(store, self.handle, keys));
        let now = sandbox.now();
        let entries: Vec<_> = keys.iter().filter_map(|key| self.model.remove(key)).collect();
        let least = entries.iter().filter(|entry| !self.model.may_be_lost(entry, now)).count();
        let most = entries.iter().filter(|entry| entry.may_live(now)).count();
        assert!((least..=most).contains(&(removed as usize)), "{removed} removed, not {least} to {most}");
        for key in keys {
            self.leases.remove(key);
        }
    }

    pub fn count(&mut self, sandbox: &mut Sandbox) -> (u64, u64) {
        let entries = sandbox.call(Never, |face, store| face.cache().call_entry_count(store, self.handle));
        (entries, sandbox.call(Never, |face, store| face.cache().call_weighted_size(store, self.handle)))
    }

    pub fn run_pending(&mut self, sandbox: &mut Sandbox) {
        sandbox.call(Once, |face, store| face.cache().call_run_pending_tasks(store, self.handle));
        let (entries, weight) = self.count(sandbox);
        self.model.counted(sandbox.now(), entries, weight);
        assert!(self.config.capacity.is_none_or(|most| weight <= most), "{weight} in {:?}", self.config.capacity);
    }

    /// Answers how many entries have left.
    pub fn stats(&mut self, sandbox: &mut Sandbox) -> u64 {
        let stats = sandbox.call(Never, |face, store| face.cache().call_stats(store, self.handle));
        let counts = (stats.hits, stats.misses, stats.insertions);
        assert_eq!((self.hits, self.misses, self.insertions), counts, "hits, misses, insertions: {stats:?}");
        let left = stats.expired + stats.explicit + stats.replaced + stats.size;
        assert_eq!(stats.insertions, left + stats.entries, "{stats:?}");
        assert_eq!((stats.entries, stats.weight), self.count(sandbox), "{stats:?}");
        assert!(stats.memory_bytes.is_multiple_of(1 << 16), "{stats:?}");
        if self.logs() {
            let logged = left.checked_sub(self.drained + stats.removals_lost).expect("no more removals than have left");
            assert!(logged <= self.config.removal_log.unwrap_or(0).into(), "{logged} logged: {stats:?}");
        } else {
            assert_eq!(0, stats.removals_lost, "{stats:?}");
        }
        left
    }

    /// Answers how many removals were drained.
    pub fn drain(&mut self, sandbox: &mut Sandbox, limit: u32) -> usize {
        let drained = sandbox.call(Never, |face, store| face.cache().call_drain_removals(store, self.handle, limit));
        assert!(drained.removals.len() <= limit as usize, "{} removals", drained.removals.len());
        self.drained += drained.removals.len() as u64;
        self.lost += drained.lost;
        let (now, count) = (sandbox.now(), drained.removals.len());
        for types::Removal { key, value, .. } in drained.removals {
            assert!(is_value(&value), "{} was never stored", Bytes(&value));
            // Values of this length are stored once.
            if value.len() >= 4 && self.model.entries.get(&key).is_some_and(|entry| entry.value == value) {
                self.model.there(now, &key, false);
            }
            let stored = self.stored.get_mut(&(key, mark(&value))).expect("a removal of what was stored");
            *stored = stored.checked_sub(1).expect("a removal for each that was stored");
        }
        count
    }

    /// Looks at everything that can be seen. A page of the removals, or of the keys, has no more than so many.
    pub fn check(&mut self, sandbox: &mut Sandbox, page: u32) {
        self.run_pending(sandbox);
        let left = self.stats(sandbox);
        while self.drain(sandbox, page) == page as usize {}
        assert_eq!(left, self.stats(sandbox), "what has left");
        assert!(!self.logs() || self.drained + self.lost == left, "{} and {} of {left}", self.drained, self.lost);
        let mut walk = Walk::begin(self, sandbox);
        while walk.next(Some(self), sandbox, page) {}
        walk.drop(sandbox);
    }

    /// Answers the lease, if the caller leads.
    pub fn lookup(&mut self, sandbox: &mut Sandbox, key: Vec<u8>, life: u64) -> Option<Lease> {
        use moka_cache_host::cache::LookupResult;
        let found = sandbox.call(Once, |face, store| face.cache().call_lookup(store, self.handle, &key, life));
        let now = sandbox.now();
        let leased = self.leases.get(&key).is_some_and(|(_, ends)| now < *ends);
        match found {
            LookupResult::Hit(value) => self.looked_up(now, &key, Some(&value)),
            LookupResult::Busy => {
                self.looked_up(now, &key, None);
                assert!(leased || self.walled, "busy, with no lease on {}", Bytes(&key));
            }
            LookupResult::Lead(handle) => {
                self.looked_up(now, &key, None);
                assert!(!leased, "a second lease on {}", Bytes(&key));
                self.leases_given += 1;
                self.leases.insert(key.clone(), (self.leases_given, now.saturating_add(life)));
                return Some(Lease { handle, cache: self.id, key, number: self.leases_given });
            }
        }
        None
    }

    /// Whether this lease is still the one on its key, and when it ends.
    fn out(&self, lease: &Lease) -> Option<u64> {
        self.leases.get(&lease.key).filter(|(number, _)| *number == lease.number).map(|(_, ends)| *ends)
    }
}

/// A lease that is held.
pub struct Lease {
    handle: ResourceAny,
    pub cache: u32,
    key: Vec<u8>,
    number: u64,
}

impl Lease {
    /// `cache` is its cache, if that is still there.
    pub fn fill(self, cache: Option<&mut Subject>, sandbox: &mut Sandbox, value: Vec<u8>, options: &EntryOptions) {
        use moka_cache_host::cache::FillError;
        let reads = if cache.is_some() { Once } else { Never };
        let filled =
            sandbox.call(reads, |face, store| face.lease().call_fill(store, self.handle, &value, wit(options)));
        let now = sandbox.now();
        let Some(cache) = cache else {
            assert!(matches!(filled, Err(FillError::Lapsed)), "{filled:?}, without its cache");
            return;
        };
        let out = cache.out(&self);
        assert_eq!(
            out.is_some_and(|ends| now < ends),
            !matches!(filled, Err(FillError::Lapsed)),
            "{filled:?} on {}",
            Bytes(&self.key)
        );
        if out.is_some() {
            cache.leases.remove(&self.key);
        }
        match filled {
            Ok(()) => cache.put(now, self.key, value, options),
            Err(FillError::Refused(reason)) => cache.refused(&self.key, &value, reason),
            Err(FillError::Lapsed) => {}
        }
    }

    /// `cache` is its cache, if that is still there.
    pub fn drop(self, cache: Option<&mut Subject>, sandbox: &mut Sandbox) {
        sandbox.release(self.handle);
        if let Some(cache) = cache
            && cache.out(&self).is_some()
        {
            cache.leases.remove(&self.key);
        }
    }
}

/// A walk over the keys of a cache.
pub struct Walk {
    handle: ResourceAny,
    pub cache: u32,
    /// Those that it may still hand out.
    keys: HashSet<Vec<u8>>,
    /// How many values had been stored when it began.
    stored: u64,
    over: bool,
}

impl Walk {
    pub fn begin(cache: &Subject, sandbox: &mut Sandbox) -> Self {
        let handle = sandbox.call(Once, |face, store| face.cache().call_keys(store, cache.handle));
        let now = sandbox.now();
        let entries = cache.model.entries.iter().filter(|(_, entry)| entry.may_live(now));
        let keys = entries.map(|(key, _)| key.clone()).collect();
        Self { handle, cache: cache.id, keys, stored: cache.model.stored, over: false }
    }

    /// Asks for a page; whether there may be another. `cache` is its cache, if that is still there.
    pub fn next(&mut self, cache: Option<&mut Subject>, sandbox: &mut Sandbox, limit: u32) -> bool {
        let reads = if cache.is_some() { Once } else { Never };
        let page = sandbox.call(reads, |face, store| face.key_cursor().call_next(store, self.handle, limit));
        let now = sandbox.now();
        let limit = limit.max(1) as usize;
        assert!(page.len() <= limit, "a page of {} keys", page.len());
        assert!(page.is_empty() || !self.over, "a key after the end of the walk");
        self.over = page.len() < limit;
        let Some(cache) = cache else {
            assert!(page.is_empty(), "a key without its cache");
            return false;
        };
        for key in page {
            assert!(self.keys.remove(&key), "{} was not there, or was handed out before", Bytes(&key));
            cache.model.there(now, &key, true);
        }
        // Those that stayed since the beginning must have come.
        for key in self.keys.iter().filter(|_| self.over) {
            let entry = cache.model.entries.get(key).filter(|entry| entry.since <= self.stored);
            assert!(entry.is_none_or(|entry| cache.model.may_be_lost(entry, now)), "no {}", Bytes(key));
        }
        !self.over
    }

    pub fn drop(self, sandbox: &mut Sandbox) {
        sandbox.release(self.handle);
    }
}

pub fn wit(&EntryOptions { ttl, tti, weight }: &EntryOptions) -> types::EntryOptions {
    types::EntryOptions { ttl, tti, weight }
}
