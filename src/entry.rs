//! What the moka cache holds: keys and values, each in one allocation where it is short.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka::Equivalent;
use smallvec::SmallVec;

use crate::bytes::SharedBytes;
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
        Sought::new(bytes, hash).into()
    }
}

/// The bytes of a key that is looked for, hashed once however often that is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    hash: u32,
    bytes: &'a [u8],
}

impl<'a> Sought<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], hash: KeyedHash) -> Self {
        Self { hash: hash.of(bytes), bytes }
    }
}

impl From<Sought<'_>> for Key {
    fn from(sought: Sought<'_>) -> Self {
        Self { hash: sought.hash, bytes: SmallVec::from_slice(sought.bytes) }
    }
}

impl Equivalent<Key> for Sought<'_> {
    #[inline]
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && *self.bytes == *key.bytes
    }
}

/// As the key itself does.
impl Hash for Sought<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
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
    /// No entry: room of this moka weight, kept for one that is about to be set.
    reserves: bool,
}

impl Attributes {
    fn new(term: Term, weight: u32) -> Self {
        let Term { expires, deadline, tti } = term;
        Self { expires: expires.into(), deadline: deadline.into(), tti: tti.into(), weight, reserves: false }
    }
}

/// For how long an entry lives; see the fields of [`Attributes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    expires: u64,
    deadline: u64,
    tti: u64,
}

impl Term {
    pub(crate) const UNLIMITED: Self = Self::until(NEVER);

    /// Of an entry set at `now`. The earlier of the cache's (time to live, time to idle) and its own counts.
    pub(crate) fn new(now: u64, cache: (Option<u64>, Option<u64>), options: &EntryOptions) -> Self {
        let earlier = |a: Option<u64>, b: Option<u64>| a.unwrap_or(NEVER).min(b.unwrap_or(NEVER));
        let deadline = now.saturating_add(earlier(cache.0, options.ttl));
        let tti = earlier(cache.1, options.tti);
        Self { expires: deadline.min(now.saturating_add(tti)), deadline, tti }
    }

    /// Until a deadline, however seldom the entry is read.
    pub(crate) const fn until(deadline: u64) -> Self {
        Self { expires: deadline, deadline, tti: NEVER }
    }
}

/// What an entry is to become without moka being told of a new value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) length: usize,
    pub(crate) weight: u32,
    pub(crate) term: Term,
}

/// A stored value; its clones share the bytes. Without attributes it has no deadline and weighs 1, as most entries of most
/// caches do.
#[derive(Clone, Debug)]
pub struct Value(SharedBytes<Attributes>);

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Value {
    pub(crate) fn new(bytes: &[u8], term: Term, weight: u32) -> Self {
        let plain = term == Term::UNLIMITED && weight == 1;
        Self(SharedBytes::new((!plain).then(|| Attributes::new(term, weight)), bytes))
    }

    /// The same bytes without anything beside them but a deadline.
    pub(crate) fn with_deadline(&self, deadline: u64) -> Self {
        Self(SharedBytes::new(Some(Attributes::new(Term::until(deadline), self.weight())), self))
    }

    pub(crate) fn reservation(moka_weight: u32) -> Self {
        Self(SharedBytes::new(
            Some(Attributes { reserves: true, ..Attributes::new(Term::UNLIMITED, moka_weight) }),
            &[],
        ))
    }

    /// The moka weight that it keeps room for, if it is a reservation.
    pub(crate) fn reserved(&self) -> Option<u32> {
        self.attributes().filter(|a| a.reserves).map(|a| a.weight)
    }

    #[inline]
    fn attributes(&self) -> Option<&Attributes> {
        self.0.header()
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

    /// Gives it another term; false if it has nowhere to note that.
    pub(crate) fn set_term(&self, term: Term) -> bool {
        let Some(a) = self.attributes() else { return false };
        a.expires.store(term.expires, Relaxed);
        a.deadline.store(term.deadline, Relaxed);
        a.tti.store(term.tti, Relaxed);
        true
    }

    /// Whether this can be what is set anew where it lies, as it takes as much room, and nobody but so many owners has it.
    pub(crate) fn can_become(&self, change: Change, owners: u32) -> bool {
        let Change { length, weight, term } = change;
        let same_kind = match self.attributes() {
            None => weight == 1 && term == Term::UNLIMITED,
            Some(a) => weight == a.weight && !a.reserves,
        };
        same_kind && self.0.can_become(length, owners)
    }

    /// Puts other bytes in the place of its own.
    ///
    /// # Safety
    /// [`Self::can_become`] said so, and meanwhile nobody looks at the bytes of this or of another owner.
    #[expect(unsafe_code, reason = "its caller's promise, handed on")]
    pub(crate) unsafe fn overwrite(&self, with: &[u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.0.overwrite(with) }
    }
}
