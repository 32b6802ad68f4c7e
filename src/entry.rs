//! What the moka cache holds: keys and values, each in one allocation where it is short.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;
use triomphe::ThinArc;

use crate::clock::NEVER;
use crate::hash::KeyedHash;

/// The bytes of a key, up to 24 of them inside moka's own reference-counted key, and their hash.
#[derive(Clone, Debug)]
pub struct Key {
    hash: u32,
    bytes: SmallVec<[u8; 24]>,
}

impl Key {
    pub(crate) fn new(bytes: &[u8], hash: KeyedHash) -> Self {
        Self { hash: hash.of(bytes), bytes: SmallVec::from_slice(bytes) }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

/// As its bytes hash, so that a lookup needs no key of its own: see [`KeyHasher`](crate::hash::KeyHasher).
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

/// How one entry is set; see the WIT record of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryOptions {
    /// Its time to live, in nanoseconds.
    pub ttl: Option<u64>,
    /// Its time to idle, in nanoseconds.
    pub tti: Option<u64>,
    /// What it weighs.
    pub weight: u32,
}

impl Default for EntryOptions {
    fn default() -> Self {
        Self { ttl: None, tti: None, weight: 1 }
    }
}

/// What an entry has beyond its bytes, where it has it. Times are guest time ([`crate::clock`]), [`NEVER`] for none.
#[derive(Debug)]
struct Attributes {
    /// When it expires: the earlier of `deadline` and the end of its idle time.
    expires: AtomicU64,
    /// When it expires however often it is read.
    deadline: AtomicU64,
    /// How long it may idle.
    tti: AtomicU64,
    weight: u32,
}

/// A stored value; its clones share the bytes.
#[derive(Clone, Debug)]
pub struct Value(Repr);

#[derive(Clone, Debug)]
enum Repr {
    /// No deadline, weight 1: most entries of most caches.
    Plain(ThinArc<(), u8>),
    Full(ThinArc<Attributes, u8>),
    /// No entry: room of this moka weight, kept for one that is about to be set.
    Reservation(u32),
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Plain(arc) => &arc.slice,
            Repr::Full(arc) => &arc.slice,
            Repr::Reservation(_) => &[],
        }
    }
}

impl Value {
    /// A value set at `now`. The earlier of each pair of durations counts.
    pub(crate) fn new(bytes: &[u8], now: u64, cache: (Option<u64>, Option<u64>), options: &EntryOptions) -> Self {
        let earlier = |a: Option<u64>, b: Option<u64>| a.unwrap_or(NEVER).min(b.unwrap_or(NEVER));
        let deadline = now.saturating_add(earlier(cache.0, options.ttl));
        let tti = earlier(cache.1, options.tti);
        if deadline == NEVER && tti == NEVER && options.weight == 1 {
            return Self(Repr::Plain(ThinArc::from_header_and_slice((), bytes)));
        }
        let attributes = Attributes {
            expires: AtomicU64::new(deadline.min(now.saturating_add(tti))),
            deadline: AtomicU64::new(deadline),
            tti: AtomicU64::new(tti),
            weight: options.weight,
        };
        Self(Repr::Full(ThinArc::from_header_and_slice(attributes, bytes)))
    }

    /// The same bytes without anything beside them but a deadline.
    pub(crate) fn with_deadline(&self, deadline: u64) -> Self {
        let attributes = Attributes {
            expires: AtomicU64::new(deadline),
            deadline: AtomicU64::new(deadline),
            tti: AtomicU64::new(NEVER),
            weight: self.weight(),
        };
        Self(Repr::Full(ThinArc::from_header_and_slice(attributes, self)))
    }

    pub(crate) fn reservation(moka_weight: u32) -> Self {
        Self(Repr::Reservation(moka_weight))
    }

    /// The moka weight that it keeps room for, if it is a reservation.
    pub(crate) fn reserved(&self) -> Option<u32> {
        match self.0 {
            Repr::Reservation(moka_weight) => Some(moka_weight),
            _ => None,
        }
    }

    fn attributes(&self) -> Option<&Attributes> {
        match &self.0 {
            Repr::Plain(_) | Repr::Reservation(_) => None,
            Repr::Full(arc) => Some(&arc.header.header),
        }
    }

    /// What it weighs.
    pub(crate) fn weight(&self) -> u32 {
        self.attributes().map_or(1, |a| a.weight)
    }

    /// When it expires, or [`NEVER`].
    pub(crate) fn expires(&self) -> u64 {
        self.attributes().map_or(NEVER, |a| a.expires.load(Relaxed))
    }

    /// Extends its idle time from `now` on; whether that moved the time at which it expires.
    pub(crate) fn touch(&self, now: u64) -> bool {
        let Some(a) = self.attributes() else { return false };
        let tti = a.tti.load(Relaxed);
        if tti == NEVER {
            return false;
        }
        let expires = a.deadline.load(Relaxed).min(now.saturating_add(tti));
        a.expires.swap(expires, Relaxed) != expires
    }

    /// Gives it a new deadline and takes its idle time away; false if it has nowhere to note that.
    pub(crate) fn set_deadline(&self, deadline: u64) -> bool {
        let Some(a) = self.attributes() else { return false };
        a.expires.store(deadline, Relaxed);
        a.deadline.store(deadline, Relaxed);
        a.tti.store(NEVER, Relaxed);
        true
    }
}
