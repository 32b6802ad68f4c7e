//! The one clock of the guest, read once an operation.
//!
//! Whoever calls in says what time it is ([`advance`]): the direct ABI hands on its caller's argument, the component face
//! a reading of `wasi:clocks/monotonic-clock`. Guest time is the sum of what went by between the readings of one source;
//! a reading earlier than the one before counts as no time gone by. So guest time never goes backwards, whatever the
//! caller's clock does. Readings that are a little late (a caller with threads reads its clock, and calls in after
//! another thread has) leave the mark where it is; after a clock was set back by more time goes on from there.
//!
//! moka reads `std::time::Instant`, which asks libc's `clock_gettime`. The guest defines that symbol itself and answers
//! [`moka_time`], a stretched form of guest time:
//!
//! * moka keeps an entry's deadline with its lowest 12 bits cut off, and finds expired entries by a timer wheel whose
//!   finest tick is 2^30 ns, over a second. Stretched some 119 times, 12 bits are 35 ns and a tick is 9 ms.
//! * 2^64 stretched nanoseconds are 4.9 years; [`crate::cache::Cache`] moves into a new moka cache, with a new start of
//!   time, before that ([`HORIZON`]).

use std::cell::Cell;

/// What stands for a deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// For how long one moka cache can be used, in nanoseconds of guest time: 2.2 years.
pub(crate) const HORIZON: u64 = 1 << 56;

/// By how much a reading can be late, in nanoseconds: a minute. Beyond that the clock was set back.
const LATE: u64 = 60_000_000_000;

/// How many guest nanoseconds make one second of [`moka_time`], as a power of two, so that no division is needed.
const SECOND_SHIFT: u32 = 23;
/// How many nanoseconds of [`moka_time`] a guest nanosecond makes: the largest factor that stays within a second.
const STRETCH: u64 = 1_000_000_000 >> SECOND_SHIFT;

/// Who says what time it is. Readings of different sources are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller of the direct ABI, by an argument.
    Caller,
    /// `wasi:clocks/monotonic-clock`.
    Wasi,
}

#[derive(Clone, Copy)]
struct State {
    /// Guest time in nanoseconds. It starts at 1 so that zero is before everything.
    now: u64,
    /// The last reading of each source, if there was one.
    last: [Option<u64>; 2],
    /// Guest time as moka is to see it, where that is not `now`.
    shown: Option<u64>,
    /// Added to [`moka_time`], in its nanoseconds; fewer than make a nanosecond of guest time.
    tick: u32,
    /// What [`moka_time`] is by all that. It is read more often than it changes.
    moka_time: (u64, u32),
}

impl State {
    const START: Self = Self { now: 1, last: [None; 2], shown: None, tick: 0, moka_time: stretch(1) };

    /// Is in force from now on.
    #[inline]
    fn store(self) {
        let (seconds, nanoseconds) = stretch(self.shown.unwrap_or(self.now));
        STATE.set(Self { moka_time: (seconds, nanoseconds + self.tick), ..self });
    }
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::START) };
}

/// Takes a reading of a source, in nanoseconds, and moves guest time on by what went by since its last one.
#[inline]
pub fn advance(source: Source, reading: u64) {
    let mut state = STATE.get();
    let mark = &mut state.last[source as usize];
    match *mark {
        Some(last) if reading >= last => {
            *mark = Some(reading);
            state.now = state.now.saturating_add(reading - last).min(NEVER - 1);
        }
        Some(last) if last - reading < LATE => return,
        _ => *mark = Some(reading),
    }
    state.store();
}

/// Guest time, in nanoseconds.
#[inline]
pub fn now() -> u64 {
    STATE.get().now
}

/// The time that moka is to see, as seconds and nanoseconds.
#[inline]
pub fn moka_time() -> (u64, u32) {
    STATE.get().moka_time
}

/// Runs `work` with moka's time one of its nanoseconds further, so that what was set just now lies before it.
pub(crate) fn with_moka_ahead<T>(work: impl FnOnce() -> T) -> T {
    let tick = STATE.get().tick;
    State { tick: tick + 1, ..STATE.get() }.store();
    let result = work();
    State { tick, ..STATE.get() }.store();
    result
}

/// Moves moka's time on by the one nanosecond that it was [ahead](with_moka_ahead): what is set from now on does not lie
/// before it, even if the caller's clock stands still.
pub(crate) fn catch_up_with_moka() {
    let mut state = STATE.get();
    state.tick += 1;
    if u64::from(state.tick) == STRETCH {
        state.tick = 0;
        state.now = state.now.saturating_add(1).min(NEVER - 1);
    }
    state.store();
}

/// Runs `work` with moka's time no later than this.
pub(crate) fn with_moka_no_later<T>(time: u64, work: impl FnOnce() -> T) -> T {
    let state = STATE.get();
    State { shown: Some(state.now.min(time)), ..state }.store();
    let result = work();
    State { shown: None, ..STATE.get() }.store();
    result
}

/// How far apart two points of guest time are for moka, in its nanoseconds; zero if `to` is not later than `from`.
#[inline]
pub(crate) fn moka_nanos_between(from: u64, to: u64) -> u64 {
    let (from_seconds, from_nanos) = stretch(from);
    let (to_seconds, to_nanos) = stretch(to.max(from));
    (to_seconds - from_seconds)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(to_nanos))
        .saturating_sub(u64::from(from_nanos))
}

#[inline]
const fn stretch(time: u64) -> (u64, u32) {
    let fraction = time & ((1 << SECOND_SHIFT) - 1);
    (time >> SECOND_SHIFT, (fraction * STRETCH) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_adds_up_what_went_by_and_never_goes_back() {
        let start = now();
        advance(Source::Caller, 2 * LATE);
        assert_eq!(now(), start, "the first reading only sets the mark");
        advance(Source::Caller, 2 * LATE + 500);
        assert_eq!(now(), start + 500);
        advance(Source::Caller, 2 * LATE + 100);
        advance(Source::Caller, 2 * LATE + 500);
        assert_eq!(now(), start + 500, "a late reading makes no time go by");
        advance(Source::Caller, 100);
        assert_eq!(now(), start + 500, "a clock that was set back");
        advance(Source::Caller, 160);
        assert_eq!(now(), start + 560, "goes on at once");
        advance(Source::Wasi, u64::MAX);
        assert_eq!(now(), start + 560, "sources are not compared");
        advance(Source::Caller, u64::MAX);
        advance(Source::Caller, 0);
        advance(Source::Caller, u64::MAX);
        assert_eq!(now(), NEVER - 1, "and it ends before never");
    }

    #[test]
    fn what_comes_after_being_ahead_is_not_before_it() {
        // In wasm, time goes on from test to test.
        STATE.set(State::START);
        let start = now();
        for count in 1..=3 * STRETCH {
            let ahead = with_moka_ahead(moka_time);
            assert!(moka_time() < ahead);
            catch_up_with_moka();
            assert_eq!(moka_time(), ahead);
            assert_eq!(now(), start + count / STRETCH);
        }
    }

    #[test]
    fn the_stretched_time_keeps_the_order() {
        let mut last = 0;
        for time in [0, 1, 2, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, HORIZON - 1, HORIZON] {
            let (seconds, nanos) = stretch(time);
            assert!(nanos < 1_000_000_000 - 1);
            let nanos = seconds * 1_000_000_000 + u64::from(nanos);
            assert!(time == 0 || nanos >= last + STRETCH);
            last = nanos;
        }
    }
}
