//! The cache by a list of operations, beside a model of it; and an answer stays what it was.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use moka_cache::{Cache, Config, EntryOptions, GetOrInsert, LeaseId, Lookup, Policy, Value};

#[path = "../../tests/support/clock.rs"]
mod test_clock;

mod model;
use model::Model;

#[derive(Arbitrary, Debug)]
struct Setup {
    capacity: Option<u8>,
    ttl: Option<u16>,
    tti: Option<u16>,
    lru: bool,
    memory_limit: bool,
    removal_log: Option<u8>,
}

#[derive(Arbitrary, Debug)]
struct Set {
    key: u8,
    length: u16,
    weight: u8,
    ttl: Option<u16>,
    tti: Option<u16>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Set(Set),
    GetOrInsert(Set),
    Get(u8),
    Contains(u8),
    Expire(u8, Option<u16>),
    Remaining(u8),
    Remove(u8),
    Clear,
    Keys,
    RunPending,
    Stats,
    Drain(u8),
    Lookup(u8, u16),
    Fill(Set),
    Release,
    MakeRoom(u32),
    Advance(u16),
    AdvanceFar(u32),
}

/// Times are in units of this many nanoseconds, so that rounding does not matter.
const UNIT: u64 = 1 << 20;

struct Run {
    cache: Cache,
    model: Model,
    now: u64,
    stored: u32,
    lease: Option<(LeaseId, Vec<u8>)>,
    held: [Option<(Value, Vec<u8>)>; 4],
}

/// Short keys, and some beyond the length that lies inside moka's own.
fn key(number: u8) -> Vec<u8> {
    vec![number % 32; usize::from(number) % 32]
}

impl Run {
    fn options(set: &Set) -> EntryOptions {
        let time = |time: Option<u16>| time.map(|time| (u64::from(time) + 1) * UNIT);
        EntryOptions { ttl: time(set.ttl), tti: time(set.tti), weight: set.weight.into() }
    }

    fn value(&mut self, set: &Set) -> Vec<u8> {
        self.stored += 1;
        let mut value = self.stored.to_le_bytes().to_vec();
        value.resize(4 + usize::from(set.length % 2048), set.key);
        value
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, set: &Set) {
        self.model.put(self.now, key, value, &Self::options(set));
    }

    fn judge(&mut self, key: &[u8], found: Option<&[u8]>, read: bool) {
        self.model.answered(self.now, key, found, read);
    }

    /// Keeps an answer, where the number of its key says so, over the operations that follow: they must not change it.
    fn hold(&mut self, number: u8, found: Option<Value>) {
        if let Some(found) = found
            && number & 0x80 != 0
        {
            let bytes = found.to_vec();
            let held = &mut self.held[usize::from(number >> 5 & 3)];
            if let Some((before, bytes)) = held.replace((found, bytes)) {
                assert_eq!(*before, *bytes, "an answer that was held has changed");
            }
        }
    }

    fn advance(&mut self, units: u64) {
        // Time ends at 2^64; the cache moves into a new one every 2^56.
        if self.now < 1 << 62 {
            self.now += units * UNIT;
        }
        test_clock::step_to(self.now);
    }

