//! Everything that is `unsafe`: the call into the guest, the view of its memory, and the calls from Python.
#![allow(unsafe_code, reason = "each block says why it is sound")]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::slice;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use crate::gate::Door;

mod entrance;

pub use entrance::{Entrance, Outcome};

/// What only ever is touched by a thread that holds the GIL.
pub struct GilBound<T>(pub T);

// SAFETY: the module is declared to need the GIL, its objects are reached through Python only, and no reference to what
// is inside outlives the call that it was taken in.
unsafe impl<T> Send for GilBound<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for GilBound<T> {}

type CallUnchecked = unsafe extern "C" fn(usize, usize, *mut u64, usize, *mut usize) -> usize;
type MemorySize = unsafe extern "C" fn(usize, usize) -> usize;

/// Slots of 16 bytes of the arguments, and behind them wasmtime's pointer to a trap; as `_Lane.raw`.
const SLOTS: usize = 8;
const TRAP: usize = 2 * SLOTS;

/// How many numbers `_hot.py` hands over.
pub const NUMBERS: usize = 18;

/// The numbers that `_hot.py` hands over, in its order. All of them are addresses, but for the last four.
#[derive(Clone, Copy)]
pub struct Addresses {
    call: usize,
    memory_size: usize,
    context: usize,
    get: usize,
    set: usize,
    contains: usize,
    remove: usize,
    get_many: usize,
    set_many: usize,
    remove_many: usize,
    drain: usize,
    memory: usize,
    base: usize,
    slots: usize,
    lane: usize,
    cache: usize,
    mailbox: usize,
    room: usize,
}

impl From<[usize; NUMBERS]> for Addresses {
    fn from(numbers: [usize; NUMBERS]) -> Self {
        let [
            call,
            memory_size,
            context,
            get,
            set,
            contains,
            remove,
            get_many,
            set_many,
            remove_many,
            drain,
            memory,
            base,
            slots,
            lane,
            cache,
            mailbox,
            room,
        ] = numbers;
        Addresses {
            call,
            memory_size,
            context,
            get,
            set,
            contains,
            remove,
            get_many,
            set_many,
            remove_many,
            drain,
            memory,
            base,
            slots,
            lane,
            cache,
            mailbox,
            room,
        }
    }
}

/// One lane of a guest, whose addresses stay good as long as the Python object that owns them.
pub struct Guest {
    at: Addresses,
    door: Arc<Door>,
    size: Cell<usize>,
}

impl Guest {
    /// `None`: they cannot be addresses, or the mailbox is not inside of the memory. Nobody may be inside of the guest.
    pub fn new(at: Addresses, door: Arc<Door>) -> Option<Self> {
        let functions = [at.get, at.set, at.contains, at.remove, at.get_many, at.set_many, at.remove_many, at.drain];
        let addresses = [at.call, at.memory_size, at.context, at.memory, at.base, at.slots];
        let guest = Guest { at, door, size: Cell::new(0) };
        let good = addresses.iter().chain(&functions).all(|&address| address != 0) && at.slots.is_multiple_of(8);
        (good && guest.has_bytes(at.mailbox, at.room)).then_some(guest)
    }

    /// Whether these bytes are the guest's; what it says about them is never believed.
    fn has_bytes(&self, start: usize, length: usize) -> bool {
        let Some(end) = start.checked_add(length) else { return false };
        if end > self.size.get() {
            if !self.door.is_free() {
                return false;
            }
            // SAFETY: the address is that of `wasmtime_memory_data_size` in the loaded library, the context and the
            // memory are those of the store that the owner keeps. Nobody is inside of it, and the GIL keeps everybody out.
            let size = unsafe { std::mem::transmute::<usize, MemorySize>(self.at.memory_size) };
            // SAFETY: as above.
            self.size.set(unsafe { size(self.at.context, self.at.memory) });
        }
        end <= self.size.get()
    }

    /// Lets `write` fill the mailbox.
    pub fn fill<T>(&self, write: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: `new` checked that the mailbox lies in the memory, which neither moves nor shrinks, and the guest does
        // not move a mailbox that nobody else resizes. Nobody else writes there: the lane is ours, and busy.
        write(unsafe { slice::from_raw_parts_mut((self.at.base + self.at.mailbox) as *mut u8, self.at.room) })
    }

