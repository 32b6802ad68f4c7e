//! The conformance suite over the component.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use moka_cache_host::cache::{FillError, LookupResult};
use moka_cache_host::types::{
    self, Cause, ConfigField, EntryOptions, GetOrInsertResult, Policy, RemainingLife, SetError,
};
use moka_cache_host::{Host, Provider, cache, component_path, instantiate};
use wasmtime::component::{Component, ResourceAny};
use wasmtime::{Engine, Store};

#[path = "../../tests/support/conformance.rs"]
#[macro_use]
mod conformance;
use conformance::{Clock, Config, Entry, Life, Lookup, Options, Refusal, Removal, Subject};

struct ComponentFace {
    store: Store<Host>,
    provider: Provider,
}

impl ComponentFace {
    /// The functions of the resource `cache`, and the store to call them in.
    fn caches(&mut self) -> (cache::GuestCache<'_>, &mut Store<Host>) {
        (self.provider.moka_cache_cache().cache(), &mut self.store)
    }
}

/// Calls a function of the resource `cache`. Nothing traps.
macro_rules! call {
    ($self:ident.$function:ident($($argument:expr),*)) => {{
        let (caches, store) = $self.caches();
        caches.$function(store, $($argument),*).expect("no trap")
    }};
}

impl Subject for ComponentFace {
    type Cache = ResourceAny;
    type Lease = ResourceAny;
    type Cursor = ResourceAny;

    const LINEAR_MEMORY: bool = true;

    fn new(clock: Clock) -> Self {
        static COMPONENT: OnceLock<Component> = OnceLock::new();
        let component = COMPONENT.get_or_init(|| {
            Component::from_file(&Engine::default(), component_path().expect("the component is built"))
                .expect("the component compiles")
        });
        let host = Host::with_clock(move || clock.read());
        let (store, provider) = instantiate(component.engine(), component, host).expect("an instance");
        Self { store, provider }
    }

