//! The cache's contract over `moka::sync::Cache`.

use std::sync::Arc;
use std::vec;

use crate::clock::{self, HORIZON, NEVER};
use crate::config::{Config, OpenError};
use crate::entry::{Change, EntryOptions, Key, Sought, Term, Value};
use crate::hash::KeyedHash;
use crate::lease::{LeaseId, Leases};
use crate::map::{Map, MokaCache, reclaim};
use crate::memory::{self, Budget, Headroom, SetError};
use crate::removals::{Cause, Mode, Removal, Shared, Touch};
use crate::stats::Stats;

/// What [`Cache::get_or_insert`] found.
#[derive(Clone, Debug)]
pub enum GetOrInsert {
    /// Nothing: the value was stored.
    Inserted,
    /// This live value.
    Present(Value),
}

/// What [`Cache::lookup`] found.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A live value.
    Hit(Value),
    /// Nothing: the caller leads.
    Lead(LeaseId),
    /// Nothing, and another caller leads.
    Busy,
}

/// How long an entry still has to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// There is no live entry.
    Absent,
    /// It has no deadline.
    Unlimited,
    /// This many nanoseconds.
    Limited(u64),
}

/// One cache. Its functions mean what the WIT resource of that name documents. Time is [`clock::now`], set by the caller
/// before each call.
pub struct Cache {
    map: Map,
    config: Config,
    hash: KeyedHash,
    /// Whether moka tells of every entry that it removes, which makes storing dearer by half. It need not as long as no
    /// entry has a deadline: then what moka removes by itself can only have been removed for the sake of size.
    watched: bool,
    budget: Option<Budget>,
    headroom: Headroom,
    /// Charged for writes that moka may not have weighed yet.
    unweighed: u64,
    /// Whether entries differ in what they weigh for moka.
    varied: bool,
    /// Whether an entry may have come to weigh something else since moka last took note of weights: see [`Self::settle`].
    reweighed: bool,
    shared: Arc<Shared>,
    leases: Leases,
    /// Guest time at which `map` was made.
    origin: u64,
    hits: u64,
    misses: u64,
    insertions: u64,
    inserted_weight: u64,
    /// While it is not watched: entries that came in under a key without a live one.
    created: u64,
    /// While it is not watched: entries that overwrote a live one.
    updated: u64,
}

