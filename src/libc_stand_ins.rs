//! The symbols of libc through which std would reach for the host, defined here instead: a definition in this crate
//! wins over libc's at link time, and with the last use of a WASI import gone the import is gone too.
//!
//! What is left to the guest is a clock and random numbers, both imported by the component face itself.

#![expect(unsafe_code, reason = "symbols that libc declares, with the signatures it declares")]

use core::arch::wasm32::unreachable;
use core::ffi::{c_char, c_int, c_void};

/// libc's, as wasi-libc lays it out on wasm32.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i32,
}

#[repr(C)]
struct Iovec {
    base: *const c_void,
    len: usize,
}

/// Every clock shows the time that moka is to see: see `clock`.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(_clock: *const c_void, time: *mut Timespec) -> c_int {
    let (seconds, nanoseconds) = crate::clock::moka_time();
    // SAFETY: std and libc pass a timespec of their own.
    unsafe { *time = Timespec { seconds: seconds.cast_signed(), nanoseconds: nanoseconds.cast_signed() } };
    0
}

/// There is no environment.
#[unsafe(no_mangle)]
extern "C" fn getenv(_name: *const c_char) -> *mut c_char {
    core::ptr::null_mut()
}

/// There are no streams: what std writes of a panic is taken and dropped.
#[unsafe(no_mangle)]
extern "C" fn write(_file: c_int, _data: *const c_void, len: usize) -> isize {
    len.cast_signed()
}

/// See [`write`].
#[unsafe(no_mangle)]
extern "C" fn writev(_file: c_int, parts: *const Iovec, count: c_int) -> isize {
    // SAFETY: the caller passes an array of that many.
    let parts = unsafe { core::slice::from_raw_parts(parts, usize::try_from(count).unwrap_or(0)) };
    parts.iter().map(|part| part.len.cast_signed()).sum()
}

/// There is one thread.
#[unsafe(no_mangle)]
extern "C" fn sched_yield() -> c_int {
    0
}

/// There is nothing to wait for.
#[unsafe(no_mangle)]
extern "C" fn nanosleep(_time: *const Timespec, _left: *mut Timespec) -> c_int {
    0
}

/// See [`nanosleep`].
#[unsafe(no_mangle)]
extern "C" fn clock_nanosleep(
    _clock: *const c_void,
    _flags: c_int,
    _time: *const Timespec,
    _left: *mut Timespec,
) -> c_int {
    0
}

/// A trap, which the host sees.
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    unreachable()
}

/// See [`abort`].
#[unsafe(no_mangle)]
extern "C" fn exit(_code: c_int) -> ! {
    unreachable()
}

/// See [`abort`].
#[unsafe(no_mangle)]
extern "C" fn _Exit(_code: c_int) -> ! {
    unreachable()
}

/// See [`compare`](crate::compare::compare).
#[unsafe(no_mangle)]
extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's memory is that long.
    unsafe { crate::compare::compare(left, right, len) }
}

/// The product of two numbers of 128 bits, of which wasm knows none: what the compiler calls to multiply them. moka has a
/// time multiplied so in every operation. The compiler's own takes both apart each time.
#[unsafe(no_mangle)]
extern "C" fn __multi3(left: i128, right: i128) -> i128 {
    crate::wide::product(left.cast_unsigned(), right.cast_unsigned()).cast_signed()
}