    /// Lets `read` look at answered bytes; `None`: they are not in the guest's memory.
    pub fn read<T>(&self, start: usize, length: usize, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        // SAFETY: they lie in the guest's memory, which neither moves nor shrinks. `read` does not let the guest run: it
        // copies, or makes a str or bytes object of them.
        self.has_bytes(start, length)
            .then(|| read(unsafe { slice::from_raw_parts((self.at.base + start) as *const u8, length) }))
    }

    pub fn get(&self, key: usize, now: u64) -> Option<Answer> {
        self.call(self.at.get, [self.at.lane as u64, self.at.cache as u64, key as u64, now])
    }

    /// `lives`: the entry's own time to live and to idle, in nanoseconds.
    pub fn set(&self, key: usize, value: usize, lives: [u64; 2], now: u64) -> Option<Answer> {
        let (lane, cache) = (self.at.lane as u64, self.at.cache as u64);
        let [ttl, tti] = lives;
        self.call(self.at.set, [lane, cache, key as u64, value as u64, 1, ttl, tti, now])
    }

    pub fn contains(&self, key: usize, now: u64) -> Option<Answer> {
        self.call(self.at.contains, [self.at.lane as u64, self.at.cache as u64, key as u64, now])
    }

    pub fn remove(&self, key: usize, now: u64) -> Option<Answer> {
        self.call(self.at.remove, [self.at.lane as u64, self.at.cache as u64, key as u64, now])
    }

    pub fn get_many(&self, request: usize, now: u64) -> Option<Answer> {
        self.call(self.at.get_many, [self.at.lane as u64, self.at.cache as u64, request as u64, now])
    }

    pub fn set_many(&self, request: usize, now: u64) -> Option<Answer> {
        self.call(self.at.set_many, [self.at.lane as u64, self.at.cache as u64, request as u64, now])
    }

    pub fn remove_many(&self, request: usize, now: u64) -> Option<Answer> {
        self.call(self.at.remove_many, [self.at.lane as u64, self.at.cache as u64, request as u64, now])
    }

    /// What was removed and is to be told: `limit` removals at most.
    pub fn drain(&self, limit: u32) -> Option<Answer> {
        self.call(self.at.drain, [self.at.lane as u64, self.at.cache as u64, limit.into()])
    }

    /// Bytes of the mailbox.
    pub fn room(&self) -> usize {
        self.at.room
    }

    /// `None`: another thread is inside, without the GIL.
    #[inline]
    fn call<const N: usize>(&self, function: usize, arguments: [u64; N]) -> Option<Answer> {
        const { assert!(N <= SLOTS) };
        if !self.door.is_free() {
            return None;
        }
        let slots = self.at.slots as *mut u64;
        // SAFETY: `slots` is the owner's array of TRAP + 1 numbers, aligned, and N is at most SLOTS, at two numbers each.
        // The other addresses are those of `wasmtime_func_call_unchecked`, of a store and of one of its functions, whose
        // type takes N arguments (`_hot.py` checks the component's ABI version). Nobody is inside, and the GIL keeps
        // everybody else out.
        unsafe {
            for (index, argument) in arguments.into_iter().enumerate() {
                slots.add(2 * index).write(argument);
            }
            let trap = slots.add(TRAP);
            trap.write(0);
            let call = std::mem::transmute::<usize, CallUnchecked>(self.at.call);
            let error = call(self.at.context, function, slots, SLOTS, trap.cast());
            let answer = slots.read();
            let trapped = error != 0 || trap.read() != 0;
            if trapped {
                self.door.mark_as_trapped();
            }
            Some(Answer { trapped, error, upper: (answer >> 32) as u32, lower: answer as u32 })
        }
    }
}

/// What a call came to. After a trap the slots hold what the Python side needs to know.
#[derive(Clone, Copy)]
pub struct Answer {
    pub trapped: bool,
    pub error: usize,
    pub upper: u32,
    pub lower: u32,
}

/// The integer, if it has no more than 64 bits, sign included.
pub fn int64(number: Borrowed<'_, '_, PyAny>) -> Option<i64> {
    let mut overflow: c_int = 0;
    // SAFETY: the callers know it for an exact int, so that this neither fails nor runs Python code.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(number.as_ptr(), &raw mut overflow) };
    (overflow == 0).then_some(value)
}

