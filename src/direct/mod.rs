#![doc = include_str!("ABI.md")]
#![expect(unsafe_code, reason = "exports keep the names that the ABI gives them")]

mod answer;
mod batch;
#[cfg(feature = "fuzz")]
pub mod calls;
mod table;

use crate::clock::{self, Source};
use crate::config::{Config, ConfigError, Field, Policy};
use crate::entry::EntryOptions;
use crate::{Cache, GetOrInsert, Life, Lookup};

use answer::{Error, Outcome, Reply};
use batch::Reader;
use table::{Slot, with_guest, with_slot};

#[cfg(not(any(feature = "fuzz", test)))]
use crate::component::seed;

/// The runs of the fuzzer and of tests are to be the same again.
#[cfg(any(feature = "fuzz", test))]
fn seed() -> (u64, u64) {
    (1, 2)
}

const VERSION: u32 = 1;

/// How a duration or a time that is left out is written.
const NONE: u64 = u64::MAX;

fn optional(duration: u64) -> Option<u64> {
    (duration != NONE).then_some(duration)
}

fn options(weight: u32, ttl: u64, tti: u64) -> EntryOptions {
    EntryOptions { ttl: optional(ttl), tti: optional(tti), weight }
}

/// Moves time on to what the caller's clock shows, if it was read.
#[inline]
fn take_time(now: u64) {
    if now != NONE {
        clock::advance(Source::Caller, now);
    }
}

/// Runs an operation of a cache with the bytes that the caller wrote for it, at the caller's time.
fn operate<T: Outcome>(
    lane: u32,
    handle: u32,
    lengths: [u32; 2],
    now: u64,
    operation: impl FnOnce(&mut Slot, &[u8], &[u8]) -> Result<T, Error>,
) -> u64 {
    take_time(now);
    with_slot(lane, handle, lengths, operation)
}

#[unsafe(no_mangle)]
extern "C" fn moka_abi_version() -> u32 {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn moka_mailbox(lane: u32, size: u32) -> u32 {
    with_guest(|guest| guest.mailbox(lane, size as usize))
}

#[unsafe(no_mangle)]
extern "C" fn moka_error(lane: u32) -> u64 {
    with_guest(|guest| guest.error_text(lane))
}

#[unsafe(no_mangle)]
extern "C" fn moka_open(lane: u32, config: u32, now: u64) -> u64 {
    take_time(now);
    with_guest(|guest| guest.open(lane, config as usize, |bytes| Ok(Cache::open(read_config(bytes)?, seed())?)))
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
extern "C" fn moka_close(lane: u32, cache: u32) -> u64 {
    with_guest(|guest| guest.close(lane, cache))
}

#[unsafe(no_mangle)]
extern "C" fn moka_get(lane: u32, cache: u32, key: u32, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| Ok(slot.cache.get(key)))
}

#[unsafe(no_mangle)]
extern "C" fn moka_contains(lane: u32, cache: u32, key: u32, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| Ok(slot.cache.contains(key)))
}