impl Cache {
    /// Opens an empty cache. `seed` keys its hash: random numbers, to be told to nobody.
    ///
    /// # Errors
    /// A field of the configuration cannot be, or there is no memory for an empty cache.
    pub fn open(config: Config, seed: (u64, u64)) -> Result<Self, OpenError> {
        config.validate()?;
        // With a memory limit it may never hold as many.
        let hash = KeyedHash::new(seed, config.capacity.filter(|_| config.memory_limit.is_none()));
        // First, so that the budget is made of what is left.
        memory::keep_reserve();
        let budget = config.memory_limit.map(|limit| Budget::new(limit, memory::linear_memory(), config.capacity));
        let watched = budget.is_some() || config.ttl.is_some() || config.tti.is_some() || config.logs();
        let headroom = Headroom::new(config.memory_limit);
        let shared = Arc::new(Shared::new(config.removal_log.unwrap_or(0)));
        if !memory::can_open() {
            return Err(OpenError::OutOfMemory);
        }
        let map = Map::new(&config, hash, watched, budget, &shared);
        map.make_tables();
        Ok(Self {
            map,
            config,
            hash,
            watched,
            varied: budget.is_some(),
            reweighed: false,
            budget,
            headroom,
            unweighed: 0,
            shared,
            leases: Leases::new(hash),
            origin: clock::now(),
            hits: 0,
            misses: 0,
            insertions: 0,
            inserted_weight: 0,
            created: 0,
            updated: 0,
        })
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The value of a live entry.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<Value> {
        self.keep_within_horizon();
        let value = self.map.get(&Sought::new(key, self.hash));
        match value {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        value
    }

    /// Whether there is a live entry.
    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.keep_within_horizon();
        self.map.contains_key(key)
    }

    /// Stores a value.
    ///
    /// # Errors
    /// It does not fit; what was stored before stays.
    pub fn set(&mut self, key: &[u8], value: &[u8], options: &EntryOptions) -> Result<(), SetError> {
        self.keep_within_horizon();
        let sought = Sought::new(key, self.hash);
        let change = Change { length: value.len(), weight: options.weight, term: self.term(options) };
        if self.budget.is_none() {
            self.make_room_for(key, value.len(), options.weight)?;
        }
        // The removal log would need the value that was there. Asked for last: so the key's hash is finished once.
        let live = self.map.contains_key(&sought) && !self.config.logs();
        if live && self.overwrite(sought, value, change) {
            self.leases.end(key);
            return Ok(());
        }
        if self.budget.is_some() {
            self.make_room_for(key, value.len(), options.weight)?;
        }
        if options.ttl.is_some() || options.tti.is_some() {
            self.watch()?;
        }
        self.leases.end(key);
        let value = Value::new(value, change.term, options.weight);
        self.insertions += 1;
        self.inserted_weight += u64::from(options.weight);
        if self.config.capacity.is_some_and(|capacity| capacity == 0 || u64::from(options.weight) > capacity) {
            self.turn_away(sought, value);
        } else {
            if !self.watched {
                let counter = if live { &mut self.updated } else { &mut self.created };
                *counter += 1;
            }
            self.varied |= options.weight != 1;
            self.reweighed |= self.varied;
            self.map.insert(sought.into(), value);
        }
        Ok(())
    }

    /// For how long an entry lives that is set now.
    fn term(&self, options: &EntryOptions) -> Term {
        Term::new(clock::now(), (self.config.ttl, self.config.tti), options)
    }

    /// Sets a live entry anew where it lies, which to moka is a read; false if that cannot be, and it is as it was. What a
    /// caller was answered and may not have read yet has one more owner, and stays.
    #[expect(unsafe_code, reason = "see there")]
    fn overwrite(&mut self, sought: Sought<'_>, bytes: &[u8], change: Change) -> bool {
        if !self.watched && change.term != Term::UNLIMITED {
            return false;
        }
        let get = || self.map.get(&sought);
        let found = if self.watched { self.shared.touching(Touch::Set(change), get) } else { get() };
        let Some(value) = found.filter(|value| value.can_become(change, 2)) else { return false };
        // SAFETY: its two owners are this function and moka, which never looks at the bytes.
        unsafe { value.overwrite(bytes) };
        self.insertions += 1;
        if self.watched {
            self.shared.count_replaced();
        } else {
            self.updated += 1;
        }
        true
    }

    /// Stores a value and removes it at once, as it is heavier than the capacity. moka does that for new keys; when one
    /// is overwritten it would evict all others first.
    #[cold]
    fn turn_away(&mut self, sought: Sought<'_>, value: Value) {
        self.settle();
        let key = Arc::new(Key::from(sought));
        if let Some(replaced) = self.shared.removing(Mode::Ignore, || self.map.remove(&**key)) {
            self.shared.report(Arc::clone(&key), replaced, Cause::Replaced);
        }
        self.shared.report(key, value, Cause::Size);
    }

    /// Has moka take note of the weights, before an entry is removed: it takes what the entry weighs off its sum, but where
    /// it has not yet added what an overwriting made of that, it never does, and the sum stays wrong. Without memory for it
    /// a wrong sum is the lesser evil.
    fn settle(&mut self) {
        if self.reweighed && memory::can_evict() {
            self.map.run_pending_tasks();
            self.reweighed = false;
        }
    }

    /// Stores a value unless there is a live one.
    ///
    /// # Errors
    /// There is none, and the value does not fit.
    pub fn get_or_insert(&mut self, key: &[u8], value: &[u8], options: &EntryOptions) -> Result<GetOrInsert, SetError> {
        match self.get(key) {
            Some(value) => Ok(GetOrInsert::Present(value)),
            None => self.set(key, value, options).map(|()| GetOrInsert::Inserted),
        }
    }

    /// Gives a live entry a new remaining life; whether there was one.
    pub fn expire(&mut self, key: &[u8], remaining: Option<u64>) -> bool {
        self.keep_within_horizon();
        let deadline = remaining.map_or(NEVER, |life| clock::now().saturating_add(life).min(NEVER - 1));
        let Some(value) = self.shared.touching(Touch::Expire(deadline), || self.map.get(key)) else { return false };
        if value.expires() != deadline {
            if self.watch().is_err() {
                // Counted as evicted, as whatever an unwatched cache no longer has.
                self.map.invalidate(key);
            } else if !self.has_headroom(value.len())
                && self.find_headroom(key, value.len()).is_err()
                && let Some(value) = self.shared.removing(Mode::Ignore, || self.map.remove(key))
            {
                self.shared.report(Arc::new(Key::new(key, self.hash)), value, Cause::Size);
            }
            // All that may have cost this very entry.
            if !self.map.contains_key(key) {
                return false;
            }
            // It has nowhere to note a deadline: an entry with the same bytes that has takes its place.
            let value = value.with_deadline(deadline);
            self.shared.removing(Mode::Ignore, || self.map.insert(Key::new(key, self.hash), value));
        }
        true
    }

    /// How long an entry still has to live.
    pub fn remaining(&mut self, key: &[u8]) -> Life {
        self.keep_within_horizon();
        match self.shared.touching(Touch::Look, || self.map.get(key)).map(|value| value.expires()) {
            None => Life::Absent,
            Some(NEVER) => Life::Unlimited,
            Some(expires) => Life::Limited(expires.saturating_sub(clock::now())),
        }
    }

    /// Takes a live entry out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Value> {
        self.keep_within_horizon();
        self.leases.end(key);
        self.settle();
        let live = self.map.contains_key(key);
        let value = self.map.remove(key).filter(|_| live);
        if value.is_some() && !self.watched {
            self.shared.count_explicit(1);
        }
        value
    }

