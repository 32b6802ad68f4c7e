//! The component face by a list of operations: the component as it is released, but for counters of its branches, run by
//! wasmtime. All that it answers is held against a model. What guides libFuzzer are the branches that were taken in the
//! component, beside those of this program.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moka_cache_host::types::{self, Policy};

mod input;
#[path = "../model.rs"]
mod model;
mod sandbox;
mod subject;

use input::{CacheOp, Config, Key, Length, Number, Op, Options, Set, Setup, Which};
use sandbox::Sandbox;
use subject::{Lease, Subject, Walk, value, wit};

/// With a wall around the component's memory nothing traps as long as there is memory for the arguments and the answer.
/// What the caches leave free is enough for these: bytes of a key or a value, and how many of them, and of walks, at once.
const MOST_BYTES: usize = 4 << 10;
const MOST_AT_ONCE: usize = 8;

/// How many values an execution may store, and of how many bytes in all, so that it takes no longer than some milliseconds.
const MOST_STORED: usize = 3000;
const MOST_BYTES_STORED: usize = 4 << 20;

struct Run {
    sandbox: Sandbox,
    walled: bool,
    opened: u32,
    caches: [Option<Subject>; Which::COUNT],
    leases: Vec<Lease>,
    walks: Vec<Walk>,
    stored: u32,
    values_left: usize,
    bytes_left: usize,
}

impl Run {
    fn new(setup: &Setup) -> Self {
        let wall = setup.wall.map(|pages| (1 << 20) + (usize::from(pages) << 13));
        Self {
            sandbox: Sandbox::new(setup.seed.into(), wall),
            walled: wall.is_some(),
            opened: 0,
            caches: Default::default(),
            leases: Vec::new(),
            walks: Vec::new(),
            stored: 0,
            values_left: MOST_STORED,
            bytes_left: MOST_BYTES_STORED,
        }
    }

    fn most_bytes(&self) -> usize {
        if self.walled { MOST_BYTES } else { usize::MAX }
    }

    fn most_at_once(&self) -> usize {
        if self.walled { MOST_AT_ONCE } else { usize::MAX }
    }

    fn page(&self, number: Number) -> u32 {
        number.count().min(u32::try_from(self.most_at_once()).unwrap_or(u32::MAX))
    }

    fn key(&self, key: Key) -> Vec<u8> {
        key.bytes(self.most_bytes())
    }

    /// Values of four bytes and more are stored once; `None` when enough was stored.
    fn value(&mut self, length: usize) -> Option<Vec<u8>> {
        let length = length.min(self.most_bytes());
        self.values_left = self.values_left.checked_sub(1)?;
        self.bytes_left = self.bytes_left.checked_sub(length)?;
        self.stored += 1;
        Some(value(self.stored, length))
    }

    fn open(&mut self, which: Which, config: &Config) {
        let config = types::Config {
            name: if config.long_name { "\u{e4}".repeat(300) } else { String::new() },
            capacity: config.capacity.map(|most| most.0),
            ttl: config.ttl.map(|time| time.0),
            tti: config.tti.map(|time| time.0),
            policy: if config.lru { Policy::Lru } else { Policy::TinyLfu },
            memory_limit: config.memory_limit.as_ref().map(|limit| limit.0),
            removal_log: config.removal_log.map(Number::count),
        };
        self.opened += 1;
        if let Some(cache) = Subject::open(&mut self.sandbox, self.opened, config, self.walled)
            && let Some(before) = self.caches[which.index()].replace(cache)
        {
            self.sandbox.release(before.handle);
        }
    }

    fn set_many(&mut self, which: Which, sets: &[Set]) {
        let mut entries = Vec::new();
        for set in sets.iter().take(self.most_at_once()) {
            let Some(value) = self.value(set.length.0) else { break };
            entries.push((self.key(set.key), value, wit(&set.options.options())));
        }
        if let Some(cache) = &mut self.caches[which.index()] {
            cache.set_many(&mut self.sandbox, entries);
        }
    }

    fn flood(&mut self, which: Which, first: u16, count: u8, length: u16) {
        for number in (0..u32::from(count)).map(|number| u32::from(first) + number) {
            let Some(value) = self.value(length.into()) else { return };
            let Some(cache) = &mut self.caches[which.index()] else { return };
            cache.set(&mut self.sandbox, number.to_le_bytes().to_vec(), value, &moka_cache::EntryOptions::default());
        }
    }

    fn fill(&mut self, lease: u8, length: Length, options: Options) {
        if let Some(lease) = take(&mut self.leases, lease)
            && let Some(value) = self.value(length.0)
        {
            let cache = find(&mut self.caches, lease.cache);
            lease.fill(cache, &mut self.sandbox, value, &options.options());
        }
    }

    fn step_to_deadline(&mut self, which: Which, key: Key, off: i8) {
        let (key, now) = (self.key(key), self.sandbox.now());
        if let Some(cache) = &self.caches[which.index()]
            && let Some(entry) = cache.model.entries.get(&key)
        {
            let step = entry.expires().saturating_add_signed(off.into()).saturating_sub(now);
            self.step(step);
        }
    }

    fn step(&mut self, time: u64) {
        let clock = &mut self.sandbox.store.data_mut().clock;
        *clock = clock.saturating_add(time);
    }

