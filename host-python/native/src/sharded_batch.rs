//! Batches of caches with shards: each shard gets the parts whose keys are its own, in their order. What is not common is
//! done by Python when all shards have had theirs, and then in the batch's order.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::batch::{Crossed, ENTRY_HEAD, Parts, cross, stored, unpack};
use crate::hot::{Attached, Binding, Fallbacks, fall_back_with};
use crate::raw::{Answer, Arguments, Guest};

/// The numbers of the parts of each shard. `key` finds the key in a part.
fn group(attached: &Attached, parts: &Parts, key: impl Fn(&[u8]) -> Option<&[u8]>) -> Vec<Vec<usize>> {
    let mut groups = vec![Vec::new(); attached.shards()];
    for number in 0..parts.count() {
        let shard = attached.shard_of(key(parts.part(number)).unwrap_or(&[]));
        if let Some(group) = groups.get_mut(shard) {
            group.push(number);
        }
    }
    groups
}

fn key_alone(part: &[u8]) -> Option<&[u8]> {
    part.get(4..)
}

fn key_of_entry(part: &[u8]) -> Option<&[u8]> {
    let (length, _) = part.split_first_chunk()?;
    part.get(ENTRY_HEAD..)?.get(..u32::from_le_bytes(*length) as usize)
}

/// A crossing with as many of these parts as a request takes, and with how many.
fn cross_some(
    binding: &Binding,
    arguments: &Arguments<'_, '_>,
    parts: &Parts,
    numbers: &[usize],
    call: impl FnOnce(&Guest, usize, u64) -> Option<Answer>,
) -> PyResult<(usize, Crossed)> {
    let mut size = 0;
    let fits = |&&number: &&usize| {
        size += parts.part(number).len();
        size <= parts.room
    };
    let count = numbers.iter().take_while(fits).count();
    let mut bodies = numbers.iter().take(count).map(|&number| parts.part(number));
    Ok((count, cross(binding, arguments, count, |out| bodies.try_for_each(|body| out.put(body)), call)?))
}

/// What the crossings with all shards left over.
struct Left {
    /// The numbers of the parts that are left to Python, in order.
    numbers: Vec<usize>,
    /// The first error. The other shards went on, as in Python.
    failure: Option<PyErr>,
}

/// Crosses with the parts of all shards. `take` gets the numbers of those of one crossing, and what it came to; it says how
/// many of them are done.
fn cross_all(
    attached: &Attached,
    arguments: &Arguments<'_, '_>,
    parts: &Parts,
    groups: &[Vec<usize>],
    call: fn(&Guest, usize, u64) -> Option<Answer>,
    mut take: impl FnMut(&[usize], Crossed) -> PyResult<usize>,
) -> PyResult<Left> {
    let mut left = Left { numbers: Vec::new(), failure: None };
    for (number, group) in groups.iter().enumerate() {
        let mut waiting = group.as_slice();
        while !waiting.is_empty() {
            let crossed = cross_some(attached.shard(number), arguments, parts, waiting, call);
            match crossed.and_then(|(asked, crossed)| take(waiting.get(..asked).unwrap_or(&[]), crossed)) {
                Ok(0) => {
                    left.numbers.extend(waiting);
                    break;
                }
                Ok(done) => waiting = waiting.get(done..).unwrap_or(&[]),
                Err(error) if error.is_instance_of::<PyException>(arguments.myself.py()) => {
                    left.failure.get_or_insert(error);
                    break;
                }
                // An interrupt.
                Err(error) => return Err(error),
            }
        }
    }
    left.numbers.sort_unstable();
    Ok(left)
}

impl Left {
    /// What Python's method says to the items that are left; `None`: there are none.
    fn do_in_python<'py>(
        self,
        arguments: &Arguments<'_, 'py>,
        items: &Bound<'py, PyTuple>,
        method: impl FnOnce(&Fallbacks) -> &Py<PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut answer = Ok(None);
        if !self.numbers.is_empty() {
            let chosen = self.numbers.iter().map(|&number| items.get_item(number)).collect::<PyResult<Vec<_>>>()?;
            let chosen = PyTuple::new(items.py(), chosen)?.into_any();
            answer = fall_back_with(arguments.myself, &[chosen], method).map(Some);
        }
        self.failure.map_or(answer, Err)
    }
}

pub fn get_many<'py>(
    attached: &Attached,
    arguments: &Arguments<'_, 'py>,
    keys: &Bound<'py, PyTuple>,
    parts: &Parts,
) -> PyResult<Bound<'py, PyAny>> {
    let py = keys.py();
    let mut values = vec![None; parts.count()];
    let groups = group(attached, parts, key_alone);
    let left = cross_all(attached, arguments, parts, &groups, Guest::get_many, |asked, crossed| {
        let Crossed::Bytes(bytes) = crossed else { return Ok(0) };
        let answered = unpack(attached, py, asked.len(), &bytes, |number, value| {
            if let Some(place) = asked.get(number).and_then(|&number| values.get_mut(number)) {
                *place = Some(value);
            }
            Ok(())
        })?;
        Ok(answered.unwrap_or(0))
    })?;
    let numbers = left.numbers.clone();
    if let Some(others) = left.do_in_python(arguments, keys, |fallbacks| &fallbacks.get_many)? {
        let others = others.cast_into::<PyDict>()?;
        for number in numbers {
            if let Some(place) = values.get_mut(number) {
                *place = others.get_item(keys.get_item(number)?)?;
            }
        }
    }
    // In the order of the keys, not of the shards.
    let found = PyDict::new(py);
    for (key, value) in keys.iter_borrowed().zip(values) {
        if let Some(value) = value {
            found.set_item(key, value)?;
        }
    }
    Ok(found.into_any())
}

pub fn set_many<'py>(
    attached: &Attached,
    arguments: &Arguments<'_, 'py>,
    pairs: &Bound<'py, PyTuple>,
    parts: &Parts,
) -> PyResult<Bound<'py, PyAny>> {
    let groups = group(attached, parts, key_of_entry);
    let left = cross_all(attached, arguments, parts, &groups, Guest::set_many, |asked, crossed| {
        Ok(stored(&crossed, asked.len()).unwrap_or(0))
    })?;
    // Those that were refused it tries once more, for the error of the first of them.
    left.do_in_python(arguments, pairs, |fallbacks| &fallbacks.set_many)?;
    Ok(pairs.py().None().into_bound(pairs.py()))
}

pub fn remove_many<'py>(
    attached: &Attached,
    arguments: &Arguments<'_, 'py>,
    keys: &Bound<'py, PyTuple>,
    parts: &Parts,
) -> PyResult<Bound<'py, PyAny>> {
    let mut removed: u64 = 0;
    let groups = group(attached, parts, key_alone);
    let left = cross_all(attached, arguments, parts, &groups, Guest::remove_many, |asked, crossed| {
        let Crossed::Number(number) = crossed else { return Ok(0) };
        removed += u64::from(number);
        Ok(asked.len())
    })?;
    if let Some(others) = left.do_in_python(arguments, keys, |fallbacks| &fallbacks.remove_many)? {
        removed += others.extract::<u64>()?;
    }
    Ok(removed.into_pyobject(keys.py())?.into_any())
}