    fn operate(&mut self, op: Op) {
        match op {
            Op::Set(set) => {
                let (key, value) = (key(set.key), self.value(&set));
                if self.cache.set(&key, &value, &Self::options(&set)).is_ok() {
                    self.put(key, value, &set);
                }
            }
            Op::GetOrInsert(set) => {
                let (number, key, value) = (set.key, key(set.key), self.value(&set));
                match self.cache.get_or_insert(&key, &value, &Self::options(&set)) {
                    Ok(GetOrInsert::Inserted) => {
                        self.judge(&key, None, true);
                        self.put(key, value, &set);
                    }
                    Ok(GetOrInsert::Present(found)) => {
                        self.judge(&key, Some(&found), true);
                        self.hold(number, Some(found));
                    }
                    Err(_) => {}
                }
            }
            Op::Get(number) => {
                let key = key(number);
                let found = self.cache.get(&key);
                self.judge(&key, found.as_deref(), true);
                self.hold(number, found);
            }
            Op::Contains(number) => {
                let key = key(number);
                let there = self.cache.contains(&key);
                self.model.there(self.now, &key, there);
            }
            Op::Expire(number, life) => {
                let key = key(number);
                let life = life.map(|life| (u64::from(life) + 1) * UNIT);
                let there = self.cache.expire(&key, life);
                self.model.expired(self.now, &key, life, there);
            }
            Op::Remaining(number) => {
                let key = key(number);
                let life = self.cache.remaining(&key);
                self.model.remains(self.now, &key, life);
            }
            Op::Remove(number) => {
                let key = key(number);
                let found = self.cache.remove(&key);
                self.judge(&key, found.as_deref(), false);
                self.model.remove(&key);
                self.hold(number, found);
            }
            Op::Clear => {
                self.cache.clear();
                self.model.clear();
                assert_eq!(self.cache.entry_count(), 0);
            }
            Op::Keys => {
                let mut cursor = self.cache.keys();
                let mut keys = Vec::new();
                while let Some(size) = cursor.next_size(&mut self.cache) {
                    let key = cursor.next(&mut self.cache).expect("the key whose size was told");
                    assert_eq!(key.len(), size);
                    keys.push(key.to_vec());
                }
                let count = keys.len();
                keys.sort_unstable();
                keys.dedup();
                assert_eq!(keys.len(), count, "a key was walked over twice");
                keys.iter().for_each(|key| self.model.there(self.now, key, true));
                for key in self.model.entries.keys().cloned().collect::<Vec<_>>() {
                    let there = keys.binary_search(&key).is_ok();
                    self.model.there(self.now, &key, there);
                }
            }
            Op::RunPending => {
                self.cache.run_pending_tasks();
                self.model.counted(self.now, self.cache.entry_count(), self.cache.weighted_size());
            }
            Op::Stats => {
                let stats = self.cache.stats();
                let left = stats.expired + stats.explicit + stats.replaced + stats.size;
                assert_eq!(stats.insertions, left + stats.entries, "{stats:?}");
            }
            Op::Drain(limit) => {
                let (removals, _) = self.cache.drain_removals(limit.into());
                assert!(removals.len() <= limit.into());
            }
            Op::Lookup(number, life) => {
                let key = key(number);
                match self.cache.lookup(&key, u64::from(life) * UNIT).expect("memory") {
                    Lookup::Hit(found) => {
                        self.judge(&key, Some(&found), true);
                        self.hold(number, Some(found));
                    }
                    Lookup::Lead(lease) => {
                        self.judge(&key, None, true);
                        self.lease = Some((lease, key));
                    }
                    Lookup::Busy => self.judge(&key, None, true),
                }
            }
            Op::Fill(set) => {
                let value = self.value(&set);
                if let Some((lease, key)) = self.lease.take()
                    && self.cache.fill(lease, &value, &Self::options(&set)) == Ok(true)
                {
                    self.put(key, value, &set);
                }
            }
            Op::Release => {
                if let Some((lease, _)) = self.lease.take() {
                    self.cache.release(lease);
                }
            }
            Op::MakeRoom(size) => {
                let _ = self.cache.make_room(size as usize);
            }
            Op::Advance(units) => self.advance(units.into()),
            Op::AdvanceFar(units) => self.advance(u64::from(units) << 8),
        }
    }
}

// Each run on a thread of its own: the clock is a variable of the thread.
fuzz_target!(|input: (Setup, Vec<Op>)| {
    std::thread::scope(|scope| scope.spawn(|| run(input)).join().expect("no panic"));
});

fn run((setup, ops): (Setup, Vec<Op>)) {
    test_clock::step_to(0);
    // To show an input: RUST_BACKTRACE=0 SHOW=1 target/fuzz/.../operations FILE
    if std::env::var_os("SHOW").is_some() {
        eprintln!("{setup:?}\n{ops:#?}");
    }
    let time = |time: Option<u16>| time.map(|time| (u64::from(time) + 1) * UNIT);
    let config = Config {
        capacity: setup.capacity.map(u64::from),
        ttl: time(setup.ttl),
        tti: time(setup.tti),
        policy: if setup.lru { Policy::Lru } else { Policy::TinyLfu },
        memory_limit: setup.memory_limit.then_some(1 << 20),
        removal_log: setup.removal_log.map(u32::from),
        ..Config::default()
    };
    let cache = Cache::open(config, (1, 2)).expect("a configuration that can be");
    let model = Model::new(time(setup.ttl), time(setup.tti), setup.capacity.is_some() || setup.memory_limit);
    let mut run = Run { cache, model, now: 0, stored: 0, lease: None, held: Default::default() };
    for op in ops {
        run.operate(op);
    }
    run.operate(Op::Stats);
    run.operate(Op::Keys);
    for (answer, bytes) in run.held.iter().flatten() {
        assert_eq!(**answer, **bytes, "an answer that was held has changed");
    }
}
