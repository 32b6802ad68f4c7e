//! Deadlines, as moka asks for them: the entry itself knows when it expires, moka is told how far away that is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::entry::{Key, Term, Value};
use crate::removals::{Shared, Touch};

/// moka's hooks. They ignore the instants that moka hands them: the operation's one reading of the clock counts.
pub(crate) struct Deadlines(pub(crate) Arc<Shared>);

fn time_left(value: &Value) -> Option<Duration> {
    match value.expires() {
        clock::NEVER => None,
        expires => Some(Duration::from_nanos(clock::moka_nanos_between(clock::now(), expires))),
    }
}

impl moka::Expiry<Key, Value> for Deadlines {
    fn expire_after_create(&self, _: &Key, value: &Value, _: Instant) -> Option<Duration> {
        time_left(value)
    }

    fn expire_after_update(&self, _: &Key, value: &Value, _: Instant, _: Option<Duration>) -> Option<Duration> {
        time_left(value)
    }

    /// Answers what it was told where nothing changed: moka then leaves its timers alone.
    fn expire_after_read(
        &self,
        _: &Key,
        value: &Value,
        _: Instant,
        unchanged: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        let moved = match self.0.touch() {
            Touch::Read => value.touch(clock::now()),
            Touch::Look => false,
            Touch::Expire(deadline) => value.set_term(Term::until(deadline)),
            // moka is about to hand out a clone.
            Touch::Set(change) => value.can_become(change, 1) && value.set_term(change.term),
        };
        if moved { time_left(value) } else { unchanged }
    }
}
