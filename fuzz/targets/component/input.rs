//! What an execution is made of. Choices take a byte each, so that one that is changed is another choice.

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
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

/// How a cache is opened.
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

/// A memory limit, in bytes.
#[derive(Debug)]
pub struct Limit(pub u64);

impl Arbitrary<'_> for Limit {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=7)? {
            0 => (1 << 20) - 1 - u64::from(u8::arbitrary(u)?),
            1 => u64::arbitrary(u)?,
            _ => (1 << 20) + (u64::from(u8::arbitrary(u)?) << 14),
        }))
    }
}

/// A number from few to as many as there are.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub u64);

impl Number {
    pub fn count(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Arbitrary<'_> for Number {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=7)? {
            0 => u64::MAX,
            1 => u32::arbitrary(u)?.into(),
            _ => u8::arbitrary(u)?.into(),
        }))
    }
}

/// A span of time, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub u64);

impl Arbitrary<'_> for Span {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=7)? {
            0 => u64::MAX,
            1 => u64::arbitrary(u)?,
            2 => u8::arbitrary(u)?.into(),
            _ => u64::from(u8::arbitrary(u)?) << u.int_in_range(0..=56)?,
        }))
    }
}

/// Which of the caches.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Which(u8);

impl Which {
    pub const COUNT: usize = 8;
    pub const FIRST: Self = Self(0);

    pub fn index(self) -> usize {
        // Mostly the first, so that its operations meet.
        match self.0 {
            0..=191 => 0,
            number => 1 + usize::from(number) % (Self::COUNT - 1),
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Key(u8);

impl Key {
    /// Of few keys, so that operations meet: no bytes, few, or more than lie inside moka's own keys, and some of a length
    /// that takes memory worth looking at.
    pub fn bytes(self, most: usize) -> Vec<u8> {
        match self.0 {
            253 => vec![1; 300.min(most)],
            254 => vec![2; 3000.min(most)],
            255 => vec![3; 20_000.min(most)],
            number => vec![number % 12; usize::from(number % 12) * 3],
        }
    }
}

/// How many bytes a value has.
#[derive(Clone, Copy, Debug)]
pub struct Length(pub usize);

impl Arbitrary<'_> for Length {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=7)? {
            0 => usize::from(u8::arbitrary(u)?) << 12,
            1 => u16::arbitrary(u)?.into(),
            2 | 3 => usize::from(u8::arbitrary(u)?) << 4,
            _ => u8::arbitrary(u)?.into(),
        }))
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Set {
    pub key: Key,
    pub length: Length,
    pub options: Options,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Options {
    ttl: Option<Span>,
    tti: Option<Span>,
    weight: Option<Number>,
}

impl Options {
    pub fn options(self) -> EntryOptions {
        EntryOptions {
            ttl: self.ttl.map(|time| time.0),
            tti: self.tti.map(|time| time.0),
            weight: self.weight.map_or(1, Number::count),
        }
    }
}

#[derive(Debug)]
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

impl Arbitrary<'_> for Op {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=31)? {
            0 => Self::Open(u.arbitrary()?, u.arbitrary()?),
            1 => Self::Close(u.arbitrary()?),
            2 => Self::SetMany(u.arbitrary()?, u.arbitrary()?),
            3 => {
                let (which, first, count, length) = u.arbitrary::<(_, _, _, u16)>()?;
                Self::Flood { which, first, count, length: length % 4096 }
            }
            4 | 5 => Self::Next(u.arbitrary()?, u.arbitrary()?),
            6 => Self::DropCursor(u.arbitrary()?),
            7 | 8 => Self::Fill(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?),
            9 => Self::DropLease(u.arbitrary()?),
            10 | 11 => Self::Step(u.arbitrary()?),
            12 | 13 => Self::StepToDeadline(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?),
            14 => Self::StepBack(u.arbitrary()?),
            _ => Self::OfCache(u.arbitrary()?, u.arbitrary()?),
        })
    }
}

#[derive(Debug)]
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

impl Arbitrary<'_> for CacheOp {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=19)? {
            0 => Self::Get(u.arbitrary()?),
            1 => Self::Contains(u.arbitrary()?),
            2 => Self::GetOrInsert(u.arbitrary()?),
            3 => Self::Expire(u.arbitrary()?, u.arbitrary()?),
            4 => Self::Remaining(u.arbitrary()?),
            5 => Self::Remove(u.arbitrary()?),
            6 => Self::Clear,
            7 => Self::GetMany(u.arbitrary()?),
            8 => Self::RemoveMany(u.arbitrary()?),
            9 => Self::Keys,
            10 => Self::Count,
            11 => Self::RunPending,
            12 => Self::Stats,
            13 => Self::Drain(u.arbitrary()?),
            14..=16 => Self::Lookup(u.arbitrary()?, u.arbitrary()?),
            _ => Self::Set(u.arbitrary()?),
        })
    }
}
