//! Leases: who may fill in a missing key, until when.

use std::collections::HashMap;

use crate::entry::Key;
use crate::hash::KeyedHash;
use crate::memory::SetError;

/// Names a lease among those of its cache; never given twice while the lease is out.
pub type LeaseId = u32;

struct Lease {
    id: LeaseId,
    ends: u64,
}

/// The leases of one cache.
pub(crate) struct Leases {
    by_key: HashMap<Key, Lease, KeyedHash>,
    keys: HashMap<LeaseId, Key, KeyedHash>,
    last_id: LeaseId,
    /// How many leases there may be before those that have ended are swept out.
    sweep_at: usize,
}

impl Leases {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self { by_key: HashMap::with_hasher(hash), keys: HashMap::with_hasher(hash), last_id: 0, sweep_at: 64 }
    }

    /// A new lease on the key, unless one is out.
    ///
    /// # Errors
    /// The host gives no more memory.
    pub(crate) fn take(&mut self, key: &[u8], now: u64, life: u64) -> Result<Option<LeaseId>, SetError> {
        if self.by_key.get(key).is_some_and(|lease| now < lease.ends) {
            return Ok(None);
        }
        self.end(key);
        self.sweep(now);
        // With many leases out the tables are large. The key itself is left to the headroom.
        if self.by_key.try_reserve(1).is_err() || self.keys.try_reserve(1).is_err() {
            return Err(SetError::OutOfMemory);
        }
        let mut id = self.last_id.wrapping_add(1).max(1);
        while self.keys.contains_key(&id) {
            id = id.wrapping_add(1).max(1);
        }
        self.last_id = id;
        let key = Key::new(key, *self.by_key.hasher());
        self.keys.insert(id, key.clone());
        self.by_key.insert(key, Lease { id, ends: now.saturating_add(life) });
        Ok(Some(id))
    }

    /// Ends the lease on a key, if there is one.
    #[inline]
    pub(crate) fn end(&mut self, key: &[u8]) {
        if self.by_key.is_empty() {
            return;
        }
        if let Some(lease) = self.by_key.remove(key) {
            self.keys.remove(&lease.id);
        }
    }

    /// Ends a lease; its key, unless the lease had ended before.
    pub(crate) fn redeem(&mut self, id: LeaseId, now: u64) -> Option<Key> {
        let key = self.keys.remove(&id)?;
        let lease = self.by_key.remove(&key)?;
        (now < lease.ends).then_some(key)
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.keys.clear();
    }

    fn sweep(&mut self, now: u64) {
        if self.by_key.len() < self.sweep_at {
            return;
        }
        let keys = &mut self.keys;
        self.by_key.retain(|_, lease| {
            let live = now < lease.ends;
            if !live {
                keys.remove(&lease.id);
            }
            live
        });
        self.sweep_at = (self.by_key.len() * 2).max(64);
    }
}
