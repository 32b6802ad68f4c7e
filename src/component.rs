//! The component face: the WIT package `moka:cache` over [`crate::cache`]. Bindings and conversion, no logic.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::clock::{self, Source};
use crate::{cache, config, entry, memory, removals};

mod bindings {
    #![allow(unsafe_code, clippy::pedantic, reason = "generated")]
    wit_bindgen::generate!({ path: "wit", world: "provider", generate_all });

    use super::Component;
    export!(Component with_types_in self);
}

use bindings::exports::moka::cache::cache as face;
use bindings::exports::moka::cache::types;
use bindings::wasi::clocks::monotonic_clock;
use bindings::wasi::random::random;

struct Component;

impl face::Guest for Component {
    type Cache = Cache;
    type Lease = Lease;
    type KeyCursor = KeyCursor;
}

/// Two random numbers from the host, to key a hash with.
pub(crate) fn seed() -> (u64, u64) {
    (random::get_random_u64(), random::get_random_u64())
}

type SharedCache = Rc<RefCell<cache::Cache>>;

struct Cache(SharedCache);

impl Cache {
    /// Runs one operation, at one reading of the clock.
    fn run<T>(&self, operation: impl FnOnce(&mut cache::Cache) -> T) -> T {
        run(&self.0, operation)
    }
}

fn run<T>(cache: &SharedCache, operation: impl FnOnce(&mut cache::Cache) -> T) -> T {
    clock::advance(Source::Wasi, monotonic_clock::now());
    operation(&mut cache.borrow_mut())
}

impl face::GuestCache for Cache {
    fn open(config: types::Config) -> Result<face::Cache, types::ConfigError> {
        clock::advance(Source::Wasi, monotonic_clock::now());
        let cache = cache::Cache::open(config.into(), seed())?;
        Ok(face::Cache::new(Self(Rc::new(RefCell::new(cache)))))
    }

    fn get(&self, key: Vec<u8>) -> Option<Vec<u8>> {
        self.run(|cache| cache.get(&key)).as_deref().map(<[u8]>::to_vec)
    }

    fn contains(&self, key: Vec<u8>) -> bool {
        self.run(|cache| cache.contains(&key))
    }

    fn set(&self, key: Vec<u8>, value: Vec<u8>, options: types::EntryOptions) -> Result<(), types::SetError> {
        self.run(|cache| cache.set(&key, &value, &options.into())).map_err(Into::into)
    }

    fn get_or_insert(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        options: types::EntryOptions,
    ) -> Result<types::GetOrInsertResult, types::SetError> {
        match self.run(|cache| cache.get_or_insert(&key, &value, &options.into()))? {
            cache::GetOrInsert::Inserted => Ok(types::GetOrInsertResult::Inserted),
            cache::GetOrInsert::Present(value) => Ok(types::GetOrInsertResult::Present(value.to_vec())),
        }
    }

    fn expire(&self, key: Vec<u8>, remaining: Option<u64>) -> bool {
        self.run(|cache| cache.expire(&key, remaining))
    }

    fn remaining(&self, key: Vec<u8>) -> types::RemainingLife {
        match self.run(|cache| cache.remaining(&key)) {
            cache::Life::Absent => types::RemainingLife::Absent,
            cache::Life::Unlimited => types::RemainingLife::Unlimited,
            cache::Life::Limited(life) => types::RemainingLife::Limited(life),
        }
    }

    fn remove(&self, key: Vec<u8>) -> Option<Vec<u8>> {
        self.run(|cache| cache.remove(&key)).as_deref().map(<[u8]>::to_vec)
    }

    fn clear(&self) {
        self.run(cache::Cache::clear);
    }

    fn get_many(&self, keys: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
        self.run(|cache| keys.iter().map(|key| cache.get(key).as_deref().map(<[u8]>::to_vec)).collect())
    }

    fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>, types::EntryOptions)>) -> Result<(), types::SetManyError> {
        self.run(|cache| {
            for (index, (key, value, options)) in (0..).zip(&entries) {
                let set = cache.set(key, value, &(*options).into());
                set.map_err(|reason| types::SetManyError { index, reason: reason.into() })?;
            }
            Ok(())
        })
    }

    fn remove_many(&self, keys: Vec<Vec<u8>>) -> u32 {
        self.run(|cache| (0..).zip(keys.iter().filter(|key| cache.remove(key).is_some())).map(|(i, _)| i + 1).last())
            .unwrap_or(0)
    }

    fn keys(&self) -> face::KeyCursor {
        // Nor for a walk that there is no memory for.
        let keys = self.run(|cache| if cache.can_walk() { cache.keys() } else { crate::KeyCursor::default() });
        face::KeyCursor::new(KeyCursor { keys: RefCell::new(keys), cache: Rc::downgrade(&self.0) })
    }

    fn entry_count(&self) -> u64 {
        self.0.borrow().entry_count()
    }

    fn weighted_size(&self) -> u64 {
        self.0.borrow().weighted_size()
    }

    fn run_pending_tasks(&self) {
        self.run(cache::Cache::run_pending_tasks);
    }

    fn stats(&self) -> types::Stats {
        self.0.borrow_mut().stats().into()
    }

    fn drain_removals(&self, limit: u32) -> types::Removals {
        let (removals, lost) = self.0.borrow_mut().drain_removals(limit as usize);
        types::Removals { removals: removals.into_iter().map(Into::into).collect(), lost }
    }

    fn lookup(&self, key: Vec<u8>, lease_life: u64) -> face::LookupResult {
        match self.run(|cache| cache.lookup(&key, lease_life)) {
            Ok(cache::Lookup::Hit(value)) => face::LookupResult::Hit(value.to_vec()),
            Ok(cache::Lookup::Lead(id)) => {
                face::LookupResult::Lead(face::Lease::new(Lease { id, cache: Rc::downgrade(&self.0) }))
            }
            // The contract has no case for a want of memory: for now nobody can lead.
            Ok(cache::Lookup::Busy) | Err(_) => face::LookupResult::Busy,
        }
    }
}

