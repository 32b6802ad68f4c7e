//! Keys and values as bytes: the common part of `_keys.py` and `_msgpack.py`, byte for byte. `None` says that it is not
//! of that part, and that Python's own codec has to look at it. Nothing here runs Python code.

use std::cell::RefCell;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::raw::{GilBound, int64, text};

/// How many containers may lie in each other before Python takes over.
const DEPTH: usize = 32;

/// Integral floats from here on are no i64.
const INT64_LIMIT: f64 = 9_223_372_036_854_775_808.0;

type Known = RefCell<Option<(Box<[u8]>, Py<PyAny>)>>;

/// Keys of dicts that were read lately, by their hash.
static KNOWN: GilBound<[Known; 512]> = GilBound([const { RefCell::new(None) }; 512]);

type Object<'a, 'py> = Borrowed<'a, 'py, PyAny>;

/// Bytes that are written one after the other, as long as there is room.
pub struct Writer<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    pub fn new(room: &'a mut [u8]) -> Self {
        Writer { room, length: 0 }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        let room = self.room.get_mut(self.length..end)?;
        if copy_short(room, bytes).is_none() {
            room.copy_from_slice(bytes);
        }
        self.length = end;
        Some(())
    }

    /// Writes over bytes that were written before.
    #[inline]
    pub fn put_at(&mut self, start: usize, bytes: &[u8]) -> Option<()> {
        let end = start.checked_add(bytes.len()).filter(|&end| end <= self.length)?;
        self.room.get_mut(start..end)?.copy_from_slice(bytes);
        Some(())
    }

    #[inline]
    fn tagged<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) -> Option<()> {
        self.put(&[tag])?;
        self.put(&bytes)
    }

    /// The head of a str, bytes, list or dict: the short form, if there is one for this length, or the shortest of the
    /// others, whose tags follow each other.
    fn head(&mut self, length: usize, short: Option<(u8, usize)>, byte: Option<u8>, wide: u8) -> Option<()> {
        if let Some((tag, limit)) = short
            && length < limit
        {
            return self.put(&[tag | length as u8]);
        }
        match (byte, u8::try_from(length), u16::try_from(length)) {
            (Some(tag), Ok(length), _) => self.put(&[tag, length]),
            (_, _, Ok(length)) => self.tagged(wide, length.to_be_bytes()),
            _ => self.tagged(wide.checked_add(1)?, u32::try_from(length).ok()?.to_be_bytes()),
        }
    }
}

#[inline]
pub fn write_key(out: &mut Writer<'_>, key: Object<'_, '_>) -> Option<()> {
    if key.is_exact_instance_of::<PyString>() {
        out.put(&[0x10])?;
        return out.put(text(key)?);
    }
    if key.is_exact_instance_of::<PyInt>() {
        return out.tagged(0x20, int64(key)?.to_be_bytes());
    }
    let items = key.cast_exact::<PyTuple>().ok()?;
    out.put(&[0x30])?;
    for item in items.iter_borrowed() {
        write_item(out, item)?;
    }
    Some(())
}

/// An item of a tuple, in its frame.
#[inline]
pub fn write_item(out: &mut Writer<'_>, item: Object<'_, '_>) -> Option<()> {
    if item.is_exact_instance_of::<PyString>() {
        return write_frame(out, 0x10, text(item)?);
    }
    if item.is_exact_instance_of::<PyInt>() {
        out.put(&[9])?;
        return out.tagged(0x20, int64(item)?.to_be_bytes());
    }
    write_other_item(out, item)
}

fn write_other_item(out: &mut Writer<'_>, item: Object<'_, '_>) -> Option<()> {
    if item.is_none() {
        return out.put(&[1, 0x00]);
    }
    if let Ok(bytes) = item.cast_exact::<PyBytes>() {
        return write_frame(out, 0x12, bytes.as_bytes());
    }
    out.put(&[9])?;
    if let Ok(bool) = item.cast_exact::<PyBool>() {
        return out.tagged(0x20, i64::from(bool.is_true()).to_be_bytes());
    }
    let number = item.cast_exact::<PyFloat>().ok()?.value();
    if number.is_nan() {
        out.tagged(0x22, 0x7ff8_0000_0000_0000_u64.to_be_bytes())
    } else if number.fract() != 0.0 {
        out.tagged(0x22, number.to_be_bytes())
    } else if (-INT64_LIMIT..INT64_LIMIT).contains(&number) {
        out.tagged(0x20, (number as i64).to_be_bytes())
    } else {
        None
    }
}

fn write_frame(out: &mut Writer<'_>, tag: u8, bytes: &[u8]) -> Option<()> {
    let length = bytes.len() + 1;
    match u8::try_from(length) {
        Ok(length) if length < 0xff => out.put(&[length, tag])?,
        _ => {
            out.tagged(0xff, (length as u64).to_be_bytes())?;
            out.put(&[tag])?;
        }
    }
    out.put(bytes)
}

