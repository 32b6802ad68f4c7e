//! Answers: what an operation found, as the 64 bits that its caller reads.

use std::borrow::Cow;

use crate::config::{ConfigError, Field, OpenError};
use crate::entry::Value;
use crate::memory::{OUT_OF_MEMORY, SetError};

const NO_BYTES: u64 = 1 << 63;
const REMOVALS_WAIT: u64 = 1 << 62;
const YES: u64 = 1 << 32;
const ERROR: u64 = 2 << 32;

/// Bytes of this length or more are not taken: an answer has 30 bits for a length.
pub(crate) const LENGTH_LIMIT: usize = 1 << 30;

/// What an operation answers.
#[derive(Debug)]
pub(crate) enum Reply {
    No,
    Yes(u32),
    Value(Value),
    Bytes(Vec<u8>),
    Text(&'static str),
}

/// The owners of the bytes that were answered last, which the caller reads. To let go of them takes two comparisons, where
/// dropping a [`Reply`] is a jump by a table.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    value: Option<Value>,
    bytes: Option<Cow<'static, [u8]>>,
}

impl Kept {
    pub(crate) const NOTHING: Self = Self { value: None, bytes: None };

    #[inline]
    pub(crate) fn let_go(&mut self) {
        self.value = None;
        if self.bytes.is_some() {
            self.let_go_of_bytes();
        }
    }

    /// Answers of many entries have them, and errors: the others do not carry the code for it.
    #[inline(never)]
    fn let_go_of_bytes(&mut self) {
        self.bytes = None;
    }

    /// The bytes that were answered.
    #[cfg(feature = "fuzz")]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.value.as_deref().or(self.bytes.as_deref()).unwrap_or_default()
    }
}

/// What an operation may answer with.
pub(crate) trait Outcome {
    /// The answer's 64 bits. Its bytes, if it has some, stay where they are as long as they are kept.
    fn keep(self, kept: &mut Kept, removals_wait: bool) -> u64;
}

impl Outcome for Reply {
    #[inline]
    fn keep(self, kept: &mut Kept, removals_wait: bool) -> u64 {
        match self {
            Self::No => false.keep(kept, removals_wait),
            Self::Yes(number) => NO_BYTES | YES | u64::from(number) | wait(removals_wait),
            Self::Value(value) => Some(value).keep(kept, removals_wait),
            Self::Bytes(bytes) => encode_bytes(kept.bytes.insert(bytes.into())) | wait(removals_wait),
            Self::Text(text) => encode_bytes(kept.bytes.insert(text.as_bytes().into())) | wait(removals_wait),
        }
    }
}

impl Outcome for bool {
    #[inline]
    fn keep(self, _: &mut Kept, removals_wait: bool) -> u64 {
        NO_BYTES | if self { YES } else { 0 } | wait(removals_wait)
    }
}

impl Outcome for Option<Value> {
    #[inline]
    fn keep(self, kept: &mut Kept, removals_wait: bool) -> u64 {
        let answer = match self {
            Some(value) => encode_bytes(kept.value.insert(value)),
            None => NO_BYTES,
        };
        answer | wait(removals_wait)
    }
}

#[inline]
fn wait(removals_wait: bool) -> u64 {
    if removals_wait { REMOVALS_WAIT } else { 0 }
}

fn encode_bytes(bytes: &[u8]) -> u64 {
    debug_assert!(bytes.len() < LENGTH_LIMIT);
    (bytes.len() as u64) << 32 | u64::from(bytes.as_ptr().addr() as u32)
}

/// Why an operation failed: its code, and a text for a person.
#[derive(Debug)]
pub(crate) struct Error {
    code: u32,
    pub(crate) text: Cow<'static, str>,
}

impl Error {
    #[cold]
    #[inline(never)]
    pub(crate) fn handle(what: &str, handle: u32) -> Self {
        Self { code: 1, text: format!("there is no {what} {handle}: it was never opened, or is closed").into() }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn malformed(what: &str) -> Self {
        Self { code: 2, text: format!("malformed: {what}").into() }
    }

    pub(crate) fn lapsed() -> Self {
        Self { code: 6, text: "the lease has ended: its key was set or removed, or it was held for too long".into() }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn too_many(what: &str, limit: usize) -> Self {
        Self { code: 7, text: format!("{limit} {what} are open: close some first").into() }
    }

    pub(crate) fn code(&self) -> u32 {
        self.code
    }

    pub(crate) fn encode(&self, removals_wait: bool) -> u64 {
        NO_BYTES | ERROR | u64::from(self.code) | wait(removals_wait)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let field = match error.field {
            Field::Ttl => "ttl",
            Field::Tti => "tti",
            Field::Policy => "policy",
            Field::Name => "name",
            Field::MemoryLimit => "memory_limit",
        };
        Self { code: 3, text: format!("{field}: {}", error.reason).into() }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Config(error) => error.into(),
            OpenError::OutOfMemory => SetError::OutOfMemory.into(),
        }
    }
}

impl From<SetError> for Error {
    fn from(error: SetError) -> Self {
        match error {
            SetError::TooLarge { .. } => Self { code: 4, text: error.to_string().into() },
            // There may be no memory for the text either.
            SetError::OutOfMemory => Self { code: 5, text: OUT_OF_MEMORY.into() },
        }
    }
}
