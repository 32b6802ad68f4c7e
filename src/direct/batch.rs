//! Requests and answers of more than one key.

use super::answer::{Error, LENGTH_LIMIT, Reply};
use super::options;
use crate::memory::SetError;
use crate::{Cache, Cause, KeyCursor, Stats};

/// An answer ends once it is longer than this: it takes of the memory that the cache itself may need.
const ENOUGH: usize = 32 << 10;

/// A guess at how many bytes a value takes in an answer.
const USUAL: usize = 32;

/// A page of keys ends once it is longer than this.
const ENOUGH_KEYS: usize = 256 << 10;

const ABSENT: u32 = u32::MAX;

/// An answer to no key.
const NONE_ANSWERED: &str = "\0\0\0\0";

/// Reads a request; whatever runs beyond it is malformed.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| Error::malformed("the request ends before what it announces"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.bytes(N)?.try_into().map_err(|_| Error::malformed("the request ends early"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn key(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u32()?;
        self.bytes(len as usize)
    }
}

/// A buffer for an answer of so many bytes at least.
pub(crate) fn buffer(size: usize) -> Result<Vec<u8>, SetError> {
    let mut answer = Vec::new();
    answer.try_reserve_exact(size).map_err(|_| SetError::OutOfMemory)?;
    Ok(answer)
}

/// Whether an answer that is to be shorter than `limit` has room for so many bytes more.
fn has_room(answer: &mut Vec<u8>, size: usize, limit: usize) -> bool {
    answer.len().saturating_add(size) < limit && answer.try_reserve(size).is_ok()
}

