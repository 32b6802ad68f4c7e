//! The plugin of `plugin-rust` with the cache component under it: what it asks of its host, and that it caches.

use std::path::PathBuf;
use std::sync::LazyLock;

use moka_cache_host::{Host, bindings::wasi};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

wasmtime::component::bindgen!({ path: ["../wit", "../plugin-rust/wit"], world: "moka:plugin/memo" });

/// The composed file: what the environment variable `MOKA_PLUGIN_WASM` says, or where `compose.sh` puts it.
static COMPOSED: LazyLock<Component> = LazyLock::new(|| {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/moka_cache_plugin_with_cache.wasm");
    let path = std::env::var_os("MOKA_PLUGIN_WASM").map_or_else(|| built.into(), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not there: build it with plugin-rust/compose.sh, or set MOKA_PLUGIN_WASM",
        path.display()
    );
    Component::from_file(&Engine::default(), path).expect("the composed component compiles")
});

#[test]
fn it_asks_for_a_clock_and_random_numbers_and_nothing_else() {
    let component_type = COMPOSED.component_type();
    let mut imports: Vec<_> = component_type.imports(COMPOSED.engine()).map(|(name, _)| name).collect();
    imports.sort_unstable();
    assert_eq!(["wasi:clocks/monotonic-clock@0.2.0", "wasi:random/random@0.2.0"], *imports);
}

#[test]
fn what_was_computed_once_is_looked_up_from_then_on() {
    let mut linker = Linker::new(COMPOSED.engine());
    wasi::clocks::monotonic_clock::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).expect("new names");
    wasi::random::random::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).expect("new names");
    let mut store = Store::new(COMPOSED.engine(), Host::default());
    // Its other imports are met inside the file, so the generated linker function for them is not used.
    let plugin = Memo::instantiate(&mut store, &COMPOSED, &linker).expect("an instance");

    assert_eq!(12_586_269_025, plugin.call_fibonacci(&mut store, 50).expect("no trap"));
    assert_eq!((0, 50), counts(&plugin, &mut store));
    assert_eq!(12_586_269_025, plugin.call_fibonacci(&mut store, 50).expect("no trap"));
    assert_eq!((50, 50), counts(&plugin, &mut store));
    assert_eq!(1_346_269, plugin.call_fibonacci(&mut store, 31).expect("no trap"));
    assert_eq!((81, 50), counts(&plugin, &mut store));
    assert_eq!(0, plugin.call_fibonacci(&mut store, 0).expect("no trap"));
    assert_eq!((81, 50), counts(&plugin, &mut store));
}

/// Lookups that were answered by the cache, and numbers that were computed.
fn counts(plugin: &Memo, store: &mut Store<Host>) -> (u64, u64) {
    (plugin.call_hits(&mut *store).expect("no trap"), plugin.call_computed(store).expect("no trap"))
}
