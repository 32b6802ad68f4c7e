//! What an execution is made of.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use moka_cache::EntryOptions;

/// Under which circumstances.
#[derive(Arbitrary, Debug)]
pub struct Setup {
    /// Where the host's wall is around the component's memory, in units of 8 KiB beyond a MiB.
    pub wall: Option<u8>,
    /// What the host's random numbers begin with.
    pub seed: u8,
    pub cache: Config,
}

#[derive(Arbitrary, Debug)]
pub struct Config {
    pub long_name: bool,
    pub capacity: Option<Number>,
    pub ttl: Option<Span>,
    pub tti: Option<Span>,
    pub lru: bool,
    pub memory_limit: Option<Limit>,
    pub removal_log: Option<Number>,
}

#[derive(Arbitrary, Debug)]
pub enum Limit {
    TooLow(u8),
    /// Pages of 64 KiB beyond a MiB.
    Pages(u8),
    Any(u64),
}

impl Limit {
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::TooLow(below) => (1 << 20) - 1 - (u64::from(below) << 10),
            Self::Pages(pages) => (1 << 20) + (u64::from(pages) << 16),
            Self::Any(bytes) => bytes,
        }
    }
}

/// A number from few to as many as there are.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Number {
    Small(u8),
    Any(u32),
    All,
}

impl Number {
    pub fn count(self) -> u32 {
        match self {
            Self::Small(number) => number.into(),
            Self::Any(number) => number,
            Self::All => u32::MAX,
        }
    }
}

/// A span of time.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Span {
    Short(u8),
    /// So many, times two to the power of the other.
    Scaled(u16, u8),
    Any(u64),
    Endless,
}

impl Span {
    pub fn nanoseconds(self) -> u64 {
        match self {
            Self::Short(time) => time.into(),
            Self::Scaled(time, power) => u64::from(time) << (power % 49),
            Self::Any(time) => time,
            Self::Endless => u64::MAX,
        }
    }
}

/// Which of the few caches.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Which(u8);

impl Which {
    pub const COUNT: usize = 3;
    pub const FIRST: Self = Self(0);

    pub fn index(self) -> usize {
        // Mostly the first, so that its operations meet.
        match self.0 {
            0..=191 => 0,
            number => 1 + usize::from(number) % (Self::COUNT - 1),
        }
    }
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Key(pub u8);

impl Key {
    /// None, few or more than lie inside moka's own keys, and some of a length that takes memory worth looking at.
    pub fn bytes(self, most: usize) -> Vec<u8> {
        match self.0 {
            253 => vec![1; 300.min(most)],
            254 => vec![2; 3000.min(most)],
            255 => vec![3; 20_000.min(most)],
            number => vec![number % 32; usize::from(number) % 32],
        }
    }
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Length {
    Short(u8),
    /// In units of 16 bytes.
    Middle(u8),
    Long(u16),
    /// In units of 4 KiB.
    Huge(u8),
}

impl Length {
    pub fn bytes(self) -> usize {
        match self {
            Self::Short(length) => length.into(),
            Self::Middle(length) => usize::from(length) << 4,
            Self::Long(length) => length.into(),
            Self::Huge(length) => usize::from(length) << 12,
        }
    }
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Set {
    pub key: Key,
    pub length: Length,
    pub options: Options,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Options {
    pub ttl: Option<Span>,
    pub tti: Option<Span>,
    pub weight: Option<Number>,
}

impl Options {
    pub fn options(self) -> EntryOptions {
        EntryOptions {
            ttl: self.ttl.map(Span::nanoseconds),
            tti: self.tti.map(Span::nanoseconds),
            weight: self.weight.map_or(1, Number::count),
        }
    }
}

#[derive(Arbitrary, Debug)]
pub enum Op {
    Open(Which, Config),
    Close(Which),
    OfCache(Which, CacheOp),
    SetMany(Which, Vec<Set>),
    /// So many keys of their own, from the first on, with values of so many bytes.
    Flood {
        which: Which,
        first: u16,
        count: u8,
        length: u16,
    },
    /// Of any of the cursors.
    Next(u8, Number),
    DropCursor(u8),
    /// Of any of the leases.
    Fill(u8, Length, Options),
    DropLease(u8),
    Step(Span),
    /// To a deadline, or so many nanoseconds before or after it.
    StepToDeadline(Which, Key, i8),
    StepBack(Span),
}

#[derive(Arbitrary, Debug)]
pub enum CacheOp {
    Get(Key),
    Contains(Key),
    Set(Set),
    GetOrInsert(Set),
    Expire(Key, Option<Span>),
    Remaining(Key),
    Remove(Key),
    Clear,
    GetMany(Vec<Key>),
    RemoveMany(Vec<Key>),
    Keys,
    Count,
    RunPending,
    Stats,
    Drain(Number),
    Lookup(Key, Span),
}
