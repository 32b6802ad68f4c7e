//! Operations on many keys: everything is encoded first, and crosses in as few requests as the mailbox takes. What is not
//! common, and whatever is left after that, is done by Python.

use std::ops::Range;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::codec::{self, Writer};
use crate::hot::{self, Attached, Binding, Fallbacks, NO_BYTES, REMOVALS_WAIT, YES};
use crate::hot::{attached, fall_back, fall_back_with};
use crate::raw::{Answer, Arguments, Guest};
use crate::sharded_batch;

const ABSENT: u32 = u32::MAX;

/// What precedes a key and a value: their lengths, the weight, 0, no ttl, no tti.
pub const ENTRY_HEAD: usize = 32;

/// The parts of requests, one for each key, in one piece.
pub struct Parts {
    /// What was written, and room for more.
    data: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes that a request may have beside its count.
    pub room: usize,
}

/// A guess at how many bytes a part has.
const USUAL: usize = 32;

impl Parts {
    /// For about so many parts.
    fn new(attached: &Attached, count: usize) -> Option<Self> {
        let room = attached.room()?.checked_sub(4)?;
        let data = vec![0; count.saturating_mul(USUAL).min(room)];
        Some(Parts { data, ends: Vec::with_capacity(count), room })
    }

    /// `None`: it cannot be written here, or no mailbox takes it.
    fn add(&mut self, write: impl Fn(&mut Writer<'_>) -> Option<()>) -> Option<()> {
        let start = self.start(self.count());
        loop {
            let spare = self.data.get_mut(start..)?;
            let enough = spare.len() >= self.room;
            let mut out = Writer::new(if enough { spare.get_mut(..self.room)? } else { spare });
            if write(&mut out).is_some() {
                self.ends.push(start + out.length());
                return Some(());
            }
            if enough {
                return None;
            }
            self.data.resize(start + self.room, 0);
        }
    }

    fn add_key(&mut self, key: Borrowed<'_, '_, PyAny>) -> Option<()> {
        self.add(|out| {
            out.put(&[0; 4])?;
            codec::write_key(out, key)?;
            let length = u32::try_from(out.length() - 4).ok()?;
            out.put_at(0, &length.to_le_bytes())
        })
    }

    fn add_entry(&mut self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Option<()> {
        self.add(|out| {
            out.put(&[0; ENTRY_HEAD])?;
            codec::write_key(out, key.as_borrowed())?;
            let key = out.length() - ENTRY_HEAD;
            codec::write_value(out, value.as_borrowed(), 0)?;
            let value = out.length() - ENTRY_HEAD - key;
            let numbers = [u32::try_from(key).ok()?, u32::try_from(value).ok()?, 1, 0];
            for (index, number) in numbers.into_iter().enumerate() {
                out.put_at(4 * index, &number.to_le_bytes())?;
            }
            out.put_at(16, &[0xff; 16])
        })
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Where the part of this number begins.
    fn start(&self, part: usize) -> usize {
        part.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    /// The part of this number; nothing, if there is none.
    pub fn part(&self, part: usize) -> &[u8] {
        let end = self.ends.get(part).copied().unwrap_or(0);
        self.data.get(self.start(part)..end).unwrap_or(&[])
    }

    /// As many parts from this one on as a request takes, and their bytes.
    fn request(&self, first: usize) -> Option<(Range<usize>, &[u8])> {
        let start = self.start(first);
        let fitting = self.ends.get(first..)?.partition_point(|end| end - start <= self.room);
        let last = first + fitting;
        Some((first..last, self.data.get(start..self.start(last))?))
    }
}

/// What a crossing came to.
pub enum Crossed {
    Bytes(Vec<u8>),
    Number(u32),
    /// What is left has to be done in Python.
    Unusual,
}

/// One crossing with these parts, which `write` puts into the mailbox.
pub fn cross(
    binding: &Binding,
    arguments: &Arguments<'_, '_>,
    count: usize,
    write: impl FnOnce(&mut Writer<'_>) -> Option<()>,
    call: impl FnOnce(&Guest, usize, u64) -> Option<Answer>,
) -> PyResult<Crossed> {
    let py = arguments.myself.py();
    let Some(now) = binding.now(py)? else { return Ok(Crossed::Unusual) };
    let Some(busy) = binding.begin(py) else { return Ok(Crossed::Unusual) };
    let borrowed = busy.guest();
    let Some(guest) = borrowed.as_ref() else { return Ok(Crossed::Unusual) };
    let written = guest.fill(|room| {
        let mut out = Writer::new(room);
        out.put(&u32::try_from(count).ok()?.to_le_bytes())?;
        write(&mut out)?;
        Some(out.length())
    });
    let Some(length) = written else { return Ok(Crossed::Unusual) };
    let Some(answer) = call(guest, length, now) else { return Ok(Crossed::Unusual) };
    if !answer.trapped {
        if answer.upper == NO_BYTES | YES {
            return Ok(Crossed::Number(answer.lower));
        }
        // Copied before any object is made that the garbage collector looks after: its finalizers may run the guest.
        if answer.upper < REMOVALS_WAIT
            && let Some(bytes) = guest.read(answer.lower as usize, answer.upper as usize, <[u8]>::to_vec)
        {
            return Ok(Crossed::Bytes(bytes));
        }
    }
    drop(borrowed);
    let data = hot::finish(binding, arguments, answer)?;
    drop(busy);
    match data.cast_exact::<PyBytes>() {
        Ok(bytes) if !answer.trapped => Ok(Crossed::Bytes(bytes.as_bytes().to_vec())),
        _ => Ok(Crossed::Unusual),
    }
}

/// A crossing with the parts from this one on, and with how many of them. Not for a cache with shards.
fn cross_from(
    attached: &Attached,
    arguments: &Arguments<'_, '_>,
    parts: &Parts,
    first: usize,
    call: impl FnOnce(&Guest, usize, u64) -> Option<Answer>,
) -> PyResult<(usize, Crossed)> {
    let Some((range, body)) = parts.request(first) else { return Ok((0, Crossed::Unusual)) };
    let count = range.len();
    Ok((count, cross(attached.shard(0), arguments, count, |out| out.put(body), call)?))
}

/// Python tells a listener of a batch when all of it is done, which the crossings of one here do not wait for.
fn attached_for_batches<'a>(arguments: &Arguments<'a, '_>) -> Option<&'a Attached> {
    attached(arguments).filter(|attached| !attached.has_listener())
}

/// The items, which may be a list that others change, or any iterable.
fn items<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    if let Ok(list) = iterable.cast_exact::<PyList>() {
        return Ok(list.to_tuple());
    }
    if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
        return Ok(tuple.clone());
    }
    PyTuple::new(iterable.py(), iterable.try_iter()?.collect::<PyResult<Vec<_>>>()?)
}

/// Does the items from this one on in Python.
#[cold]
fn rest<'py>(
    arguments: &Arguments<'_, 'py>,
    items: &Bound<'py, PyTuple>,
    first: usize,
    method: impl FnOnce(&Fallbacks) -> &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    fall_back_with(arguments.myself, &[items.get_slice(first, items.len()).into_any()], method)
}

/// The number at the beginning, which is taken off.
pub fn take_u32(data: &mut &[u8]) -> Option<u32> {
    let (taken, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(u32::from_le_bytes(*taken))
}

/// Hands over what was found, with its number among the keys asked for; how many keys were answered. `None`: the guest
/// answers nonsense.
pub fn unpack<'py>(
    attached: &Attached,
    py: Python<'py>,
    asked: usize,
    mut data: &[u8],
    mut take: impl FnMut(usize, Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<Option<usize>> {
    let Some(count) = take_u32(&mut data).map(|count| count as usize).filter(|&count| count <= asked) else {
        return Ok(None);
    };
    for number in 0..count {
        let Some(length) = take_u32(&mut data) else { return Ok(None) };
        if length == ABSENT {
            continue;
        }
        let Some((value, rest)) = data.split_at_checked(length as usize) else { return Ok(None) };
        data = rest;
        let value = match codec::read_value(py, value) {
            Some(value) => value,
            None => attached.loads.bind(py).call1((PyBytes::new(py, value),))?,
        };
        take(number, value)?;
    }
    Ok(Some(count))
}

/// How many of the entries of one crossing are stored, unless the guest answers nonsense.
pub fn stored(crossed: &Crossed, asked: usize) -> Option<usize> {
    let Crossed::Bytes(bytes) = crossed else { return None };
    take_u32(&mut bytes.as_slice()).map(|stored| stored as usize).filter(|&stored| stored <= asked)
}

pub fn get_many<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (Some(attached), None, Some(keys), 1) =
        (attached_for_batches(arguments), arguments.names, arguments.get(0), arguments.positional())
    else {
        return fall_back(arguments, |fallbacks| &fallbacks.get_many);
    };
    let keys = items(&keys)?;
    let parts = Parts::new(attached, keys.len()).and_then(|mut parts| {
        keys.iter_borrowed().try_for_each(|key| parts.add_key(key))?;
        Some(parts)
    });
    let Some(parts) = parts else { return rest(arguments, &keys, 0, |fallbacks| &fallbacks.get_many) };
    if attached.shards() > 1 {
        return sharded_batch::get_many(attached, arguments, &keys, &parts);
    }
    let found = PyDict::new(keys.py());
    let mut done = 0;
    while done < parts.count() {
        let (asked, crossed) = cross_from(attached, arguments, &parts, done, Guest::get_many)?;
        let answered = match &crossed {
            Crossed::Bytes(bytes) => unpack(attached, keys.py(), asked, bytes, |number, value| {
                found.set_item(keys.get_borrowed_item(done + number)?, value)
            })?,
            _ => None,
        };
        match answered {
            Some(answered) if answered > 0 => done += answered,
            _ => {
                let others = rest(arguments, &keys, done, |fallbacks| &fallbacks.get_many)?;
                found.update(others.cast::<PyDict>()?.as_mapping())?;
                break;
            }
        }
    }
    Ok(found.into_any())
}

pub fn set_many<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    let lives = (1..3).filter_map(|index| arguments.get(index)).all(|life| life.is_none());
    let (Some(attached), None, Some(entries), 1..=3, true) =
        (attached_for_batches(arguments), arguments.names, arguments.get(0), arguments.positional(), lives)
    else {
        return fall_back(arguments, |fallbacks| &fallbacks.set_many);
    };
    // Other mappings and iterables run Python code for each entry, which Python does as well.
    let Some(dict) = entries.cast_exact::<PyDict>().ok().filter(|_| attached.sets) else {
        return fall_back(arguments, |fallbacks| &fallbacks.set_many);
    };
    let pairs = dict.items().to_tuple();
    let parts = Parts::new(attached, pairs.len()).and_then(|mut parts| {
        for pair in pairs.iter() {
            let pair = pair.cast_into_exact::<PyTuple>().ok()?;
            parts.add_entry(&pair.get_item(0).ok()?, &pair.get_item(1).ok()?)?;
        }
        Some(parts)
    });
    let Some(parts) = parts else { return rest(arguments, &pairs, 0, |fallbacks| &fallbacks.set_many) };
    if attached.shards() > 1 {
        return sharded_batch::set_many(attached, arguments, &pairs, &parts);
    }
    let mut done = 0;
    while done < parts.count() {
        let (asked, crossed) = cross_from(attached, arguments, &parts, done, Guest::set_many)?;
        let stored = stored(&crossed, asked);
        done += stored.unwrap_or(0);
        if stored != Some(asked) {
            // Python tries the one that was refused once more, for the error and its text.
            return rest(arguments, &pairs, done, |fallbacks| &fallbacks.set_many);
        }
    }
    Ok(py.None().into_bound(py))
}

pub fn remove_many<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (Some(attached), None, Some(keys), 1) =
        (attached_for_batches(arguments), arguments.names, arguments.get(0), arguments.positional())
    else {
        return fall_back(arguments, |fallbacks| &fallbacks.remove_many);
    };
    let keys = items(&keys)?;
    let parts = Parts::new(attached, keys.len()).and_then(|mut parts| {
        keys.iter_borrowed().try_for_each(|key| parts.add_key(key))?;
        Some(parts)
    });
    let Some(parts) = parts else { return rest(arguments, &keys, 0, |fallbacks| &fallbacks.remove_many) };
    if attached.shards() > 1 {
        return sharded_batch::remove_many(attached, arguments, &keys, &parts);
    }
    let mut removed: u64 = 0;
    let mut done = 0;
    while done < parts.count() {
        let (asked, crossed) = cross_from(attached, arguments, &parts, done, Guest::remove_many)?;
        let Crossed::Number(number) = crossed else {
            let others = rest(arguments, &keys, done, |fallbacks| &fallbacks.remove_many)?;
            removed += others.extract::<u64>()?;
            break;
        };
        removed += u64::from(number);
        done += asked;
    }
    Ok(removed.into_pyobject(keys.py())?.into_any())
}
