//! Several caches in one component, and a host that gives it no more memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use moka_cache_host::{Host, Provider, component_path, types};
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

static COMPONENT: LazyLock<Component> = LazyLock::new(|| {
    Component::from_file(&Engine::default(), component_path().expect("it is built")).expect("it compiles")
});

struct Walled {
    host: Host,
    limits: StoreLimits,
}

struct Sandbox {
    /// What the component's clock shows, in nanoseconds.
    clock: Arc<AtomicU64>,
    store: Store<Walled>,
    provider: Provider,
}

impl Sandbox {
    /// `wall`: bytes that the component may have.
    fn new(wall: usize) -> Self {
        let engine = COMPONENT.engine();
        let mut linker = Linker::<Walled>::new(engine);
        Provider::add_to_linker::<_, HasSelf<Host>>(&mut linker, |walled| &mut walled.host)
            .expect("no name is there yet");
        let limits = StoreLimitsBuilder::new().memory_size(wall).build();
        let clock = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&clock);
        let mut store = Store::new(engine, Walled { host: Host::with_clock(move || shown.load(Relaxed)), limits });
        store.limiter(|walled| &mut walled.limits);
        let provider = Provider::instantiate(&mut store, &COMPONENT, &linker).expect("it is given what it imports");
        Self { clock, store, provider }
    }

    fn open(&mut self) -> Result<ResourceAny, types::ConfigError> {
        self.open_with(None)
    }

    /// `memory_limit`: of the cache, in bytes; it logs removals then, which keeps them in memory.
    fn open_with(&mut self, memory_limit: Option<u64>) -> Result<ResourceAny, types::ConfigError> {
        let config = types::Config {
            name: String::new(),
            capacity: None,
            ttl: None,
            tti: None,
            policy: types::Policy::TinyLfu,
            memory_limit,
            removal_log: memory_limit.map(|_| 1000),
        };
        self.provider.moka_cache_cache().cache().call_open(&mut self.store, &config).expect("no trap")
    }

    /// Whether it was stored.
    fn set(&mut self, cache: ResourceAny, number: u32, length: usize) -> bool {
        let options = types::EntryOptions { ttl: None, tti: None, weight: 1 };
        let (key, value) = (number.to_le_bytes().to_vec(), vec![0; length]);
        let face = self.provider.moka_cache_cache().cache();
        face.call_set(&mut self.store, cache, &key, &value, options).expect("no trap").is_ok()
    }

    fn get(&mut self, cache: ResourceAny, number: u32) -> Option<Vec<u8>> {
        let face = self.provider.moka_cache_cache().cache();
        face.call_get(&mut self.store, cache, &number.to_le_bytes().to_vec()).expect("no trap")
    }

    /// Sets entries until one is refused.
    fn fill(&mut self, cache: ResourceAny, length: usize) {
        let refused = (0..100_000).find(|number| !self.set(cache, *number, length));
        assert!(refused.is_some(), "there is no end of memory");
    }

    /// A cache or a walk.
    fn drop(&mut self, resource: ResourceAny) {
        resource.resource_drop(&mut self.store).expect("no trap");
    }

    fn walk(&mut self, cache: ResourceAny) -> ResourceAny {
        self.provider.moka_cache_cache().cache().call_keys(&mut self.store, cache).expect("no trap")
    }

    /// The next keys of a walk.
    fn page(&mut self, walk: ResourceAny) -> Vec<Vec<u8>> {
        self.provider.moka_cache_cache().key_cursor().call_next(&mut self.store, walk, 10).expect("no trap")
    }

    fn read(&mut self, cache: ResourceAny) {
        let face = self.provider.moka_cache_cache();
        for number in 0..1000_u32 {
            let key = number.to_le_bytes().to_vec();
            assert_eq!(None, face.cache().call_get(&mut self.store, cache, &key).expect("no trap"));
            assert!(!face.cache().call_contains(&mut self.store, cache, &key).expect("no trap"));
        }
        let walk = self.walk(cache);
        assert!(self.page(walk).is_empty());
    }
}

#[test]
fn a_cache_that_another_left_no_memory_is_read_without_a_trap() {
    for length in [4096, 255, 8] {
        let mut sandbox = Sandbox::new(1 << 20);
        let large = sandbox.open().expect("there is memory");
        let empty = sandbox.open().expect("there is memory");
        sandbox.fill(large, length);
        sandbox.read(empty);
    }
}

#[test]
fn a_cache_that_saw_memory_which_others_have_taken_since_is_refused_more_without_a_trap() {
    for length in [4096, 255, 8] {
        let mut sandbox = Sandbox::new(4 << 20);
        let caches: Vec<_> = (0..12).map(|_| sandbox.open().expect("there is memory")).collect();
        let large = sandbox.open().expect("there is memory");
        for cache in &caches {
            assert!(sandbox.set(*cache, 0, length), "there is memory");
        }
        sandbox.fill(large, length);
        for number in 1..1000 {
            for cache in &caches {
                sandbox.set(*cache, number, length);
            }
        }
        let refused = caches.iter().filter(|cache| !sandbox.set(**cache, 1000, length)).count();
        assert_eq!(caches.len(), refused, "there is no more memory");
    }
}

#[test]
fn walks_that_are_held_leave_as_much_memory_as_a_store_needs() {
    let mut sandbox = Sandbox::new(2 << 20);
    let cache = sandbox.open().expect("there is memory");
    for number in 0..1500 {
        assert!(sandbox.set(cache, number, 8), "there is memory");
    }
    let mut walks = Vec::new();
    let refused = (0..1000).find(|number| {
        walks.extend((0..16).map(|_| sandbox.walk(cache)));
        !sandbox.set(cache, *number, 1024)
    });
    assert!(refused.is_some(), "there is no end of memory");
}

/// A cache moves to other tables every 2.2 years.
#[test]
fn years_that_go_by_in_full_memory_stop_no_cache() {
    const YEARS: u64 = 1 << 57;
    for length in [512, 255, 8] {
        let mut sandbox = Sandbox::new(2 << 20);
        let cache = sandbox.open().expect("there is memory");
        for number in 0..500 {
            assert!(sandbox.set(cache, number, length), "there is memory");
        }
        // Each keeps what it is about to answer; one that there is no memory for answers nothing.
        let mut walks = Vec::new();
        while walks.last().is_none_or(|walk| !sandbox.page(*walk).is_empty()) {
            walks.push(sandbox.walk(cache));
        }
        for _ in 0..3 {
            sandbox.clock.fetch_add(YEARS, Relaxed);
            sandbox.get(cache, 0);
            assert!(!sandbox.set(cache, 0, length), "there is no memory");
        }
        for resource in walks.into_iter().chain([cache]) {
            sandbox.drop(resource);
        }
        let next = sandbox.open().expect("there is memory again");
        assert!(sandbox.set(next, 0, length), "there is memory again");
        assert_eq!(Some(length), sandbox.get(next, 0).map(|value| value.len()));
    }
}

#[test]
fn where_there_is_no_memory_no_cache_is_opened() {
    for length in [4096, 255, 8] {
        let mut sandbox = Sandbox::new(1 << 20);
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