    fn open(&mut self, config: &Config) -> Result<ResourceAny, &'static str> {
        let config = types::Config {
            name: config.name.clone(),
            capacity: config.capacity,
            ttl: config.ttl,
            tti: config.tti,
            policy: if config.lru { Policy::Lru } else { Policy::TinyLfu },
            memory_limit: config.memory_limit,
            removal_log: config.removal_log,
        };
        call!(self.call_open(&config)).map_err(|error| {
            assert!(!error.reason.is_empty(), "a person is to read why");
            match error.field {
                ConfigField::Name => "name",
                ConfigField::Capacity => "capacity",
                ConfigField::Ttl => "ttl",
                ConfigField::Tti => "tti",
                ConfigField::Policy => "policy",
                ConfigField::MemoryLimit => "memory-limit",
                ConfigField::RemovalLog => "removal-log",
            }
        })
    }

    fn drop_cache(&mut self, cache: ResourceAny) {
        cache.resource_drop(&mut self.store).expect("no trap");
    }

    fn get(&mut self, cache: &ResourceAny, key: &[u8]) -> Option<Vec<u8>> {
        call!(self.call_get(*cache, &key.to_vec()))
    }

    fn contains(&mut self, cache: &ResourceAny, key: &[u8]) -> bool {
        call!(self.call_contains(*cache, &key.to_vec()))
    }

    fn set(&mut self, cache: &ResourceAny, key: &[u8], value: &[u8], options: Options) -> Result<(), Refusal> {
        call!(self.call_set(*cache, &key.to_vec(), &value.to_vec(), entry_options(options))).map_err(refusal)
    }

    fn get_or_insert(
        &mut self,
        cache: &ResourceAny,
        key: &[u8],
        value: &[u8],
        options: Options,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        match call!(self.call_get_or_insert(*cache, &key.to_vec(), &value.to_vec(), entry_options(options))) {
            Ok(GetOrInsertResult::Inserted) => Ok(None),
            Ok(GetOrInsertResult::Present(value)) => Ok(Some(value)),
            Err(error) => Err(refusal(error)),
        }
    }

    fn expire(&mut self, cache: &ResourceAny, key: &[u8], remaining: Option<u64>) -> bool {
        call!(self.call_expire(*cache, &key.to_vec(), remaining))
    }

    fn remaining(&mut self, cache: &ResourceAny, key: &[u8]) -> Life {
        match call!(self.call_remaining(*cache, &key.to_vec())) {
            RemainingLife::Absent => Life::Absent,
            RemainingLife::Unlimited => Life::Unlimited,
            RemainingLife::Limited(life) => Life::Limited(life),
        }
    }

    fn remove(&mut self, cache: &ResourceAny, key: &[u8]) -> Option<Vec<u8>> {
        call!(self.call_remove(*cache, &key.to_vec()))
    }

    fn clear(&mut self, cache: &ResourceAny) {
        call!(self.call_clear(*cache));
    }

    fn get_many(&mut self, cache: &ResourceAny, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        call!(self.call_get_many(*cache, keys))
    }

    fn set_many(&mut self, cache: &ResourceAny, entries: &[Entry]) -> Result<(), (u32, Refusal)> {
        let entries: Vec<_> =
            entries.iter().map(|(key, value, options)| (key.clone(), value.clone(), entry_options(*options))).collect();
        call!(self.call_set_many(*cache, &entries)).map_err(|error| (error.index, refusal(error.reason)))
    }

    fn remove_many(&mut self, cache: &ResourceAny, keys: &[Vec<u8>]) -> u32 {
        call!(self.call_remove_many(*cache, keys))
    }

    fn keys(&mut self, cache: &ResourceAny) -> ResourceAny {
        call!(self.call_keys(*cache))
    }

    fn next(&mut self, cursor: &mut ResourceAny, limit: u32) -> Vec<Vec<u8>> {
        let cursors = self.provider.moka_cache_cache().key_cursor();
        cursors.call_next(&mut self.store, *cursor, limit).expect("no trap")
    }

    fn drop_cursor(&mut self, cursor: ResourceAny) {
        cursor.resource_drop(&mut self.store).expect("no trap");
    }

    fn entry_count(&mut self, cache: &ResourceAny) -> u64 {
        call!(self.call_entry_count(*cache))
    }

    fn weighted_size(&mut self, cache: &ResourceAny) -> u64 {
        call!(self.call_weighted_size(*cache))
    }

    fn run_pending_tasks(&mut self, cache: &ResourceAny) {
        call!(self.call_run_pending_tasks(*cache));
    }

    fn stats(&mut self, cache: &ResourceAny) -> BTreeMap<&'static str, u64> {
        let stats = call!(self.call_stats(*cache));
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

    fn drain_removals(&mut self, cache: &ResourceAny, limit: u32) -> (Vec<Removal>, u64) {
        let drained = call!(self.call_drain_removals(*cache, limit));
        let removals = drained.removals.into_iter().map(|removal| {
            let cause = match removal.cause {
                Cause::Expired => "expired",
                Cause::Explicit => "explicit",
                Cause::Replaced => "replaced",
                Cause::Size => "size",
            };
            (removal.key, removal.value, cause)
        });
        (removals.collect(), drained.lost)
    }

    fn lookup(&mut self, cache: &ResourceAny, key: &[u8], lease_life: u64) -> Lookup<ResourceAny> {
        match call!(self.call_lookup(*cache, &key.to_vec(), lease_life)) {
            LookupResult::Hit(value) => Lookup::Hit(value),
            LookupResult::Lead(lease) => Lookup::Lead(lease),
            LookupResult::Busy => Lookup::Busy,
        }
    }

    fn fill(&mut self, lease: ResourceAny, value: &[u8], options: Options) -> Result<(), Refusal> {
        let leases = self.provider.moka_cache_cache().lease();
        let filled = leases.call_fill(&mut self.store, lease, &value.to_vec(), entry_options(options));
        filled.expect("no trap").map_err(|error| match error {
            FillError::Lapsed => Refusal::Lapsed,
            FillError::Refused(error) => refusal(error),
        })
    }

    fn drop_lease(&mut self, lease: ResourceAny) {
        lease.resource_drop(&mut self.store).expect("no trap");
    }
}

fn entry_options(Options { ttl, tti, weight }: Options) -> EntryOptions {
    EntryOptions { ttl, tti, weight }
}

fn refusal(error: SetError) -> Refusal {
    match error {
        SetError::TooLarge(types::TooLarge { size, limit }) => Refusal::TooLarge { size, limit },
        SetError::OutOfMemory => Refusal::OutOfMemory,
    }
}

conformance_tests!(ComponentFace);
