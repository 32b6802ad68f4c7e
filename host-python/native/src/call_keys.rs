//! The key of a call, straight from its arguments to bytes: the common part of `_call_keys.py`, byte for byte.

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use crate::codec::{Writer, write_item};
use crate::raw::{Arguments, text};

/// The most arguments by keyword; more are left to Python.
const NAMES: usize = 16;

/// How the calls of one function get their keys.
pub struct CallKeys {
    /// How many arguments, from the first, are no part of the key.
    pub skipped: usize,
    /// If types are part of the key, the frames of str, int, bytes, float, bool and None's.
    pub types: Option<[Vec<u8>; 6]>,
}

impl CallKeys {
    /// `None`: Python has to make this key, or to say why there is none.
    #[inline]
    pub fn write(&self, out: &mut Writer<'_>, arguments: &Arguments<'_, '_>) -> Option<()> {
        let positional = arguments.positional();
        if positional < self.skipped {
            return None;
        }
        out.put(&[0x30])?;
        if self.types.is_some() || arguments.names.is_some() {
            return self.write_marked(out, arguments);
        }
        for index in self.skipped..positional {
            write_item(out, arguments.get(index)?)?;
        }
        Some(())
    }

    /// The shape that begins with the keywords' names.
    fn write_marked(&self, out: &mut Writer<'_>, arguments: &Arguments<'_, '_>) -> Option<()> {
        let mut named = [(&[][..], 0); NAMES];
        let mut count = 0;
        let names = arguments.names.map(|names| names.cast_exact::<PyTuple>());
        if let Some(names) = &names {
            for (index, name) in names.as_ref().ok()?.iter_borrowed().enumerate() {
                if !name.is_exact_instance_of::<PyString>() {
                    return None;
                }
                *named.get_mut(index)? = (text(name)?, arguments.positional().checked_add(index)?);
                count = index + 1;
            }
        }
        let named = named.get_mut(..count)?;
        // The order of UTF-8 is that of the code points, which is Python's.
        named.sort_unstable();
        let length = 1 + named.iter().map(|(name, _)| 2 + name.len()).sum::<usize>();
        out.put(&[short(length)?, 0x30])?;
        for (name, _) in named.iter() {
            out.put(&[short(name.len() + 1)?, 0x10])?;
            out.put(name)?;
        }
        let values = || (self.skipped..arguments.positional()).chain(named.iter().map(|&(_, index)| index));
        for index in values() {
            write_item(out, arguments.get(index)?)?;
        }
        if let Some(types) = &self.types {
            for index in values() {
                out.put(types.get(number_of_type(arguments.get(index)?)?)?)?;
            }
        }
        Some(())
    }
}

/// The length of a frame that has one byte of length.
fn short(length: usize) -> Option<u8> {
    u8::try_from(length).ok().filter(|&length| length < 0xff)
}

fn number_of_type(value: Borrowed<'_, '_, PyAny>) -> Option<usize> {
    [
        value.is_exact_instance_of::<PyString>(),
        value.is_exact_instance_of::<PyInt>(),
        value.is_exact_instance_of::<PyBytes>(),
        value.is_exact_instance_of::<PyFloat>(),
        value.is_exact_instance_of::<PyBool>(),
        value.is_none(),
    ]
    .into_iter()
    .position(|is| is)
}
