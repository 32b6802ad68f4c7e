#![doc = include_str!("ABI.md")]
#![expect(unsafe_code, reason = "exports keep the names that the ABI gives them")]

mod answer;
mod batch;
mod table;

use crate::clock::{self, Source};
use crate::config::{Config, ConfigError, Field, Policy};
use crate::entry::EntryOptions;
use crate::{Cache, GetOrInsert, Life, Lookup};

use answer::{Error, Reply};
use batch::Reader;
use table::{Slot, with_guest, with_slot};

const VERSION: u32 = 1;

/// How a duration that is left out is written.
const NONE: u64 = u64::MAX;

fn optional(duration: u64) -> Option<u64> {
    (duration != NONE).then_some(duration)
}

fn options(weight: u32, ttl: u64, tti: u64) -> EntryOptions {
    EntryOptions { ttl: optional(ttl), tti: optional(tti), weight }
}

/// Runs an operation of a cache with the bytes that the caller wrote for it, at the caller's time.
fn operate(
    handle: u32,
    lengths: [u32; 2],
    now: u64,
    operation: impl FnOnce(&mut Slot, &[u8], &[u8]) -> Result<Reply, Error>,
) -> u64 {
    clock::advance(Source::Caller, now);
    with_slot(handle, lengths, operation)
}

