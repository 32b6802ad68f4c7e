//! The cache by a list of operations, beside a map with deadlines: a key is absent or holds the last value that was set,
//! and an answer stays what it was.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use moka_cache::{Cache, Config, EntryOptions, GetOrInsert, LeaseId, Life, Lookup, Policy, Value};

#[path = "../../tests/support/clock.rs"]
mod test_clock;

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

struct Modelled {
    value: Vec<u8>,
    deadline: u64,
    idle: u64,
    idle_deadline: u64,
}

const NEVER: u64 = u64::MAX;
/// Times are in units of this many nanoseconds, so that rounding does not matter.
const UNIT: u64 = 1 << 20;

struct Run {
    cache: Cache,
    model: HashMap<Vec<u8>, Modelled>,
    setup: Setup,
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
        let life = |own: Option<u16>, all: Option<u16>| {
            let least = own.into_iter().chain(all).min();
            least.map_or(NEVER, |life| (u64::from(life) + 1) * UNIT)
        };
        let deadline = self.now.saturating_add(life(set.ttl, self.setup.ttl));
        let idle = life(set.tti, self.setup.tti);
        let idle_deadline = self.now.saturating_add(idle);
        self.model.insert(key, Modelled { value, deadline, idle, idle_deadline });
    }

    /// Whether the cache may hold the entry no more.
    fn may_be_lost(&self, entry: &Modelled) -> bool {
        self.setup.capacity.is_some() || self.setup.memory_limit || !self.alive(entry)
    }

    fn alive(&self, entry: &Modelled) -> bool {
        self.now < entry.deadline.min(entry.idle_deadline)
    }

    fn judge(&mut self, key: &[u8], found: Option<&[u8]>, used: bool) {
        match (self.model.get(key), found) {
            (None, None) => {}
            (Some(entry), None) => {
                assert!(self.may_be_lost(entry), "{key:?} was lost");
                self.model.remove(key);
            }
            (None, Some(found)) => panic!("{key:?} should be absent, is {found:?}"),
            (Some(entry), Some(found)) => {
                assert_eq!(entry.value, found, "of {key:?}");
                assert!(self.alive(entry), "{key:?} outlived its deadline");
                if used {
                    self.used(key);
                }
            }
        }
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

    fn used(&mut self, key: &[u8]) {
        let now = self.now;
        if let Some(entry) = self.model.get_mut(key) {
            entry.idle_deadline = now.saturating_add(entry.idle);
        }
    }

    fn there(&mut self, key: &[u8], there: bool) {
        match self.model.get(key) {
            Some(entry) if there => assert!(self.alive(entry), "{key:?} outlived its deadline"),
            Some(entry) => {
                assert!(self.may_be_lost(entry), "{key:?} was lost");
                self.model.remove(key);
            }
            None => assert!(!there, "{key:?} should be absent"),
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
                self.there(&key, there);
            }
            Op::Expire(number, life) => {
                let key = key(number);
                let life = life.map(|life| (u64::from(life) + 1) * UNIT);
                let there = self.cache.expire(&key, life);
                self.there(&key, there);
                let deadline = life.map_or(NEVER, |life| self.now + life);
                if let Some(entry) = self.model.get_mut(&key) {
                    (entry.deadline, entry.idle, entry.idle_deadline) = (deadline, NEVER, NEVER);
                }
            }
            Op::Remaining(number) => {
                let key = key(number);
                let life = self.cache.remaining(&key);
                self.there(&key, life != Life::Absent);
                if let Some(entry) = self.model.get(&key) {
                    let expected = match entry.deadline.min(entry.idle_deadline) {
                        NEVER => Life::Unlimited,
                        deadline => Life::Limited(deadline - self.now),
                    };
                    assert_eq!(expected, life, "of {key:?}");
                }
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
                keys.iter().for_each(|key| self.there(key, true));
                for key in self.model.keys().cloned().collect::<Vec<_>>() {
                    let there = keys.contains(&key);
                    self.there(&key, there);
                }
            }
            Op::RunPending => self.cache.run_pending_tasks(),
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
    let mut run = Run { cache, model: HashMap::new(), setup, now: 0, stored: 0, lease: None, held: Default::default() };
    for op in ops {
        run.operate(op);
    }
    run.operate(Op::Stats);
    run.operate(Op::Keys);
    for (answer, bytes) in run.held.iter().flatten() {
        assert_eq!(**answer, **bytes, "an answer that was held has changed");
    }
}
