//! The conformance suite over the cache itself, natively.
//!
//! Inside wasm the suite runs over the component, where each case has an instance, and so a memory and a clock, of its own:
//! `host-rust/tests/conformance.rs`.
#![cfg(not(target_family = "wasm"))]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use moka_cache::{Cache, Cause, EntryOptions, Field, GetOrInsert, KeyCursor, LeaseId, OpenError, Policy, SetError};

#[path = "support/clock.rs"]
mod clock;
#[path = "support/conformance.rs"]
#[macro_use]
mod conformance;
use conformance::{Clock, Config, Entry, Life, Lookup, Options, Refusal, Removal, Subject};

/// The cache itself. A cursor or a lease knows its cache weakly, as in the component.
struct Core {
    clock: Clock,
}

type SharedCache = Rc<RefCell<Cache>>;

impl Core {
    /// Runs one operation, at one reading of the clock.
    fn run<T>(&self, cache: &SharedCache, operation: impl FnOnce(&mut Cache) -> T) -> T {
        clock::step_to(self.clock.read());
        operation(&mut cache.borrow_mut())
    }
}

impl Subject for Core {
    type Cache = SharedCache;
    type Lease = (Weak<RefCell<Cache>>, LeaseId);
    type Cursor = (Weak<RefCell<Cache>>, KeyCursor);

    const LINEAR_MEMORY: bool = false;

    fn new(clock: Clock) -> Self {
        Self { clock }
    }

