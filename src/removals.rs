//! What moka's hooks and its listener share with the cache: why entries leave, and the log of those that left.
//!
//! A cache is used by one caller at a time ([`crate::Cache`] takes `&mut self`); the locks and atomics are there because
//! moka's types ask for `Send + Sync`, and are never waited for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::notification::RemovalCause;

use crate::clock;
use crate::entry::{Change, Key, Value};

/// Why an entry is no longer in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A deadline passed.
    Expired,
    /// It was taken out.
    Explicit,
    /// Its value was overwritten.
    Replaced,
    /// The cache was too full for it.
    Size,
}

/// One entry that left.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Its key.
    pub key: Arc<Key>,
    /// The value it held.
    pub value: Value,
    /// Why it left.
    pub cause: Cause,
}

/// What a lookup in the moka cache is to do with the entry's deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Touch {
    /// Extend its time to idle.
    Read,
    /// Leave it.
    Look,
    /// Put this deadline in its place.
    Expire(u64),
    /// Put the term of the entry as it is set anew in its place, if it can be where it lies.
    Set(Change),
}

/// What becomes of an entry that moka removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is counted and logged.
    Report,
    /// It is kept for [`Shared::take_collected`].
    Collect,
    /// It is counted and logged by this cause, whatever moka calls it, unless it has expired.
    TakeOut(Cause),
    /// Nothing, if it was taken out or overwritten: it is about to be replaced by itself.
    Ignore,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    touch: Touch,
    log: VecDeque<Removal>,
    log_limit: usize,
    lost: u64,
    collected: Vec<(Arc<Key>, Value)>,
}

/// Removals counted by cause.
#[derive(Debug, Default)]
struct Counters {
    expired: AtomicU64,
    explicit: AtomicU64,
    replaced: AtomicU64,
    size: AtomicU64,
    lost: AtomicU64,
    /// The weights of removed entries, summed up.
    weight: AtomicU64,
}

/// Shared by a cache and the hooks of its moka cache.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    counters: Counters,
}

impl Shared {
    pub(crate) fn new(log_limit: u32) -> Self {
        Self {
            state: Mutex::new(State {
                mode: Mode::Report,
                touch: Touch::Read,
                log: VecDeque::new(),
                log_limit: log_limit as usize,
                lost: 0,
                collected: Vec::new(),
            }),
            counters: Counters::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch(&self) -> Touch {
        self.state().touch
    }

    /// Sets what a lookup does with the deadline, for the time of `lookup`.
    pub(crate) fn touching<T>(&self, touch: Touch, lookup: impl FnOnce() -> T) -> T {
        self.state().touch = touch;
        let result = lookup();
        self.state().touch = Touch::Read;
        result
    }

    /// Sets what becomes of removed entries, for the time of `work`.
    pub(crate) fn removing<T>(&self, mode: Mode, work: impl FnOnce() -> T) -> T {
        self.state().mode = mode;
        let result = work();
        self.state().mode = Mode::Report;
        result
    }

    pub(crate) fn take_collected(&self) -> Vec<(Arc<Key>, Value)> {
        std::mem::take(&mut self.state().collected)
    }

    /// Counts entries that were taken out of a cache that is not watched.
    pub(crate) fn count_explicit(&self, entries: u64) {
        self.counters.explicit.fetch_add(entries, Relaxed);
    }

    /// Counts an entry that was set anew where it lies.
    pub(crate) fn count_replaced(&self) {
        self.counters.replaced.fetch_add(1, Relaxed);
    }

    /// Takes over what a cache that was not watched until now has counted in all.
    pub(crate) fn count_unwatched(&self, replaced: u64, size: u64) {
        self.counters.replaced.store(replaced, Relaxed);
        self.counters.size.store(size, Relaxed);
    }

    /// moka's listener.
    pub(crate) fn removed_by_moka(&self, key: Arc<Key>, value: Value, cause: RemovalCause) {
        if value.reserved().is_some() {
            return;
        }
        let mode = self.state().mode;
        match mode {
            // Others may expire or be evicted at the same time.
            Mode::Ignore if matches!(cause, RemovalCause::Explicit | RemovalCause::Replaced) => {}
            Mode::Collect => self.state().collected.push((key, value)),
            Mode::TakeOut(_) if value.expires() <= clock::now() => self.report(key, value, Cause::Expired),
            Mode::TakeOut(cause) => self.report(key, value, cause),
            Mode::Ignore | Mode::Report => self.report(
                key,
                value,
                match cause {
                    RemovalCause::Expired => Cause::Expired,
                    RemovalCause::Explicit => Cause::Explicit,
                    RemovalCause::Replaced => Cause::Replaced,
                    RemovalCause::Size => Cause::Size,
                },
            ),
        }
    }

    /// Counts and logs a removal. An entry whose deadline had passed when it was taken out or overwritten has expired:
    /// moka tells the two apart for cache-wide deadlines only.
    pub(crate) fn report(&self, key: Arc<Key>, value: Value, cause: Cause) {
        let cause = if cause != Cause::Size && value.expires() <= clock::now() { Cause::Expired } else { cause };
        let counter = match cause {
            Cause::Expired => &self.counters.expired,
            Cause::Explicit => &self.counters.explicit,
            Cause::Replaced => &self.counters.replaced,
            Cause::Size => &self.counters.size,
        };
        counter.fetch_add(1, Relaxed);
        self.counters.weight.fetch_add(value.weight().into(), Relaxed);
        let mut state = self.state();
        if state.log_limit == 0 {
            return;
        }
        if state.log.len() < state.log_limit && state.log.try_reserve(1).is_ok() {
            state.log.push_back(Removal { key, value, cause });
        } else {
            state.lost += 1;
            self.counters.lost.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn drain(&self, limit: usize) -> (Vec<Removal>, u64) {
        let mut state = self.state();
        let count = limit.min(state.log.len());
        let removals = state.log.drain(..count).collect();
        if state.log.is_empty() {
            state.log = VecDeque::new();
        }
        (removals, std::mem::take(&mut state.lost))
    }

    pub(crate) fn take_oldest(&self) -> Option<Removal> {
        let mut state = self.state();
        let removal = state.log.pop_front();
        if state.log.is_empty() {
            state.log = VecDeque::new();
        }
        removal
    }

    pub(crate) fn lose_oldest(&self) {
        if self.take_oldest().is_some() {
            self.state().lost += 1;
            self.counters.lost.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn next_size(&self) -> Option<usize> {
        self.state().log.front().map(|removal| removal.key.len() + removal.value.len())
    }

    /// Forgets the log, to free the memory it holds on to; whether there was any.
    pub(crate) fn drop_log(&self) -> bool {
        let mut state = self.state();
        let log = std::mem::take(&mut state.log);
        state.lost += log.len() as u64;
        self.counters.lost.fetch_add(log.len() as u64, Relaxed);
        !log.is_empty()
    }

    pub(crate) fn waiting(&self) -> bool {
        let state = self.state();
        !state.log.is_empty() || state.lost > 0
    }

    pub(crate) fn removed_weight(&self) -> u64 {
        self.counters.weight.load(Relaxed)
    }

    /// Counts by cause (expired, explicit, replaced, size), and those that did not fit into the log.
    pub(crate) fn counts(&self) -> ([u64; 4], u64) {
        let c = &self.counters;
        let causes = [&c.expired, &c.explicit, &c.replaced, &c.size].map(|count| count.load(Relaxed));
        (causes, c.lost.load(Relaxed))
    }
}
