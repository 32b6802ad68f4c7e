//! A cache in a sandbox: opens one, sets, gets, lets an hour go by, and shares one computation among callers.
//!
//! `cargo run -p moka-cache-host --example embed`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka_cache_host::cache::LookupResult;
use moka_cache_host::types::{Config, EntryOptions, Policy};
use moka_cache_host::{Host, component_path, instantiate};
use wasmtime::component::Component;
use wasmtime::{Engine, Result};

const SECOND: u64 = 1_000_000_000;
const DEFAULTS: EntryOptions = EntryOptions { ttl: None, tti: None, weight: 1 };

/// Keys and values are any bytes.
fn bytes(text: &str) -> Vec<u8> {
    text.into()
}

fn main() -> Result<()> {
    // The clock is ours: it moves when we say so. `Host::default()` has the machine's.
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let host = Host::with_clock(move || clock.load(Relaxed));

    let engine = Engine::default();
    let component = Component::from_file(&engine, component_path()?)?;
    let (mut store, provider) = instantiate(&engine, &component, host)?;
    let (caches, leases) = (provider.moka_cache_cache().cache(), provider.moka_cache_cache().lease());

    let config = Config {
        name: "sessions".into(),
        capacity: Some(10_000),
        ttl: Some(3600 * SECOND),
        tti: None,
        policy: Policy::TinyLfu,
        memory_limit: Some(64 << 20),
        removal_log: None,
    };
    let cache = caches.call_open(&mut store, &config)?.expect("the configuration is right");

    caches.call_set(&mut store, cache, &bytes("ann"), &bytes("admin"), DEFAULTS)?.expect("it fits");
    assert_eq!(caches.call_get(&mut store, cache, &bytes("ann"))?, Some(bytes("admin")));

    // An entry may live shorter than the cache says.
    let minute = EntryOptions { ttl: Some(60 * SECOND), ..DEFAULTS };
    caches.call_set(&mut store, cache, &bytes("guest"), &bytes("reader"), minute)?.expect("it fits");
    time.fetch_add(60 * SECOND, Relaxed);
    assert_eq!(caches.call_get(&mut store, cache, &bytes("guest"))?, None);
    assert!(caches.call_contains(&mut store, cache, &bytes("ann"))?);

    // Of all who look a missing value up, one leads: it finds the value out and fills it in.
    let LookupResult::Lead(lease) = caches.call_lookup(&mut store, cache, &bytes("bob"), 5 * SECOND)? else {
        panic!("nobody else leads")
    };
    assert!(matches!(caches.call_lookup(&mut store, cache, &bytes("bob"), 5 * SECOND)?, LookupResult::Busy));
    leases.call_fill(&mut store, lease, &bytes("writer"), DEFAULTS)?.expect("the lease holds");
    assert!(matches!(caches.call_lookup(&mut store, cache, &bytes("bob"), 5 * SECOND)?, LookupResult::Hit(_)));

    let stats = caches.call_stats(&mut store, cache)?;
    println!("{} hits, {} misses, {} bytes of memory", stats.hits, stats.misses, stats.memory_bytes);
    cache.resource_drop(&mut store)
}
