//! The functions of the direct ABI by number, with their bytes beside them: for the fuzzer, which runs natively, where
//! an address does not fit into an answer.

use super::table::with_guest;
use super::*;

type Arguments = [u64; 7];

macro_rules! functions {
    ($($name:literal $function:ident($($argument:ident: $kind:ty),*) $($now:ident)?;)*) => {
        /// Their names, without `moka_`.
        pub const FUNCTIONS: &[&str] = &[$($name),*];

        /// Calls a function; arguments are cut to the width that they have. `None` for one that answers no `i64`.
        #[expect(clippy::cast_possible_truncation, reason = "as a host's arguments are")]
        pub fn call(index: usize, lane: u32, arguments: Arguments, now: u64) -> (&'static str, Option<u64>) {
            let functions: &[fn(u32, Arguments, u64) -> Option<u64>] = &[$(|lane, arguments, now| {
                let [$($argument,)* ..] = arguments;
                $(let $argument = $argument as $kind;)*
                $(let $now = now;)?
                let _ = now;
                Some($function(lane, $($argument,)* $($now)?))
            }),*];
            let call = functions[index];
            (FUNCTIONS[index], call(lane, arguments, now))
        }
    };
}

functions! {
    "open" moka_open(config: u32) now;
    "close" moka_close(cache: u32);
    "error" moka_error();
    "get" moka_get(cache: u32, key: u32) now;
    "contains" moka_contains(cache: u32, key: u32) now;
    "set" moka_set(cache: u32, key: u32, value: u32, weight: u32, ttl: u64, tti: u64) now;
    "make_room" moka_make_room(cache: u32, size: u32) now;
    "get_or_insert" moka_get_or_insert(cache: u32, key: u32, value: u32, weight: u32, ttl: u64, tti: u64) now;
    "expire" moka_expire(cache: u32, key: u32, remaining: u64) now;
    "remaining" moka_remaining(cache: u32, key: u32) now;
    "remove" moka_remove(cache: u32, key: u32) now;
    "clear" moka_clear(cache: u32) now;
    "run_pending" moka_run_pending(cache: u32) now;
    "stats" moka_stats(cache: u32);
    "get_many" moka_get_many(cache: u32, request: u32) now;
    "set_many" moka_set_many(cache: u32, request: u32) now;
    "remove_many" moka_remove_many(cache: u32, request: u32) now;
    "keys" moka_keys(cache: u32) now;
    "keys_next" moka_keys_next(cache: u32, cursor: u32, limit: u32) now;
    "keys_close" moka_keys_close(cache: u32, cursor: u32);
    "drain" moka_drain(cache: u32, limit: u32);
    "lookup" moka_lookup(cache: u32, key: u32, life: u64) now;
    "fill" moka_fill(cache: u32, lease: u32, value: u32, weight: u32, ttl: u64, tti: u64) now;
    "release" moka_release(cache: u32, lease: u32);
}

/// Has the lane's mailbox hold these bytes, if there is such a lane.
pub fn write(lane: u32, bytes: &[u8]) {
    moka_mailbox(lane, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    with_guest(|guest| guest.write(lane, bytes));
}

/// The bytes that were answered last on a lane.
pub fn answered(lane: u32) -> Vec<u8> {
    with_guest(|guest| guest.kept(lane).bytes().to_vec())
}

/// The text of a lane's last error.
pub fn error(lane: u32) -> String {
    moka_error(lane);
    String::from_utf8(answered(lane)).unwrap_or_default()
}