pub fn write_value(out: &mut Writer<'_>, value: Object<'_, '_>, depth: usize) -> Option<()> {
    if value.is_exact_instance_of::<PyString>() {
        let bytes = text(value)?;
        out.head(bytes.len(), Some((0xa0, 32)), Some(0xd9), 0xda)?;
        return out.put(bytes);
    }
    if value.is_exact_instance_of::<PyInt>() {
        return write_int(out, int64(value)?);
    }
    if value.is_none() {
        return out.put(&[0xc0]);
    }
    if let Ok(bool) = value.cast_exact::<PyBool>() {
        return out.put(&[0xc2 | u8::from(bool.is_true())]);
    }
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        return out.tagged(0xcb, float.value().to_be_bytes());
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        let bytes = bytes.as_bytes();
        out.head(bytes.len(), None, Some(0xc4), 0xc5)?;
        return out.put(bytes);
    }
    let depth = depth.checked_add(1).filter(|&depth| depth <= DEPTH)?;
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        out.head(dict.len(), Some((0x80, 16)), None, 0xde)?;
        for (key, item) in dict.iter() {
            write_value(out, key.as_borrowed(), depth)?;
            write_value(out, item.as_borrowed(), depth)?;
        }
        return Some(());
    }
    let list = value.cast_exact::<PyList>().ok()?;
    out.head(list.len(), Some((0x90, 16)), None, 0xdc)?;
    for item in list.iter() {
        write_value(out, item.as_borrowed(), depth)?;
    }
    Some(())
}

fn write_int(out: &mut Writer<'_>, number: i64) -> Option<()> {
    if let Ok(number) = u64::try_from(number) {
        if number < 0x80 {
            out.put(&[number as u8])
        } else if let Ok(number) = u8::try_from(number) {
            out.put(&[0xcc, number])
        } else if let Ok(number) = u16::try_from(number) {
            out.tagged(0xcd, number.to_be_bytes())
        } else if let Ok(number) = u32::try_from(number) {
            out.tagged(0xce, number.to_be_bytes())
        } else {
            out.tagged(0xcf, number.to_be_bytes())
        }
    } else if number >= -32 {
        out.put(&[number as u8])
    } else if let Ok(number) = i8::try_from(number) {
        out.tagged(0xd0, number.to_be_bytes())
    } else if let Ok(number) = i16::try_from(number) {
        out.tagged(0xd1, number.to_be_bytes())
    } else if let Ok(number) = i32::try_from(number) {
        out.tagged(0xd2, number.to_be_bytes())
    } else {
        out.tagged(0xd3, number.to_be_bytes())
    }
}

/// Whether these bytes are of a value that is no container, so that reading them makes one object and nothing else.
#[inline]
pub fn is_leaf(data: &[u8]) -> bool {
    !matches!(data.first(), Some(0x80..=0x9f | 0xdc..=0xdf))
}

/// The value that these bytes are, all of them.
#[inline]
pub fn read_value<'py>(py: Python<'py>, data: &[u8]) -> Option<Bound<'py, PyAny>> {
    let mut reader = Reader { py, data };
    let value = reader.value(0)?;
    reader.data.is_empty().then_some(value)
}

/// Bytes of a short str.
const SHORT: usize = 32;

/// A copy of a short str, where a word begins: CPython reads ASCII word by word from there on only, and byte by byte else.
#[repr(align(8))]
struct Aligned([u8; SHORT]);

impl Aligned {
    /// `None`: it is too short to be worth it, or too long.
    #[inline]
    fn of(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        let copy = self.0.get_mut(..bytes.len())?;
        copy_short(copy, bytes)?;
        Some(copy)
    }
}

/// Copies 8 to 32 bytes to a place of their length, by two moves that may overlap: in less time than a call of memcpy takes.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) -> Option<()> {
    if from.len() > SHORT {
        return None;
    }
    if let (Some(first), Some(last)) = (from.first_chunk::<16>(), from.last_chunk::<16>()) {
        *to.first_chunk_mut()? = *first;
        *to.last_chunk_mut()? = *last;
    } else {
        *to.first_chunk_mut()? = *from.first_chunk::<8>()?;
        *to.last_chunk_mut()? = *from.last_chunk::<8>()?;
    }
    Some(())
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    data: &'a [u8],
}

