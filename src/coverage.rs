//! What the fuzzer of the component face sees of the guest: how often each branch was taken, by the compiler's counters. No
//! part of what is released: see scripts/build-coverage-component.

#![expect(unsafe_code, reason = "a symbol that the compiler's counters call, and the memory that they are in")]

use std::cell::Cell;
use std::ptr;

mod bindings {
    #![allow(unsafe_code, clippy::pedantic, reason = "generated")]
    wit_bindgen::generate!({
        inline: "
            package moka:coverage;

            world coverage {
                export counters: func() -> list<u8>;
            }
        ",
    });

    use super::Coverage;
    export!(Coverage with_types_in self);
}

struct Coverage;

impl bindings::Guest for Coverage {
    /// They start at zero in each instance, and each begins anew after 255.
    fn counters() -> Vec<u8> {
        let (start, count) = COUNTERS.get();
        let mut counters = Vec::<u8>::with_capacity(count);
        // SAFETY: so many lie there, and as many bytes were allocated.
        unsafe {
            counters.as_mut_ptr().copy_from_nonoverlapping(start, count);
            counters.set_len(count);
        }
        counters
    }
}

thread_local! {
    /// Where the counters of all crates lie, side by side, and how many there are.
    static COUNTERS: Cell<(*const u8, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// What each crate calls before anything else runs.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const u8, stop: *const u8) {
    COUNTERS.set((start, stop.addr() - start.addr()));
}