#[unsafe(no_mangle)]
extern "C" fn moka_set(lane: u32, cache: u32, key: u32, value: u32, weight: u32, ttl: u64, tti: u64, now: u64) -> u64 {
    operate(lane, cache, [key, value], now, |slot, key, value| {
        slot.cache.set(key, value, &options(weight, ttl, tti))?;
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_make_room(lane: u32, cache: u32, size: u32, now: u64) -> u64 {
    operate(lane, cache, [0, 0], now, |slot, _, _| {
        slot.cache.make_room(size as usize)?;
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_get_or_insert(
    lane: u32,
    cache: u32,
    key: u32,
    value: u32,
    weight: u32,
    ttl: u64,
    tti: u64,
    now: u64,
) -> u64 {
    operate(lane, cache, [key, value], now, |slot, key, value| {
        Ok(match slot.cache.get_or_insert(key, value, &options(weight, ttl, tti))? {
            GetOrInsert::Inserted => Reply::Yes(0),
            GetOrInsert::Present(value) => Reply::Value(value),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_expire(lane: u32, cache: u32, key: u32, remaining: u64, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| Ok(slot.cache.expire(key, optional(remaining))))
}

#[unsafe(no_mangle)]
extern "C" fn moka_remaining(lane: u32, cache: u32, key: u32, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| {
        Ok(match slot.cache.remaining(key) {
            Life::Absent => Reply::No,
            Life::Unlimited => Reply::Yes(0),
            Life::Limited(life) => {
                let mut answer = batch::buffer(8)?;
                answer.extend(life.to_le_bytes());
                Reply::Bytes(answer)
            }
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_remove(lane: u32, cache: u32, key: u32, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| Ok(slot.cache.remove(key)))
}

#[unsafe(no_mangle)]
extern "C" fn moka_clear(lane: u32, cache: u32, now: u64) -> u64 {
    operate(lane, cache, [0, 0], now, |slot, _, _| {
        slot.cache.clear();
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_run_pending(lane: u32, cache: u32, now: u64) -> u64 {
    operate(lane, cache, [0, 0], now, |slot, _, _| {
        slot.cache.run_pending_tasks();
        Ok(Reply::Yes(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_stats(lane: u32, cache: u32) -> u64 {
    with_slot(lane, cache, [0, 0], |slot, _, _| Ok(Reply::Bytes(batch::stats(&slot.cache.stats())?)))
}

#[unsafe(no_mangle)]
extern "C" fn moka_get_many(lane: u32, cache: u32, request: u32, now: u64) -> u64 {
    operate(lane, cache, [request, 0], now, |slot, request, _| batch::get_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_set_many(lane: u32, cache: u32, request: u32, now: u64) -> u64 {
    operate(lane, cache, [request, 0], now, |slot, request, _| batch::set_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_remove_many(lane: u32, cache: u32, request: u32, now: u64) -> u64 {
    operate(lane, cache, [request, 0], now, |slot, request, _| batch::remove_many(&mut slot.cache, request))
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys(lane: u32, cache: u32, now: u64) -> u64 {
    operate(lane, cache, [0, 0], now, |slot, _, _| slot.open_cursor().map(Reply::Yes))
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys_next(lane: u32, cache: u32, cursor: u32, limit: u32, now: u64) -> u64 {
    operate(lane, cache, [0, 0], now, |slot, _, _| {
        let Some(keys) = slot.cursors.get_mut(&cursor) else { return Err(Error::handle("cursor", cursor)) };
        let (answer, over) = batch::keys(&mut slot.cache, keys, limit.max(1))?;
        if over {
            slot.cursors.remove(&cursor);
        }
        Ok(Reply::Bytes(answer))
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_keys_close(lane: u32, cache: u32, cursor: u32) -> u64 {
    with_slot(lane, cache, [0, 0], |slot, _, _| match slot.cursors.remove(&cursor) {
        Some(_) => Ok(Reply::Yes(0)),
        None => Err(Error::handle("cursor", cursor)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_drain(lane: u32, cache: u32, limit: u32) -> u64 {
    with_slot(lane, cache, [0, 0], |slot, _, _| Ok(Reply::Bytes(batch::drain(&mut slot.cache, limit)?)))
}

#[unsafe(no_mangle)]
extern "C" fn moka_lookup(lane: u32, cache: u32, key: u32, life: u64, now: u64) -> u64 {
    operate(lane, cache, [key, 0], now, |slot, key, _| {
        Ok(match slot.cache.lookup(key, life)? {
            Lookup::Hit(value) => Reply::Value(value),
            Lookup::Lead(lease) => Reply::Yes(lease),
            Lookup::Busy => Reply::No,
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_fill(
    lane: u32,
    cache: u32,
    lease: u32,
    value: u32,
    weight: u32,
    ttl: u64,
    tti: u64,
    now: u64,
) -> u64 {
    operate(lane, cache, [value, 0], now, |slot, value, _| {
        if slot.cache.fill(lease, value, &options(weight, ttl, tti))? {
            Ok(Reply::Yes(0))
        } else {
            Err(Error::lapsed())
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn moka_release(lane: u32, cache: u32, lease: u32) -> u64 {
    with_slot(lane, cache, [0, 0], |slot, _, _| {
        slot.cache.release(lease);
        Ok(Reply::Yes(0))
    })
}