struct Lease {
    id: crate::LeaseId,
    cache: Weak<RefCell<cache::Cache>>,
}

impl face::GuestLease for Lease {
    fn fill(lease: face::Lease, value: Vec<u8>, options: types::EntryOptions) -> Result<(), face::FillError> {
        let lease: Self = lease.into_inner();
        let Some(cache) = lease.cache.upgrade() else { return Err(face::FillError::Lapsed) };
        match run(&cache, |cache| cache.fill(lease.id, &value, &options.into())) {
            Ok(true) => Ok(()),
            Ok(false) => Err(face::FillError::Lapsed),
            Err(refused) => Err(face::FillError::Refused(refused.into())),
        }
    }
}

impl Drop for Lease {
    /// After `fill` the id is no longer out, and this does nothing.
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.borrow_mut().release(self.id);
        }
    }
}

struct KeyCursor {
    keys: RefCell<crate::KeyCursor>,
    cache: Weak<RefCell<cache::Cache>>,
}

impl face::GuestKeyCursor for KeyCursor {
    fn next(&self, limit: u32) -> Vec<Vec<u8>> {
        let Some(cache) = self.cache.upgrade() else { return Vec::new() };
        let mut keys = self.keys.borrow_mut();
        run(&cache, |cache| {
            std::iter::from_fn(|| keys.next(cache)).take(limit.max(1) as usize).map(|key| key.to_vec()).collect()
        })
    }
}

impl From<types::Config> for config::Config {
    fn from(config: types::Config) -> Self {
        Self {
            name: config.name,
            capacity: config.capacity,
            ttl: config.ttl,
            tti: config.tti,
            policy: match config.policy {
                types::Policy::TinyLfu => config::Policy::TinyLfu,
                types::Policy::Lru => config::Policy::Lru,
            },
            memory_limit: config.memory_limit,
            removal_log: config.removal_log,
        }
    }
}

impl From<config::OpenError> for types::ConfigError {
    fn from(error: config::OpenError) -> Self {
        let error = match error {
            config::OpenError::Config(error) => error,
            // The contract has no case of its own for it.
            config::OpenError::OutOfMemory => {
                config::ConfigError { field: config::Field::MemoryLimit, reason: memory::OUT_OF_MEMORY.into() }
            }
        };
        let field = match error.field {
            config::Field::Name => types::ConfigField::Name,
            config::Field::Ttl => types::ConfigField::Ttl,
            config::Field::Tti => types::ConfigField::Tti,
            config::Field::Policy => types::ConfigField::Policy,
            config::Field::MemoryLimit => types::ConfigField::MemoryLimit,
        };
        Self { field, reason: error.reason }
    }
}

impl From<types::EntryOptions> for entry::EntryOptions {
    fn from(options: types::EntryOptions) -> Self {
        Self { ttl: options.ttl, tti: options.tti, weight: options.weight }
    }
}

impl From<memory::SetError> for types::SetError {
    fn from(error: memory::SetError) -> Self {
        match error {
            memory::SetError::TooLarge { size, limit } => Self::TooLarge(types::TooLarge { size, limit }),
            memory::SetError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl From<removals::Removal> for types::Removal {
    fn from(removal: removals::Removal) -> Self {
        Self {
            key: removal.key.to_vec(),
            value: removal.value.to_vec(),
            cause: match removal.cause {
                removals::Cause::Expired => types::Cause::Expired,
                removals::Cause::Explicit => types::Cause::Explicit,
                removals::Cause::Replaced => types::Cause::Replaced,
                removals::Cause::Size => types::Cause::Size,
            },
        }
    }
}

impl From<crate::Stats> for types::Stats {
    fn from(stats: crate::Stats) -> Self {
        Self {
            hits: stats.hits,
            misses: stats.misses,
            insertions: stats.insertions,
            expired: stats.expired,
            explicit: stats.explicit,
            replaced: stats.replaced,
            size: stats.size,
            removals_lost: stats.removals_lost,
            entries: stats.entries,
            weight: stats.weight,
            memory_bytes: stats.memory_bytes,
        }
    }
}
