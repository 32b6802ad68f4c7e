//! A component that keeps its results in a cache, which another component provides: Fibonacci numbers, as an example.
//!
//! It does without std, and so imports the cache and nothing else. `compose.sh` builds it and puts the cache component
//! under it; what comes out runs on any host that grants a clock and random numbers.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::String;

use bindings::moka::cache::cache::Cache;
use bindings::moka::cache::types::{Config, EntryOptions, Policy};
use once_cell::race::OnceBox;

mod bindings {
    #![allow(unsafe_code, clippy::pedantic, reason = "generated")]
    wit_bindgen::generate!({
        path: ["../wit", "wit"],
        world: "moka:plugin/memo",
        generate_all,
    });

    use super::Memo;
    export!(Memo with_types_in self);
}

#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// A trap, which the host sees. (std's handler would write to streams, and import them.)
#[cfg(target_family = "wasm")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// The cache, opened at its first use.
fn cache() -> &'static Cache {
    static CACHE: OnceBox<Cache> = OnceBox::new();
    CACHE.get_or_init(|| {
        let config = Config {
            name: String::from("fibonacci"),
            capacity: Some(1000),
            ttl: None,
            tti: None,
            policy: Policy::Lru,
            memory_limit: None,
            removal_log: None,
        };
        Box::new(Cache::open(&config).expect("nothing in the configuration can be wrong"))
    })
}

struct Memo;

impl bindings::Guest for Memo {
    fn fibonacci(n: u32) -> u64 {
        fibonacci(cache(), n)
    }

    fn hits() -> u64 {
        cache().stats().hits
    }

    fn computed() -> u64 {
        cache().stats().insertions
    }
}

/// From the bottom up: no recursion, which would take stack for every number.
fn fibonacci(cache: &Cache, n: u32) -> u64 {
    let (mut last, mut current) = (1, 0);
    for i in 1..=n {
        let key = i.to_le_bytes();
        let known = cache.get(&key).and_then(|value| Some(u64::from_le_bytes(value.try_into().ok()?)));
        let next = known.unwrap_or_else(|| {
            let computed = u64::wrapping_add(last, current);
            let options = EntryOptions { ttl: None, tti: None, weight: 1 };
            // A cache may refuse: the number is as right without it.
            let _ = cache.set(&key, &computed.to_le_bytes(), options);
            computed
        });
        (last, current) = (current, next);
    }
    current
}
