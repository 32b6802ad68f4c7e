//! The component in a sandbox whose host is told what time it is, and what is to be random. Its counters of branches are
//! handed to libFuzzer.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use moka_cache_host::bindings::ProviderPre;
use moka_cache_host::bindings::wasi::{clocks::monotonic_clock, random::random};
use moka_cache_host::{Provider, cache};
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny, TypedFunc};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

/// Compiled once. scripts/build-coverage-component makes the file.
static PREPARED: LazyLock<ProviderPre<Host>> = LazyLock::new(|| {
    let engine = Engine::default();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fuzz/moka_cache_coverage.wasm");
    let component = Component::from_file(&engine, file).expect("the component is built");
    let mut linker = Linker::new(&engine);
    Provider::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host).expect("no name twice");
    ProviderPre::new(linker.instantiate_pre(&component).expect("no other imports")).expect("the cache")
});

/// What libFuzzer takes for counters of branches, beside those of this program.
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: [AtomicU8; 1 << 15] = [const { AtomicU8::new(0) }; 1 << 15];

/// What the component asks of its host.
pub struct Host {
    /// What the clock shows, in nanoseconds.
    pub clock: u64,
    time: Time,
    readings: u32,
    random: u64,
    limits: StoreLimits,
}

/// Time as the component is to see it: what went by between readings. One that is earlier than the one before makes none go
/// by, and by a minute or more the clock was set back, and time goes on from there.
struct Time {
    now: u64,
    last: Option<u64>,
}

impl Time {
    fn read(&mut self, reading: u64) {
        const LATE: u64 = 60_000_000_000;
        match self.last {
            Some(last) if reading >= last => self.now = self.now.saturating_add(reading - last).min(u64::MAX - 1),
            Some(last) if last - reading < LATE => return,
            _ => {}
        }
        self.last = Some(reading);
    }
}

impl monotonic_clock::Host for Host {
    fn now(&mut self) -> u64 {
        self.readings += 1;
        self.time.read(self.clock);
        self.clock
    }
}

impl random::Host for Host {
    fn get_random_u64(&mut self) -> u64 {
        // SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// How often an operation looks at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Once,
    Never,
}

/// One instance of the component.
pub struct Sandbox {
    pub store: Store<Host>,
    provider: Provider,
    counters: TypedFunc<(), (Vec<u8>,)>,
}

impl Sandbox {
    /// `wall` is the most bytes that its memory may have.
    pub fn new(seed: u64, wall: Option<usize>) -> Self {
        let limits = wall.map_or_else(StoreLimits::default, |wall| StoreLimitsBuilder::new().memory_size(wall).build());
        let host = Host { clock: 0, time: Time { now: 1, last: None }, readings: 0, random: seed, limits };
        let mut store = Store::new(PREPARED.engine(), host);
        store.limiter(|host| &mut host.limits);
        let instance = PREPARED.instance_pre().instantiate(&mut store).expect("an instance");
        let provider = Provider::new(&mut store, &instance).expect("the cache");
        let counters = instance.get_typed_func(&mut store, "counters").expect("a component that counts its branches");
        Self { store, provider, counters }
    }

    /// Time as the component saw it last.
    pub fn now(&self) -> u64 {
        self.store.data().time.now
    }

    /// Calls a function of the component, which must not trap, and must look at the clock as often as it is said to.
    #[track_caller]
    pub fn call<T>(
        &mut self,
        reads: Reads,
        call: impl FnOnce(&cache::Guest, &mut Store<Host>) -> wasmtime::Result<T>,
    ) -> T {
        self.store.data_mut().readings = 0;
        match call(self.provider.moka_cache_cache(), &mut self.store) {
            Ok(answer) => {
                assert_eq!(u32::from(reads == Reads::Once), self.store.data().readings, "readings of the clock");
                answer
            }
            Err(trap) => panic!("a trap: {trap:?}"),
        }
    }

    /// Drops a cache, a lease or a cursor.
    #[track_caller]
    pub fn release(&mut self, resource: ResourceAny) {
        self.call(Reads::Never, |_, store| resource.resource_drop(store));
    }

    /// Tells libFuzzer which branches of the component were taken.
    pub fn tell(mut self) {
        // The counters are told with memory of their own.
        self.store.data_mut().limits = StoreLimits::default();
        let (counters,) = self.counters.call(&mut self.store, ()).expect("no trap");
        assert!((1..=COUNTERS.len()).contains(&counters.len()), "{} counters", counters.len());
        for (to, from) in COUNTERS.iter().zip(counters) {
            to.store(from, Relaxed);
        }
    }
}
