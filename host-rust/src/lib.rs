//! Runs the moka cache component under wasmtime.
//!
//! The component asks its host for two things, and is given nothing else: a clock and random numbers. [`Host`] answers
//! both; the clock is any function that the embedder likes, so that tests can let years go by without waiting.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

use std::path::PathBuf;
use std::time::Instant;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Result, Store};

/// What `wit/` says, in Rust.
#[expect(missing_docs, reason = "generated")]
pub mod bindings {
    wasmtime::component::bindgen!({ path: "../wit", world: "provider" });
}

pub use bindings::Provider;
pub use bindings::exports::moka::cache::{cache, types};

/// What the component may ask of its host.
pub struct Host {
    clock: Box<dyn FnMut() -> u64 + Send>,
}

impl Host {
    /// A host with a clock of the embedder's own, in nanoseconds.
    pub fn with_clock(clock: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self { clock: Box::new(clock) }
    }
}

impl Default for Host {
    /// A host with the machine's monotonic clock.
    fn default() -> Self {
        let start = Instant::now();
        Self::with_clock(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl bindings::wasi::clocks::monotonic_clock::Host for Host {
    fn now(&mut self) -> u64 {
        (self.clock)()
    }
}

impl bindings::wasi::random::random::Host for Host {
    fn get_random_u64(&mut self) -> u64 {
        getrandom::u64().expect("the operating system has random numbers")
    }
}

/// A linker that grants what the component imports, and nothing else.
///
/// # Errors
/// Never, in practice: no name is defined twice.
pub fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    Provider::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
    Ok(linker)
}

/// Makes an instance of the component in a store of its own, as it should be: a trap ends a whole store.
///
/// # Errors
/// The component imports something else than [`linker`] grants, or is not the cache.
pub fn instantiate(engine: &Engine, component: &Component, host: Host) -> Result<(Store<Host>, Provider)> {
    let mut store = Store::new(engine, host);
    let provider = Provider::instantiate(&mut store, component, &linker(engine)?)?;
    Ok((store, provider))
}

/// Where the component is: what the environment variable `MOKA_CACHE_WASM` says, or where the build puts it.
///
/// # Errors
/// There is no such file.
pub fn component_path() -> Result<PathBuf> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/wasm32-wasip1/release/moka_cache.wasm");
    let path = std::env::var_os("MOKA_CACHE_WASM").map_or_else(|| built.into(), PathBuf::from);
    wasmtime::ensure!(
        path.exists(),
        "{} is not there: build it with `cargo component build --release`, or set MOKA_CACHE_WASM",
        path.display()
    );
    Ok(path)
}