    fn open(&mut self, config: &Config) -> Result<SharedCache, &'static str> {
        clock::step_to(self.clock.read());
        let config = moka_cache::Config {
            name: config.name.clone(),
            capacity: config.capacity,
            ttl: config.ttl,
            tti: config.tti,
            policy: if config.lru { Policy::Lru } else { Policy::TinyLfu },
            memory_limit: config.memory_limit,
            removal_log: config.removal_log,
        };
        match Cache::open(config, (1, 2)) {
            Ok(cache) => Ok(Rc::new(RefCell::new(cache))),
            Err(OpenError::OutOfMemory) => panic!("there is memory"),
            Err(OpenError::Config(error)) => {
                assert!(!error.reason.is_empty(), "a person is to read why");
                Err(match error.field {
                    Field::Ttl => "ttl",
                    Field::Tti => "tti",
                    Field::Policy => "policy",
                    Field::Name => "name",
                    Field::MemoryLimit => "memory-limit",
                })
            }
        }
    }

    fn drop_cache(&mut self, cache: SharedCache) {
        drop(cache);
    }

    fn get(&mut self, cache: &SharedCache, key: &[u8]) -> Option<Vec<u8>> {
        self.run(cache, |cache| cache.get(key)).as_deref().map(<[u8]>::to_vec)
    }

    fn contains(&mut self, cache: &SharedCache, key: &[u8]) -> bool {
        self.run(cache, |cache| cache.contains(key))
    }

    fn set(&mut self, cache: &SharedCache, key: &[u8], value: &[u8], options: Options) -> Result<(), Refusal> {
        self.run(cache, |cache| cache.set(key, value, &entry_options(options))).map_err(refusal)
    }

    fn get_or_insert(
        &mut self,
        cache: &SharedCache,
        key: &[u8],
        value: &[u8],
        options: Options,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        match self.run(cache, |cache| cache.get_or_insert(key, value, &entry_options(options))) {
            Ok(GetOrInsert::Inserted) => Ok(None),
            Ok(GetOrInsert::Present(value)) => Ok(Some(value.to_vec())),
            Err(error) => Err(refusal(error)),
        }
    }

    fn expire(&mut self, cache: &SharedCache, key: &[u8], remaining: Option<u64>) -> bool {
        self.run(cache, |cache| cache.expire(key, remaining))
    }

    fn remaining(&mut self, cache: &SharedCache, key: &[u8]) -> Life {
        match self.run(cache, |cache| cache.remaining(key)) {
            moka_cache::Life::Absent => Life::Absent,
            moka_cache::Life::Unlimited => Life::Unlimited,
            moka_cache::Life::Limited(life) => Life::Limited(life),
        }
    }

    fn remove(&mut self, cache: &SharedCache, key: &[u8]) -> Option<Vec<u8>> {
        self.run(cache, |cache| cache.remove(key)).as_deref().map(<[u8]>::to_vec)
    }

    fn clear(&mut self, cache: &SharedCache) {
        self.run(cache, Cache::clear);
    }

    fn get_many(&mut self, cache: &SharedCache, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        self.run(cache, |cache| keys.iter().map(|key| cache.get(key).as_deref().map(<[u8]>::to_vec)).collect())
    }

    fn set_many(&mut self, cache: &SharedCache, entries: &[Entry]) -> Result<(), (u32, Refusal)> {
        self.run(cache, |cache| {
            (0..).zip(entries).try_for_each(|(index, (key, value, options))| {
                cache.set(key, value, &entry_options(*options)).map_err(|error| (index, refusal(error)))
            })
        })
    }

    fn remove_many(&mut self, cache: &SharedCache, keys: &[Vec<u8>]) -> u32 {
        self.run(cache, |cache| keys.iter().map(|key| u32::from(cache.remove(key).is_some())).sum())
    }

    fn keys(&mut self, cache: &SharedCache) -> Self::Cursor {
        (Rc::downgrade(cache), self.run(cache, Cache::keys))
    }

    fn next(&mut self, (cache, cursor): &mut Self::Cursor, limit: u32) -> Vec<Vec<u8>> {
        let Some(cache) = cache.upgrade() else { return Vec::new() };
        self.run(&cache, |cache| {
            let mut page = Vec::new();
            while page.len() < limit.max(1) as usize
                && let Some(key) = cursor.next(cache)
            {
                page.push(key.to_vec());
            }
            page
        })
    }

    fn drop_cursor(&mut self, cursor: Self::Cursor) {
        drop(cursor);
    }

    fn entry_count(&mut self, cache: &SharedCache) -> u64 {
        self.run(cache, |cache| cache.entry_count())
    }

    fn weighted_size(&mut self, cache: &SharedCache) -> u64 {
        self.run(cache, |cache| cache.weighted_size())
    }

    fn run_pending_tasks(&mut self, cache: &SharedCache) {
        self.run(cache, Cache::run_pending_tasks);
    }

    fn stats(&mut self, cache: &SharedCache) -> BTreeMap<&'static str, u64> {
        let stats = self.run(cache, |cache| cache.stats());
        BTreeMap::from([
            ("hits", stats.hits),
            ("misses", stats.misses),
            ("insertions", stats.insertions),
            ("expired", stats.expired),
            ("explicit", stats.explicit),
            ("replaced", stats.replaced),
            ("size", stats.size),
            ("removals-lost", stats.removals_lost),
            ("entries", stats.entries),
            ("weight", stats.weight),
            ("memory-bytes", stats.memory_bytes),
        ])
    }

    fn drain_removals(&mut self, cache: &SharedCache, limit: u32) -> (Vec<Removal>, u64) {
        let (removals, lost) = self.run(cache, |cache| cache.drain_removals(limit as usize));
        let removals = removals.into_iter().map(|removal| {
            let cause = match removal.cause {
                Cause::Expired => "expired",
                Cause::Explicit => "explicit",
                Cause::Replaced => "replaced",
                Cause::Size => "size",
            };
            (removal.key.to_vec(), removal.value.to_vec(), cause)
        });
        (removals.collect(), lost)
    }

    fn lookup(&mut self, cache: &SharedCache, key: &[u8], lease_life: u64) -> Lookup<Self::Lease> {
        match self.run(cache, |cache| cache.lookup(key, lease_life)).expect("there is memory") {
            moka_cache::Lookup::Hit(value) => Lookup::Hit(value.to_vec()),
            moka_cache::Lookup::Lead(lease) => Lookup::Lead((Rc::downgrade(cache), lease)),
            moka_cache::Lookup::Busy => Lookup::Busy,
        }
    }

    fn fill(&mut self, (cache, lease): Self::Lease, value: &[u8], options: Options) -> Result<(), Refusal> {
        let cache = cache.upgrade().ok_or(Refusal::Lapsed)?;
        match self.run(&cache, |cache| cache.fill(lease, value, &entry_options(options))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Lapsed),
            Err(error) => Err(refusal(error)),
        }
    }

    fn drop_lease(&mut self, (cache, lease): Self::Lease) {
        if let Some(cache) = cache.upgrade() {
            self.run(&cache, |cache| cache.release(lease));
        }
    }
}

fn entry_options(Options { ttl, tti, weight }: Options) -> EntryOptions {
    EntryOptions { ttl, tti, weight }
}

fn refusal(error: SetError) -> Refusal {
    match error {
        SetError::TooLarge { size, limit } => Refusal::TooLarge { size, limit },
        SetError::OutOfMemory => Refusal::OutOfMemory,
    }
}

conformance_tests!(Core);