    /// Takes all entries out. Needs no memory to speak of, as there may be none.
    pub fn clear(&mut self) {
        self.keep_within_horizon();
        self.leases.clear();
        memory::with_reserve(|| {
            self.map.run_pending_tasks();
            if !self.watched {
                self.shared.count_explicit(self.map.entry_count());
            }
            if self.watched || !memory::holds_empty_cache() {
                self.take_out(Mode::TakeOut(Cause::Explicit));
            }
            self.shrink();
        });
    }

    /// Whether there is memory for [`Self::keys`], which cannot be refused any.
    pub fn can_walk(&self) -> bool {
        memory::can_walk(self.entry_count())
    }

    /// A walk over the keys of the entries that are live now.
    pub fn keys(&mut self) -> KeyCursor {
        self.keep_within_horizon();
        let keys: Vec<_> = self.map.iter().map(|(key, _)| key).collect();
        KeyCursor { keys: keys.into_iter() }
    }

    /// About how many entries there are.
    pub fn entry_count(&self) -> u64 {
        self.map.entry_count()
    }

    /// About what their weights sum up to.
    pub fn weighted_size(&self) -> u64 {
        if self.budget.is_some() {
            // moka's sum is of scaled shares.
            self.inserted_weight.saturating_sub(self.shared.removed_weight())
        } else {
            self.map.weighted_size()
        }
    }

    /// Takes out what has expired and evicts what is too much.
    pub fn run_pending_tasks(&mut self) {
        self.keep_within_horizon();
        self.map.run_pending_tasks();
        self.unweighed = 0;
        reclaim();
    }

    /// Counters and sizes.
    pub fn stats(&mut self) -> Stats {
        self.map.run_pending_tasks();
        let ([expired, explicit, mut replaced, mut size], removals_lost) = self.shared.counts();
        if !self.watched {
            // Those that were counted singly were never created, or are known not to be there any more.
            size += self.created.saturating_sub(explicit + replaced + self.entry_count());
            replaced += self.updated;
        }
        Stats {
            hits: self.hits,
            misses: self.misses,
            insertions: self.insertions,
            expired,
            explicit,
            replaced,
            size,
            removals_lost,
            entries: self.entry_count(),
            weight: self.weighted_size(),
            memory_bytes: memory::linear_memory(),
        }
    }

    /// Up to `limit` logged removals, oldest first, and how many were lost since the last call.
    pub fn drain_removals(&mut self, limit: usize) -> (Vec<Removal>, u64) {
        self.shared.drain(limit)
    }

    /// How many bytes the key and the value of the oldest logged removal have, if there is one.
    pub fn next_removal_size(&self) -> Option<usize> {
        self.shared.next_size()
    }

    /// Hands over the oldest logged removal.
    pub fn next_removal(&mut self) -> Option<Removal> {
        self.shared.take_oldest()
    }

    /// Counts the oldest logged removal as lost instead: it cannot be handed over.
    pub fn lose_removal(&mut self) {
        self.shared.lose_oldest();
    }

    /// Whether [`Self::drain_removals`] has something to tell.
    #[inline]
    pub fn removals_wait(&self) -> bool {
        self.config.removal_log.is_some() && self.shared.waiting()
    }

    /// A lookup that makes one of its callers lead.
    ///
    /// # Errors
    /// There is no value, and the host gives no more memory for a lease.
    pub fn lookup(&mut self, key: &[u8], lease_life: u64) -> Result<Lookup, SetError> {
        // The key of a lease is kept twice. What there is a value for needs none.
        let size = key.len().saturating_mul(2);
        if !self.has_headroom(size) && !self.contains(key) {
            self.find_headroom(key, size).inspect_err(|_| self.misses += 1)?;
        }
        if let Some(value) = self.get(key) {
            return Ok(Lookup::Hit(value));
        }
        let lease = self.leases.take(key, clock::now(), lease_life)?;
        Ok(lease.map_or(Lookup::Busy, Lookup::Lead))
    }