#[unsafe(no_mangle)]
extern "C" fn moka_abi_version() -> u32 {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn moka_mailbox(size: u32) -> u32 {
    with_guest(|guest| guest.mailbox.ensure(size as usize))
}

#[unsafe(no_mangle)]
extern "C" fn moka_error() -> u64 {
    with_guest(table::Guest::error_text)
}

#[unsafe(no_mangle)]
extern "C" fn moka_open(config: u32, now: u64) -> u64 {
    clock::advance(Source::Caller, now);
    with_guest(|guest| guest.open(config as usize, |bytes| Ok(Cache::open(read_config(bytes)?, crate::component::seed())?)))
}

fn read_config(bytes: &[u8]) -> Result<Config, Error> {
    let mut reader = Reader::new(bytes);
    let (capacity, ttl, tti, memory_limit) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    let (policy, removal_log) = (reader.u32()?, reader.u32()?);
    let fault = |field, reason: String| Error::from(ConfigError { field, reason });
    Ok(Config {
        name: String::from_utf8(reader.rest().to_vec())
            .map_err(|_| fault(Field::Name, "name is not UTF-8: encode it so".into()))?,
        capacity: optional(capacity),
        ttl: optional(ttl),
        tti: optional(tti),
        policy: match policy {
            0 => Policy::TinyLfu,
            1 => Policy::Lru,
            other => return Err(fault(Field::Policy, format!("policy must be 0 (tiny-lfu) or 1 (lru), got {other}"))),
        },
        memory_limit: optional(memory_limit),
        removal_log: Some(removal_log).filter(|&limit| limit > 0),
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_close(cache: u32) -> u64 {
    with_guest(|guest| guest.close(cache))
}

#[unsafe(no_mangle)]
extern "C" fn moka_get(cache: u32, key: u32, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| Ok(slot.cache.get(key).into()))
}

#[unsafe(no_mangle)]
extern "C" fn moka_contains(cache: u32, key: u32, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| Ok(slot.cache.contains(key).into()))
}

#[unsafe(no_mangle)]
extern "C" fn moka_set(cache: u32, key: u32, value: u32, weight: u32, ttl: u64, tti: u64, now: u64) -> u64 {
    operate(cache, [key, value], now, |slot, key, value| {
        slot.cache.set(key, value, &options(weight, ttl, tti))?;
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_get_or_insert(
    cache: u32,
    key: u32,
    value: u32,
    weight: u32,
    ttl: u64,
    tti: u64,
    now: u64,
) -> u64 {
    operate(cache, [key, value], now, |slot, key, value| {
        Ok(match slot.cache.get_or_insert(key, value, &options(weight, ttl, tti))? {
            GetOrInsert::Inserted => Reply::Yes(0),
            GetOrInsert::Present(value) => Reply::Value(value),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_expire(cache: u32, key: u32, remaining: u64, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| Ok(slot.cache.expire(key, optional(remaining)).into()))
}

#[unsafe(no_mangle)]
extern "C" fn moka_remaining(cache: u32, key: u32, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| {
        Ok(match slot.cache.remaining(key) {
            Life::Absent => Reply::No,
            Life::Unlimited => Reply::Yes(0),
            Life::Limited(life) => Reply::Bytes(life.to_le_bytes().to_vec()),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_remove(cache: u32, key: u32, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| Ok(slot.cache.remove(key).into()))
}

#[unsafe(no_mangle)]
extern "C" fn moka_clear(cache: u32, now: u64) -> u64 {
    operate(cache, [0, 0], now, |slot, _, _| {
        slot.cache.clear();
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_run_pending(cache: u32, now: u64) -> u64 {
    operate(cache, [0, 0], now, |slot, _, _| {
        slot.cache.run_pending_tasks();
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_stats(cache: u32) -> u64 {
    with_slot(cache, [0, 0], |slot, _, _| Ok(Reply::Bytes(batch::stats(&slot.cache.stats()))))
}

#[unsafe(no_mangle)]
extern "C" fn moka_get_many(cache: u32, request: u32, now: u64) -> u64 {
    operate(cache, [request, 0], now, |slot, request, _| batch::get_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_set_many(cache: u32, request: u32, now: u64) -> u64 {
    operate(cache, [request, 0], now, |slot, request, _| batch::set_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_remove_many(cache: u32, request: u32, now: u64) -> u64 {
    operate(cache, [request, 0], now, |slot, request, _| batch::remove_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys(cache: u32, now: u64) -> u64 {
    operate(cache, [0, 0], now, |slot, _, _| slot.open_cursor().map(Reply::Yes))
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys_next(cache: u32, cursor: u32, limit: u32, now: u64) -> u64 {
    operate(cache, [0, 0], now, |slot, _, _| {
        let Some(keys) = slot.cursors.get_mut(&cursor) else { return Err(Error::handle("cursor", cursor)) };
        let (answer, over) = batch::keys(&mut slot.cache, keys, limit.max(1));
        if over {
            slot.cursors.remove(&cursor);
        }
        Ok(Reply::Bytes(answer))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys_close(cache: u32, cursor: u32) -> u64 {
    with_slot(cache, [0, 0], |slot, _, _| match slot.cursors.remove(&cursor) {
        Some(_) => Ok(Reply::Yes(0)),
        None => Err(Error::handle("cursor", cursor)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_drain(cache: u32, limit: u32) -> u64 {
    with_slot(cache, [0, 0], |slot, _, _| Ok(Reply::Bytes(batch::drain(&mut slot.cache, limit))))
}

#[unsafe(no_mangle)]
extern "C" fn moka_lookup(cache: u32, key: u32, life: u64, now: u64) -> u64 {
    operate(cache, [key, 0], now, |slot, key, _| {
        Ok(match slot.cache.lookup(key, life) {
            Lookup::Hit(value) => Reply::Value(value),
            Lookup::Lead(lease) => Reply::Yes(lease),
            Lookup::Busy => Reply::No,
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_fill(cache: u32, lease: u32, value: u32, weight: u32, ttl: u64, tti: u64, now: u64) -> u64 {
    operate(cache, [value, 0], now, |slot, value, _| {
        if slot.cache.fill(lease, value, &options(weight, ttl, tti))? { Ok(Reply::Yes(0)) } else { Err(Error::lapsed()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_release(cache: u32, lease: u32) -> u64 {
    with_slot(cache, [0, 0], |slot, _, _| {
        slot.cache.release(lease);
        Ok(Reply::Yes(0))
    })
}
