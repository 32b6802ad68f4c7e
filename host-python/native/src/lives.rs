//! The arguments `ttl` and `tti`, as `_arguments.py` understands them.

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyTuple};
use pyo3::{Borrowed, intern};

use crate::raw::{Arguments, int64};

const NANOSECONDS: u64 = 1_000_000_000;
/// Beyond this many seconds a duration is refused.
const SECONDS_LIMIT: f64 = 18_446_744_073_709_551_616.0;
/// In the place of a duration.
const NONE: u64 = u64::MAX;

/// How long an entry is to live.
#[derive(Clone, Copy)]
pub struct Lives<'a, 'py> {
    /// Time to live and time to idle, as they were given, if they were.
    pub given: [Option<Borrowed<'a, 'py, PyAny>>; 2],
    /// In nanoseconds, as the guest takes them.
    pub nanoseconds: [u64; 2],
}

impl Lives<'_, '_> {
    pub const NONE: Self = Lives { given: [None, None], nanoseconds: [NONE, NONE] };
}

/// These arguments, from this position on or by their names, after all others. `None`: there is one more, one less or
/// one that is not known here, which Python is to say.
#[inline]
pub fn lives<'a, 'py>(arguments: &Arguments<'a, 'py>, first: usize) -> Option<Lives<'a, 'py>> {
    let behind = arguments.positional().checked_sub(first)?;
    if behind == 0 && arguments.names.is_none() {
        return Some(Lives::NONE);
    }
    some_lives(arguments, first, behind)
}

fn some_lives<'a, 'py>(arguments: &Arguments<'a, 'py>, first: usize, behind: usize) -> Option<Lives<'a, 'py>> {
    if behind > 2 {
        return None;
    }
    let by_position = |index: usize| (index < behind).then(|| arguments.get(first + index)).flatten();
    let mut given = [by_position(0), by_position(1)];
    if let Some(names) = arguments.names {
        let py = arguments.myself.py();
        let [ttl, tti] = [intern!(py, "ttl"), intern!(py, "tti")];
        for (index, name) in names.cast::<PyTuple>().ok()?.iter_borrowed().enumerate() {
            // The names in a call are interned.
            let place = [ttl.as_any(), tti.as_any()].iter().position(|known| name.is(*known))?;
            let value = arguments.get(arguments.positional() + index)?;
            if given.get_mut(place)?.replace(value).is_some() {
                return None;
            }
        }
    }
    let [ttl, tti] = given;
    Some(Lives { given, nanoseconds: [nanoseconds(ttl)?, nanoseconds(tti)?] })
}

/// What `_arguments.nanoseconds` answers. `None`: it is none that is known here, or none that can be.
fn nanoseconds(duration: Option<Borrowed<'_, '_, PyAny>>) -> Option<u64> {
    let Some(duration) = duration.filter(|duration| !duration.is_none()) else { return Some(NONE) };
    let exact = if let Ok(seconds) = duration.cast_exact::<PyFloat>() {
        let seconds = seconds.value();
        (seconds > 0.0 && seconds < SECONDS_LIMIT).then_some(seconds * NANOSECONDS as f64)? as u64
    } else if duration.is_exact_instance_of::<PyInt>() {
        let seconds = u64::try_from(int64(duration)?).ok().filter(|&seconds| seconds > 0)?;
        seconds.saturating_mul(NANOSECONDS)
    } else {
        return None;
    };
    Some(exact.clamp(1, NONE - 1))
}