/// Lengths and counts that came from 32 bits, or are bounded by [`super::answer::LENGTH_LIMIT`].
fn put(answer: &mut Vec<u8>, number: usize) {
    answer.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(answer: &mut Vec<u8>, bytes: &[u8]) {
    put(answer, bytes.len());
    answer.extend(bytes);
}

/// Writes a count that is only known afterwards.
fn set_count(answer: &mut [u8], at: usize, count: u32) {
    answer[at..at + 4].copy_from_slice(&count.to_le_bytes());
}

pub(crate) fn get_many(cache: &mut Cache, request: &[u8]) -> Result<Reply, Error> {
    answer_many(cache, request, LENGTH_LIMIT)
}

fn answer_many(cache: &mut Cache, request: &[u8], limit: usize) -> Result<Reply, Error> {
    let mut reader = Reader::new(request);
    let count = reader.u32()?;
    // Without memory for all of them at once, it grows as far as there is some.
    let usual = ENOUGH.min((count as usize).saturating_mul(USUAL)) + 4;
    let Ok(mut answer) = buffer(usual).or_else(|_| buffer(4)) else { return Ok(Reply::Text(NONE_ANSWERED)) };
    answer.extend([0; 4]);
    let mut answered = 0;
    while answered < count && answer.len() <= ENOUGH {
        let value = cache.get(reader.key()?);
        if !has_room(&mut answer, value.as_deref().map_or(0, <[u8]>::len) + 4, limit) {
            break;
        }
        match value {
            Some(value) => put_bytes(&mut answer, &value),
            None => answer.extend(ABSENT.to_le_bytes()),
        }
        answered += 1;
    }
    set_count(&mut answer, 0, answered);
    Ok(Reply::Bytes(answer))
}

pub(crate) fn set_many(cache: &mut Cache, request: &[u8]) -> Result<Reply, Error> {
    let mut reader = Reader::new(request);
    let count = reader.u32()?;
    // Before anything is stored: without an answer the caller would not know of it.
    let mut answer = buffer(8)?;
    let mut stored: u32 = 0;
    let mut code = 0;
    while stored < count {
        let (key, value, weight, _) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let (ttl, tti) = (reader.u64()?, reader.u64()?);
        let (key, value) = (reader.bytes(key as usize)?, reader.bytes(value as usize)?);
        if let Err(error) = cache.set(key, value, &options(weight, ttl, tti)) {
            code = Error::from(error).code();
            break;
        }
        stored += 1;
    }
    answer.extend(stored.to_le_bytes());
    answer.extend(code.to_le_bytes());
    Ok(Reply::Bytes(answer))
}

pub(crate) fn remove_many(cache: &mut Cache, request: &[u8]) -> Result<Reply, Error> {
    let mut reader = Reader::new(request);
    let mut removed = 0;
    for _ in 0..reader.u32()? {
        removed += u32::from(cache.remove(reader.key()?).is_some());
    }
    Ok(Reply::Yes(removed))
}

/// Up to `limit` keys, and whether the walk is over. Ends early where there is no memory for more.
pub(crate) fn keys(cache: &mut Cache, cursor: &mut KeyCursor, limit: u32) -> Result<(Vec<u8>, bool), Error> {
    let mut answer = buffer(4)?;
    answer.extend([0; 4]);
    let mut count = 0;
    while count < limit && answer.len() <= ENOUGH_KEYS {
        let Some(size) = cursor.next_size(cache) else { break };
        if !has_room(&mut answer, 4 + size, LENGTH_LIMIT) {
            if count == 0 {
                // An empty page would say that the walk is over.
                return Err(SetError::OutOfMemory.into());
            }
            break;
        }
        let Some(key) = cursor.next(cache) else { break };
        put_bytes(&mut answer, &key);
        count += 1;
    }
    set_count(&mut answer, 0, count);
    Ok((answer, count == 0))
}

pub(crate) fn drain(cache: &mut Cache, limit: u32) -> Result<Vec<u8>, Error> {
    hand_over(cache, limit, LENGTH_LIMIT)
}

fn hand_over(cache: &mut Cache, limit: u32, length_limit: usize) -> Result<Vec<u8>, Error> {
    let mut answer = buffer(12)?;
    answer.extend([0; 12]);
    let mut count = 0;
    while count < limit && answer.len() <= ENOUGH {
        let Some(size) = cache.next_removal_size() else { break };
        if !has_room(&mut answer, 12 + size, length_limit) {
            if count == 0 {
                // It can never be handed over.
                cache.lose_removal();
            }
            break;
        }
        let Some(removal) = cache.next_removal() else { break };
        put(
            &mut answer,
            match removal.cause {
                Cause::Expired => 0,
                Cause::Explicit => 1,
                Cause::Replaced => 2,
                Cause::Size => 3,
            },
        );
        put(&mut answer, removal.key.len());
        put(&mut answer, removal.value.len());
        answer.extend_from_slice(&removal.key);
        answer.extend_from_slice(&removal.value);
        count += 1;
    }
    let (_, lost) = cache.drain_removals(0);
    answer[..8].copy_from_slice(&lost.to_le_bytes());
    set_count(&mut answer, 8, count);
    Ok(answer)
}

pub(crate) fn stats(stats: &Stats) -> Result<Vec<u8>, Error> {
    let numbers = [
        stats.hits,
        stats.misses,
        stats.insertions,
        stats.expired,
        stats.explicit,
        stats.replaced,
        stats.size,
        stats.removals_lost,
        stats.entries,
        stats.weight,
        stats.memory_bytes,
    ];
    let mut answer = buffer(size_of_val(&numbers))?;
    answer.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, EntryOptions};

    /// In the place of [`LENGTH_LIMIT`].
    const LIMIT: usize = 100;

    fn cache(values: &[(&str, usize)]) -> Cache {
        let mut cache = Cache::open(Config { removal_log: Some(100), ..Config::default() }, (1, 2)).unwrap();
        for (key, length) in values {
            cache.set(key.as_bytes(), &vec![7; *length], &EntryOptions::default()).unwrap();
        }
        cache
    }

    fn request(keys: &[&str]) -> Vec<u8> {
        let mut request = Vec::new();
        put(&mut request, keys.len());
        for key in keys {
            put_bytes(&mut request, key.as_bytes());
        }
        request
    }

    fn answered(reply: &Reply) -> (usize, u32) {
        let Reply::Bytes(bytes) = reply else { panic!("{reply:?}") };
        (bytes.len(), Reader::new(bytes).u32().unwrap())
    }

    #[test]
    fn values_end_before_an_answer_is_too_long() {
        let mut cache = cache(&[("a", 40), ("b", 47), ("c", 48), ("d", 92)]);
        let mut ask = |keys: &[&str]| answered(&answer_many(&mut cache, &request(keys), LIMIT).unwrap());
        assert_eq!(ask(&["a", "b", "a"]), (99, 2));
        assert_eq!(ask(&["a", "c"]), (48, 1));
        assert_eq!(ask(&["d", "a"]), (4, 0));
    }

    #[test]
    fn removals_end_before_an_answer_is_too_long_and_what_is_longer_is_lost() {
        let mut cache = cache(&[("a", 30), ("b", 30), ("c", 75), ("d", 74)]);
        for key in ["a", "b", "c", "d"] {
            cache.remove(key.as_bytes()).unwrap();
        }
        let mut drain = || {
            let answer = hand_over(&mut cache, 10, LIMIT).unwrap();
            let mut reader = Reader::new(&answer);
            (reader.u64().unwrap(), reader.u32().unwrap(), answer.len())
        };
        assert_eq!(drain(), (0, 2, 98));
        assert_eq!(drain(), (1, 0, 12));
        assert_eq!(drain(), (0, 1, 99));
        assert_eq!(drain(), (0, 0, 12));
        assert_eq!(cache.stats().removals_lost, 1);
    }
}
