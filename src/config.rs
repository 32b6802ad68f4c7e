//! How a cache is opened, and what is refused.

use std::fmt;

use crate::memory;

/// What decides which entries stay when the cache is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By an estimate of how often a key is asked for.
    #[default]
    TinyLfu,
    /// By how recently an entry was used.
    Lru,
}

/// The configuration of a cache. The default is an unbounded cache without deadlines.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// A name for people.
    pub name: String,
    /// The most that all weights may sum up to; `None`: unbounded.
    pub capacity: Option<u64>,
    /// How long an entry lives after it was set, in nanoseconds.
    pub ttl: Option<u64>,
    /// How long an entry lives after it was set or read, in nanoseconds.
    pub tti: Option<u64>,
    /// Which entries stay when the cache is full.
    pub policy: Policy,
    /// The most bytes of linear memory the cache may bring the guest to.
    pub memory_limit: Option<u64>,
    /// How many removals are kept; `None` or 0: none.
    pub removal_log: Option<u32>,
}

/// A field of [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// [`Config::ttl`]
    Ttl,
    /// [`Config::tti`]
    Tti,
    /// [`Config::policy`]; only where it comes as a number
    Policy,
    /// [`Config::name`]; only where it comes as bytes
    Name,
    /// [`Config::memory_limit`]
    MemoryLimit,
}

/// Why a cache could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field at fault.
    pub field: Field,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Why there is no cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It cannot be configured so.
    Config(ConfigError),
    /// The host gives no memory for an empty cache.
    OutOfMemory,
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Config {
    /// Whether removals are kept.
    pub(crate) fn logs(&self) -> bool {
        self.removal_log.is_some_and(|limit| limit > 0)
    }

    /// Says which field cannot be, if one cannot.
    ///
    /// # Errors
    /// The first field at fault, and why.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fault = |field, reason| Err(ConfigError { field, reason });
        if self.ttl == Some(0) {
            return fault(Field::Ttl, "ttl must be positive, got 0: leave it out for no time to live".into());
        }
        if self.tti == Some(0) {
            return fault(Field::Tti, "tti must be positive, got 0: leave it out for no time to idle".into());
        }
        match self.memory_limit {
            Some(limit) if limit < memory::LEAST_LIMIT => fault(
                Field::MemoryLimit,
                format!("memory_limit must be at least {} bytes (1 MiB), got {limit}", memory::LEAST_LIMIT),
            ),
            _ => Ok(()),
        }
    }
}
