//! The `moka` cache as a WebAssembly component.
//!
//! [`cache`] and the modules it uses are ordinary Rust, tested natively and inside wasm. Around it stand two faces, built
//! for wasm only: the component face (`component`), which speaks the WIT package `moka:cache`, and the direct ABI
//! (`direct`), plain exports of the core module for hosts to which crossing the component face is dear or unknown.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

#[cfg(any(test, all(target_family = "wasm", feature = "guest")))]
mod allocator;
mod bytes;
pub mod cache;
pub mod clock;
#[cfg(any(test, all(target_family = "wasm", feature = "guest")))]
mod compare;
pub mod config;
mod entry;
mod expiry;
mod hash;
mod lease;
mod map;
mod memory;
mod removals;
mod stats;

pub use cache::{Cache, GetOrInsert, KeyCursor, Life, Lookup};
pub use config::{Config, ConfigError, Field, OpenError, Policy};
pub use entry::{EntryOptions, Key, Value};
pub use lease::LeaseId;
pub use memory::SetError;
pub use removals::{Cause, Removal};
pub use stats::Stats;

#[cfg(all(target_family = "wasm", feature = "guest"))]
mod component;
#[cfg(all(target_family = "wasm", feature = "coverage"))]
mod coverage;
#[cfg(any(all(target_family = "wasm", feature = "guest"), feature = "fuzz", test))]
mod direct;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use direct::calls as direct_calls;
#[cfg(all(target_family = "wasm", feature = "guest"))]
mod libc_stand_ins;
#[cfg(any(test, all(target_family = "wasm", feature = "guest")))]
mod wide;