impl<'a, 'py> Reader<'a, 'py> {
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.data.split_at_checked(length)?;
        self.data = rest;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.data.split_first_chunk()?;
        self.data = rest;
        Some(*taken)
    }

    fn length<const N: usize>(&mut self) -> Option<usize> {
        Some(self.array::<N>()?.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte)))
    }

    fn value(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        let [head] = self.array()?;
        Some(match head {
            0xa0..=0xbf => self.text(usize::from(head & 0x1f))?,
            0xd9 => self.length::<1>().and_then(|length| self.text(length))?,
            0xda => self.length::<2>().and_then(|length| self.text(length))?,
            0xdb => self.length::<4>().and_then(|length| self.text(length))?,
            0x00..=0x7f => int(py, head),
            0xe0..=0xff => int(py, head as i8),
            0xcc => int(py, u8::from_be_bytes(self.array()?)),
            0xcd => int(py, u16::from_be_bytes(self.array()?)),
            0xce => int(py, u32::from_be_bytes(self.array()?)),
            0xcf => int(py, u64::from_be_bytes(self.array()?)),
            0xd0 => int(py, i8::from_be_bytes(self.array()?)),
            0xd1 => int(py, i16::from_be_bytes(self.array()?)),
            0xd2 => int(py, i32::from_be_bytes(self.array()?)),
            0xd3 => int(py, i64::from_be_bytes(self.array()?)),
            0xc0 => py.None().into_bound(py),
            0xc2 | 0xc3 => PyBool::new(py, head == 0xc3).to_owned().into_any(),
            0xcb => PyFloat::new(py, f64::from_be_bytes(self.array()?)).into_any(),
            0xc4 => self.length::<1>().and_then(|length| self.bytes(length))?,
            0xc5 => self.length::<2>().and_then(|length| self.bytes(length))?,
            0xc6 => self.length::<4>().and_then(|length| self.bytes(length))?,
            0x80..=0x8f => self.dict(usize::from(head & 0x0f), depth)?,
            0xde => self.length::<2>().and_then(|length| self.dict(length, depth))?,
            0xdf => self.length::<4>().and_then(|length| self.dict(length, depth))?,
            0x90..=0x9f => self.list(usize::from(head & 0x0f), depth)?,
            0xdc => self.length::<2>().and_then(|length| self.list(length, depth))?,
            0xdd => self.length::<4>().and_then(|length| self.list(length, depth))?,
            // A pickle, an extension, a float of 32 bits.
            _ => return None,
        })
    }

    #[inline]
    fn text(&mut self, length: usize) -> Option<Bound<'py, PyAny>> {
        let bytes = self.take(length)?;
        let mut copy = Aligned([0; SHORT]);
        let bytes = copy.of(bytes).unwrap_or(bytes);
        PyString::from_bytes(self.py, bytes).ok().map(Bound::into_any)
    }

    /// A short str that was probably seen before: the keys of dicts repeat.
    #[inline]
    fn known_text(&self, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
        let hash = bytes.iter().fold(bytes.len(), |hash, &byte| hash.wrapping_mul(31) ^ usize::from(byte));
        let place = KNOWN.0.get(hash % KNOWN.0.len())?;
        if let Some((known, text)) = place.borrow().as_ref()
            && **known == *bytes
        {
            return Some(text.bind(self.py).clone());
        }
        let text = PyString::from_bytes(self.py, bytes).ok()?.into_any();
        let old = place.replace(Some((bytes.into(), text.clone().unbind())));
        drop(old.map(|(_, text)| text.into_bound(self.py)));
        Some(text)
    }

    fn bytes(&mut self, length: usize) -> Option<Bound<'py, PyAny>> {
        Some(PyBytes::new(self.py, self.take(length)?).into_any())
    }

    fn dict(&mut self, length: usize, depth: usize) -> Option<Bound<'py, PyAny>> {
        let depth = depth.checked_add(1).filter(|&depth| depth <= DEPTH)?;
        let dict = PyDict::new(self.py);
        for _ in 0..length {
            // A container cannot be a key.
            if !is_leaf(self.data) {
                return None;
            }
            let key = match self.data.split_first() {
                Some((&head @ 0xa0..=0xbf, rest)) => {
                    self.data = rest;
                    let bytes = self.take(usize::from(head & 0x1f))?;
                    self.known_text(bytes)?
                }
                _ => self.value(depth)?,
            };
            let item = self.value(depth)?;
            dict.set_item(key, item).ok()?;
        }
        Some(dict.into_any())
    }

    fn list(&mut self, length: usize, depth: usize) -> Option<Bound<'py, PyAny>> {
        let depth = depth.checked_add(1).filter(|&depth| depth <= DEPTH)?;
        // Not allocated for a length that only is said: every item has at least one byte.
        let mut items = Vec::with_capacity(length.min(self.data.len()));
        for _ in 0..length {
            items.push(self.value(depth)?);
        }
        Some(PyList::new(self.py, items).ok()?.into_any())
    }
}

fn int<'py>(
    py: Python<'py>,
    number: impl IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>>,
) -> Bound<'py, PyAny> {
    match number.into_pyobject(py) {
        Ok(number) => number.into_any(),
        Err(_) => py.None().into_bound(py),
    }
}