    fn operate(&mut self, op: Op) {
        match op {
            Op::Open(which, config) => self.open(which, &config),
            Op::Close(which) => {
                if let Some(cache) = self.caches[which.index()].take() {
                    self.sandbox.release(cache.handle);
                }
            }
            Op::SetMany(which, sets) => self.set_many(which, &sets),
            Op::Flood { which, first, count, length } => self.flood(which, first, count, length),
            Op::Next(walk, limit) => {
                let limit = self.page(limit);
                if !self.walks.is_empty() {
                    let walk = usize::from(walk) % self.walks.len();
                    let walk = &mut self.walks[walk];
                    walk.next(find(&mut self.caches, walk.cache), &mut self.sandbox, limit);
                }
            }
            Op::DropCursor(walk) => {
                if let Some(walk) = take(&mut self.walks, walk) {
                    walk.drop(&mut self.sandbox);
                }
            }
            Op::Fill(lease, length, options) => self.fill(lease, length, options),
            Op::DropLease(lease) => {
                if let Some(lease) = take(&mut self.leases, lease) {
                    let cache = find(&mut self.caches, lease.cache);
                    lease.drop(cache, &mut self.sandbox);
                }
            }
            Op::Step(time) => self.step(time.0),
            Op::StepToDeadline(which, key, off) => self.step_to_deadline(which, key, off),
            Op::StepBack(time) => {
                let clock = &mut self.sandbox.store.data_mut().clock;
                *clock = clock.saturating_sub(time.0);
            }
            Op::OfCache(which, op) => self.operate_cache(which, op),
        }
    }

    fn operate_cache(&mut self, which: Which, op: CacheOp) {
        let (most_bytes, most_at_once) = (self.most_bytes(), self.most_at_once());
        let bytes = |key: Key| key.bytes(most_bytes);
        let all = |keys: &[Key]| keys.iter().take(most_at_once).map(|key| bytes(*key)).collect::<Vec<_>>();
        let value = match &op {
            CacheOp::Set(set) | CacheOp::GetOrInsert(set) => {
                let Some(value) = self.value(set.length.0) else { return };
                value
            }
            _ => Vec::new(),
        };
        let page = if let CacheOp::Drain(limit) = op { self.page(limit) } else { 0 };
        let Some(cache) = &mut self.caches[which.index()] else { return };
        let sandbox = &mut self.sandbox;
        match op {
            CacheOp::Get(key) => cache.get(sandbox, &bytes(key)),
            CacheOp::Contains(key) => cache.contains(sandbox, &bytes(key)),
            CacheOp::Set(set) => cache.set(sandbox, bytes(set.key), value, &set.options.options()),
            CacheOp::GetOrInsert(set) => {
                cache.get_or_insert(sandbox, bytes(set.key), value, &set.options.options());
            }
            CacheOp::Expire(key, life) => cache.expire(sandbox, &bytes(key), life.map(|time| time.0)),
            CacheOp::Remaining(key) => cache.remaining(sandbox, &bytes(key)),
            CacheOp::Remove(key) => cache.remove(sandbox, &bytes(key)),
            CacheOp::Clear => cache.clear(sandbox),
            CacheOp::GetMany(keys) => cache.get_many(sandbox, &all(&keys)),
            CacheOp::RemoveMany(keys) => cache.remove_many(sandbox, &all(&keys)),
            CacheOp::Keys => {
                if self.walks.len() >= most_at_once {
                    self.walks.remove(0).drop(sandbox);
                }
                self.walks.push(Walk::begin(cache, sandbox));
            }
            CacheOp::Count => drop(cache.count(sandbox)),
            CacheOp::RunPending => cache.run_pending(sandbox),
            CacheOp::Stats => drop(cache.stats(sandbox)),
            CacheOp::Drain(_) => drop(cache.drain(sandbox, page)),
            CacheOp::Lookup(key, life) => {
                self.leases.extend(cache.lookup(sandbox, bytes(key), life.0));
            }
        }
    }

    /// Looks at all that is left, and gives it back.
    fn end(mut self) {
        let page = self.page(Number(u64::MAX));
        for cache in self.caches.iter_mut().flatten() {
            cache.check(&mut self.sandbox, page);
        }
        for cache in self.caches.into_iter().flatten() {
            self.sandbox.release(cache.handle);
        }
        self.leases.into_iter().for_each(|lease| lease.drop(None, &mut self.sandbox));
        self.walks.into_iter().for_each(|walk| walk.drop(&mut self.sandbox));
        self.sandbox.tell();
    }
}

/// The cache, if it is still there.
fn find(caches: &mut [Option<Subject>], id: u32) -> Option<&mut Subject> {
    caches.iter_mut().flatten().find(|cache| cache.id == id)
}

/// One of them, if there are any.
fn take<T>(of: &mut Vec<T>, number: u8) -> Option<T> {
    (!of.is_empty()).then(|| of.swap_remove(usize::from(number) % of.len()))
}

fuzz_target!(|input: (Setup, Vec<Op>)| {
    let (setup, ops) = input;
    // To show an input: SHOW=1 target/fuzz/.../component FILE
    if std::env::var_os("SHOW").is_some() {
        eprintln!("{setup:?}\n{ops:#?}");
    }
    let mut run = Run::new(&setup);
    run.open(Which::FIRST, &setup.cache);
    for op in ops {
        run.operate(op);
    }
    run.end();
});