    /// Stores the value that a leader found out. `Ok(false)` if its lease had ended.
    ///
    /// # Errors
    /// The value does not fit. The lease is used up all the same.
    pub fn fill(&mut self, lease: LeaseId, value: &[u8], options: &EntryOptions) -> Result<bool, SetError> {
        match self.leases.redeem(lease, clock::now()) {
            Some(key) => self.set(&key, value, options).map(|()| true),
            None => Ok(false),
        }
    }

    /// Ends a lease without filling its key.
    pub fn release(&mut self, lease: LeaseId) {
        self.leases.redeem(lease, clock::now());
    }

    /// Evicts, if there is a memory limit, so that an entry of so many bytes can be stored: before its bytes come in.
    /// Storing it does the same, but by then a large one is in memory already.
    ///
    /// # Errors
    /// It can never fit, or the host gives no more memory.
    pub fn make_room(&mut self, size: usize) -> Result<(), SetError> {
        self.keep_within_horizon();
        self.make_room_for(&[], size, 0)
    }

    fn make_room_for(&mut self, key: &[u8], value: usize, weight: u32) -> Result<(), SetError> {
        if let Some(budget) = self.budget {
            let size = memory::charge(key.len(), value);
            let limit = budget.entry_limit();
            if size > limit {
                return Err(SetError::TooLarge { size, limit });
            }
            let large = size > memory::LARGE as u64;
            // Without memory to evict with there is no headroom either, which is looked at below.
            if (large || self.unweighed + size > limit / 4) && memory::can_evict() {
                if large {
                    // In the worst moment it is in memory three times.
                    self.evict_for(key, budget.weigh(size.saturating_mul(3), weight).min(budget.max_weight()));
                } else {
                    self.run_pending_tasks();
                }
            }
            self.unweighed += size;
        }
        let size = key.len() + value;
        if self.has_headroom_soon(size) { Ok(()) } else { self.find_headroom(key, size) }
    }

    /// Whether so many bytes can be had. Under a memory limit they may be of the last ones: then it always looks.
    fn has_headroom(&mut self, size: usize) -> bool {
        if self.budget.is_some() { self.headroom.is_there(size) } else { self.has_headroom_soon(size) }
    }

    /// As it was when it was last looked at, if that was not long ago.
    #[inline]
    fn has_headroom_soon(&mut self, size: usize) -> bool {
        let (map, capacity, limited) = (&self.map, self.config.capacity, self.budget.is_some());
        self.headroom.holds(size, || tables_ahead(map, capacity, limited))
    }

    #[cold]
    fn find_headroom(&mut self, key: &[u8], size: usize) -> Result<(), SetError> {
        let tables = tables_ahead(&self.map, self.config.capacity, self.budget.is_some());
        if memory::can_evict() && memory::can_be_had(tables) {
            self.run_pending_tasks();
        }
        self.headroom.expect(tables);
        // There may be room within the budget, but not in one piece: evict step by step, down to an empty cache. What
        // was removed is in memory as long as it is logged.
        for eighths in 0..=8 {
            if self.headroom.is_there(size) {
                return Ok(());
            }
            if let Some(budget) = self.budget.filter(|_| eighths > 0 && memory::can_evict()) {
                self.evict_for(key, budget.max_weight() / 8 * eighths);
            }
            if !self.headroom.is_there(size) && self.shared.drop_log() {
                reclaim();
            }
        }
        if self.budget.is_some() && memory::can_evict() {
            // What is left in the way are moka's own tables.
            memory::with_reserve(|| {
                self.take_out(Mode::TakeOut(Cause::Size));
                self.shared.drop_log();
                self.shrink();
            });
        }
        if self.headroom.is_there(size) { Ok(()) } else { Err(SetError::OutOfMemory) }
    }

    /// Has moka evict until this weight is free, by a reservation that weighs as much. It is admitted with no weight
    /// first: a candidate could be refused for the sake of what it would evict.
    fn evict_for(&mut self, key: &[u8], weight: u32) {
        // Of a long key only the beginning: there may be no memory for another one.
        let mut unused = [&key[..key.len().min(64)], &[0]].concat();
        while self.map.contains_key(unused.as_slice()) {
            unused.push(0);
        }
        memory::with_reserve(|| {
            for weight in [0, weight] {
                self.map.insert(Key::new(&unused, self.hash), Value::reservation(weight));
                self.map.run_pending_tasks();
            }
            self.map.invalidate(unused.as_slice());
            self.run_pending_tasks();
        });
    }

