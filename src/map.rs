//! moka's cache as the contract uses it: how it is made, and how another takes its place.

use std::ops::Deref;
use std::sync::Arc;

use moka::policy::EvictionPolicy;

use crate::config::{Config, Policy};
use crate::entry::{Key, Value};
use crate::expiry::Deadlines;
use crate::hash::KeyedHash;
use crate::memory::{self, Budget};
use crate::removals::Shared;

pub(crate) type MokaCache = moka::sync::Cache<Key, Value, KeyedHash>;

/// A moka cache whose place another can take.
pub(crate) struct Map(Option<MokaCache>);

impl Map {
    pub(crate) fn new(
        config: &Config,
        hash: KeyedHash,
        watched: bool,
        budget: Option<Budget>,
        shared: &Arc<Shared>,
    ) -> Self {
        let mut builder = moka::sync::Cache::builder().name(&config.name).eviction_policy(match config.policy {
            Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
            Policy::Lru => EvictionPolicy::lru(),
        });
        if watched {
            builder = builder.expire_after(Deadlines(Arc::clone(shared)));
            let listener = Arc::clone(shared);
            builder = builder.eviction_listener(move |key, value, cause| listener.removed_by_moka(key, value, cause));
        }
        if let Some(capacity) = budget.map_or(config.capacity, |budget| Some(budget.max_weight().into())) {
            builder = builder.max_capacity(capacity);
        }
        builder = match budget {
            Some(budget) => builder.weigher(move |key: &Key, value: &Value| {
                let weigh = || budget.weigh(memory::charge(key.len(), value.len()), value.weight());
                value.reserved().unwrap_or_else(weigh)
            }),
            None => builder.weigher(|_, value: &Value| value.weight()),
        };
        Self(Some(builder.build_with_hasher(hash)))
    }

    /// Puts another in its place. The old one is gone when that is made, and what it gave back is one piece where it was:
    /// what is made beside it would lie scattered over the memory, between pieces too small for a large entry.
    pub(crate) fn replace(&mut self, make: impl FnOnce() -> Self) {
        self.0 = None;
        reclaim();
        memory::trim();
        *self = make();
    }

    /// moka makes each of its tables when a key first touches it, in a read too, which cannot be refused: when other caches
    /// may have taken the memory for it. A walk touches all of them.
    pub(crate) fn make_tables(&self) {
        let first = self.iter().next();
        debug_assert!(first.is_none(), "it was to be empty");
    }
}

impl Deref for Map {
    type Target = MokaCache;

    #[inline]
    fn deref(&self) -> &MokaCache {
        match &self.0 {
            Some(cache) => cache,
            None => unreachable!("one is there but while another is made"),
        }
    }
}

/// Has what was removed freed: moka's table leaves that to crossbeam's epochs, which move on when they are looked at.
pub(crate) fn reclaim() {
    for _ in 0..4 {
        crossbeam_epoch::pin().flush();
    }
    memory::tidy();
}
