//! Lets a test say what time it is for moka, as the guest does: `clock_gettime` is defined here, which wins over libc's
//! when the test is linked, and shows the guest's time on threads that have stepped it.

#![allow(unsafe_code, reason = "a symbol that libc declares, with the signature it declares")]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};

use moka_cache::clock::{self, Source};

thread_local! {
    static STEPPED: Cell<bool> = const { Cell::new(false) };
}

/// Takes a reading of the test's clock, in nanoseconds.
pub fn step_to(reading: u64) {
    STEPPED.set(true);
    clock::advance(Source::Caller, reading);
}

/// libc's, as it is on 64-bit Unix.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(_clock: *const c_void, time: *mut Timespec) -> c_int {
    if !STEPPED.get() {
        return real_time(time);
    }
    let (seconds, nanoseconds) = clock::moka_time();
    // SAFETY: the caller passes a timespec of its own.
    unsafe { *time = Timespec { seconds: seconds.cast_signed(), nanoseconds: nanoseconds.cast_signed().into() } };
    0
}

/// The test harness waits on a thread of its own. C11's function is the one way left to the real time.
fn real_time(time: *mut Timespec) -> c_int {
    unsafe extern "C" {
        fn timespec_get(time: *mut Timespec, base: c_int) -> c_int;
    }
    const TIME_UTC: c_int = 1;
    // SAFETY: the caller passes a timespec of its own.
    if unsafe { timespec_get(time, TIME_UTC) } == TIME_UTC { 0 } else { -1 }
}
