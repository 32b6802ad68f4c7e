//! Several caches in one component, and a host that gives it no more memory.

use std::sync::LazyLock;

use moka_cache_host::{Host, Provider, component_path, types};
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

/// Bytes that the component may have.
const WALL: usize = 1 << 20;

static COMPONENT: LazyLock<Component> = LazyLock::new(|| {
    Component::from_file(&Engine::default(), component_path().expect("it is built")).expect("it compiles")
});

struct Walled {
    host: Host,
    limits: StoreLimits,
}

struct Sandbox {
    store: Store<Walled>,
    provider: Provider,
}

impl Sandbox {
    fn new() -> Self {
        let engine = COMPONENT.engine();
        let mut linker = Linker::<Walled>::new(engine);
        Provider::add_to_linker::<_, HasSelf<Host>>(&mut linker, |walled| &mut walled.host)
            .expect("no name is there yet");
        let limits = StoreLimitsBuilder::new().memory_size(WALL).build();
        let mut store = Store::new(engine, Walled { host: Host::with_clock(|| 0), limits });
        store.limiter(|walled| &mut walled.limits);
        let provider = Provider::instantiate(&mut store, &COMPONENT, &linker).expect("it is given what it imports");
        Self { store, provider }
    }

    fn open(&mut self) -> Result<ResourceAny, types::ConfigError> {
        let config = types::Config {
            name: String::new(),
            capacity: None,
            ttl: None,
            tti: None,
            policy: types::Policy::TinyLfu,
            memory_limit: None,
            removal_log: None,
        };
        self.provider.moka_cache_cache().cache().call_open(&mut self.store, &config).expect("no trap")
    }

    /// Sets entries until one is refused.
    fn fill(&mut self, cache: ResourceAny, length: usize) {
        let options = types::EntryOptions { ttl: None, tti: None, weight: 1 };
        let face = self.provider.moka_cache_cache().cache();
        for number in 0..100_000_u32 {
            let (key, value) = (number.to_le_bytes().to_vec(), vec![0; length]);
            if face.call_set(&mut self.store, cache, &key, &value, options).expect("no trap").is_err() {
                return;
            }
        }
    }

    fn read(&mut self, cache: ResourceAny) {
        let face = self.provider.moka_cache_cache();
        for number in 0..1000_u32 {
            let key = number.to_le_bytes().to_vec();
            assert_eq!(None, face.cache().call_get(&mut self.store, cache, &key).expect("no trap"));
            assert!(!face.cache().call_contains(&mut self.store, cache, &key).expect("no trap"));
        }
        let walk = face.cache().call_keys(&mut self.store, cache).expect("no trap");
        assert!(face.key_cursor().call_next(&mut self.store, walk, 10).expect("no trap").is_empty());
    }
}

#[test]
fn a_cache_that_another_left_no_memory_is_read_without_a_trap() {
    for length in [4096, 255, 8] {
        let mut sandbox = Sandbox::new();
        let large = sandbox.open().expect("there is memory");
        let empty = sandbox.open().expect("there is memory");
        sandbox.fill(large, length);
        sandbox.read(empty);
    }
}

#[test]
fn where_there_is_no_memory_no_cache_is_opened() {
    for length in [4096, 255, 8] {
        let mut sandbox = Sandbox::new();
        let large = sandbox.open().expect("there is memory");
        sandbox.fill(large, length);
        let mut refused = None;
        for _ in 0..100 {
            match sandbox.open() {
                Ok(cache) => sandbox.read(cache),
                Err(error) => refused = Some(error),
            }
        }
        let refused = refused.expect("a hundred caches are too many");
        assert_eq!(types::ConfigField::MemoryLimit, refused.field);
        assert!(!refused.reason.is_empty());
    }
}