    /// moka's time ends; before it does, the entries move into a new moka cache.
    #[inline]
    fn keep_within_horizon(&mut self) {
        if clock::now() - self.origin > HORIZON {
            self.rebuild();
        }
    }

    /// Has moka tell of what it removes from now on. The entries move into a moka cache that does, in no order.
    ///
    /// # Errors
    /// There is no memory for it.
    #[inline]
    fn watch(&mut self) -> Result<(), SetError> {
        if !self.watched {
            if !self.headroom.is_there(memory::to_move(self.entry_count())) {
                return Err(SetError::OutOfMemory);
            }
            let Stats { replaced, size, .. } = self.stats();
            self.shared.count_unwatched(replaced, size);
            let entries = self.take_all();
            self.watched = true;
            self.start_anew();
            self.put_back(entries);
        }
        Ok(())
    }

    /// Moves the entries into a moka cache whose time begins now; without memory for that they are evicted. The old one
    /// sees no time after its end: it would take whatever expires later for expired.
    #[cold]
    fn rebuild(&mut self) {
        let end = self.origin.saturating_add(HORIZON);
        let moves = memory::can_move(self.entry_count());
        let entries = memory::with_reserve(|| {
            let entries = clock::with_moka_no_later(end, || {
                if moves {
                    return self.take_all();
                }
                self.take_out(Mode::TakeOut(Cause::Size));
                Vec::new()
            });
            // Without memory for it, at the next operation: until then the old one is empty, and nothing can be stored.
            self.shrink();
            entries
        });
        self.put_back(entries);
    }

    /// Puts the entries that are still alive into a moka cache that was made for them; those that there is no memory for are
    /// evicted.
    fn put_back(&mut self, entries: Vec<(Arc<Key>, Value)>) {
        let now = clock::now();
        for (key, value) in entries {
            if value.expires() <= now {
                self.shared.report(key, value, Cause::Expired);
            } else if self.has_headroom_soon(key.len()) {
                self.shared.removing(Mode::Ignore, || self.map.insert(Key::clone(&key), value));
            } else if self.watched {
                self.shared.report(key, value, Cause::Size);
            }
        }
    }

    /// Empties the moka cache. If it is watched by way of its listener: that alone hands over entries that have expired
    /// unseen.
    fn take_all(&mut self) -> Vec<(Arc<Key>, Value)> {
        if !self.watched {
            self.map.run_pending_tasks();
            return self.map.iter().collect();
        }
        self.take_out(Mode::Collect);
        self.shared.take_collected()
    }

    /// Has moka invalidate all entries; `mode` says what becomes of them, if it is watched.
    fn take_out(&self, mode: Mode) {
        self.map.run_pending_tasks();
        clock::with_moka_ahead(|| {
            self.shared.removing(mode, || {
                self.map.invalidate_all();
                self.map.run_pending_tasks();
                while self.map.entry_count() > 0 {
                    self.map.run_pending_tasks();
                }
            });
        });
    }

    /// Puts one whose tables are as small as can be in the place of an empty moka cache, if there is memory for it, whatever
    /// of the old one is not freed at once.
    fn shrink(&mut self) {
        reclaim();
        if memory::holds_empty_cache() {
            self.start_anew();
        } else {
            clock::catch_up_with_moka();
        }
    }

    fn start_anew(&mut self) {
        self.map.replace(|| Map::new(&self.config, self.hash, self.watched, self.budget, &self.shared));
        self.origin = clock::now();
        self.unweighed = 0;
        reclaim();
        // Without memory for it, when they are needed.
        if memory::holds_tables() {
            self.map.make_tables();
        }
    }
}

/// What moka's tables may soon take in one piece. A memory limit keeps as much for them as they take.
fn tables_ahead(map: &MokaCache, capacity: Option<u64>, limited: bool) -> usize {
    if limited { 0 } else { memory::tables_ahead(map.entry_count(), map.weighted_size(), capacity) }
}

/// A walk over the keys that were live when it began.
#[derive(Debug, Default)]
pub struct KeyCursor {
    keys: vec::IntoIter<Arc<Key>>,
}

impl KeyCursor {
    /// The next key that is still live, if there is one.
    pub fn next(&mut self, cache: &mut Cache) -> Option<Arc<Key>> {
        self.keys.by_ref().find(|key| cache.contains(key))
    }

    /// How many bytes the key has that [`Self::next`] is about to answer, if there is one.
    pub fn next_size(&mut self, cache: &mut Cache) -> Option<usize> {
        while let Some(key) = self.keys.as_slice().first() {
            if cache.contains(key) {
                return Some(key.len());
            }
            self.keys.next();
        }
        None
    }
}