/// The UTF-8, if it has no lone surrogates.
#[inline]
pub fn text<'a>(text: Borrowed<'a, '_, PyAny>) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: the callers know it for an exact str; it owns these bytes and does not change.
    unsafe {
        let bytes = ffi::PyUnicode_AsUTF8AndSize(text.as_ptr(), &raw mut length);
        if bytes.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(slice::from_raw_parts(bytes.cast(), length.max(0) as usize))
    }
}

/// A method's arguments by position.
pub struct Arguments<'a, 'py> {
    pub myself: Borrowed<'a, 'py, PyAny>,
    pub names: Option<Borrowed<'a, 'py, PyAny>>,
    values: &'a [*mut ffi::PyObject],
    positional: usize,
}

impl<'a, 'py> Arguments<'a, 'py> {
    #[inline]
    pub fn positional(&self) -> usize {
        self.positional
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        // SAFETY: the interpreter keeps the arguments of a running call.
        self.values.get(index).map(|&value| unsafe { Borrowed::from_ptr(self.myself.py(), value) })
    }
}

pub type Body = for<'a, 'py> fn(&Arguments<'a, 'py>) -> PyResult<Bound<'py, PyAny>>;

/// Calls what a method consists of. A panic would abort (so says the root's release profile): nothing here panics. It is not
/// caught because CPython, up to 3.13, ends daemon threads at exit by unwinding them, and that cannot be caught.
#[inline]
unsafe fn enter(
    body: Body,
    myself: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls with the GIL held, and with arguments as METH_FASTCALL | METH_KEYWORDS has them.
    let (py, myself, names) = unsafe {
        let py = Python::assume_attached();
        (py, Borrowed::from_ptr(py, myself), Borrowed::from_ptr_or_opt(py, names))
    };
    let positional = positional.max(0) as usize;
    let named = names.and_then(|names| names.len().ok()).unwrap_or(0);
    // SAFETY: as above; the pointer may be null where there are no arguments.
    let values = if values.is_null() { &[] } else { unsafe { slice::from_raw_parts(values, positional + named) } };
    let arguments = Arguments { myself, names, values, positional };
    match body(&arguments) {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

/// A method of a class, as METH_FASTCALL | METH_KEYWORDS wants it.
macro_rules! method {
    ($name:ident, $body:path) => {
        pub unsafe extern "C" fn $name(
            myself: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            positional: pyo3::ffi::Py_ssize_t,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: this is what the interpreter called.
            unsafe { enter($body, myself, values, positional, names) }
        }
    };
}

pub mod callable;

method!(get, crate::hot::get);
method!(set, crate::hot::set);
method!(get_item, crate::hot::get_item);
method!(set_item, crate::hot::set_item);
method!(del_item, crate::hot::del_item);
method!(contains, crate::hot::contains);
method!(remove, crate::hot::remove);
method!(get_encoded, crate::hot::get_encoded);
method!(set_encoded, crate::hot::set_encoded);
method!(encode_key, crate::hot::encode_key);
method!(dumps, crate::hot::dumps);
method!(loads, crate::hot::loads);
method!(get_with, crate::hot::get_with);
method!(get_many, crate::batch::get_many);
method!(set_many, crate::batch::set_many);
method!(remove_many, crate::batch::remove_many);

/// A method descriptor of the class.
pub fn descriptor<'py>(
    class: &Bound<'py, PyType>,
    name: &'static CStr,
    doc: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
) -> PyResult<Bound<'py, PyAny>> {
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: the class is one, and the definition lives for ever.
    unsafe { Bound::from_owned_ptr_or_err(class.py(), ffi::PyDescr_NewMethod(class.as_type_ptr(), definition)) }
}

/// The object as an instance of `T`, without looking.
///
/// # Safety
/// It must be one.
#[inline]
pub unsafe fn unchecked<'a, 'py, T>(object: Borrowed<'a, 'py, PyAny>) -> Borrowed<'a, 'py, T> {
    // SAFETY: the caller's promise.
    unsafe { object.cast_unchecked() }
}

const _: () = assert!(size_of::<usize>() == size_of::<*mut c_void>());
