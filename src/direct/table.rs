//! What the direct ABI's callers name by numbers: lanes, each a mailbox and the answer being read, and open caches.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::answer::{Error, Kept, LENGTH_LIMIT, Outcome, Reply};
use crate::memory::SetError;
use crate::{Cache, KeyCursor};

const CACHES: usize = 0xffff;
const LANES: usize = 256;
const CURSORS: usize = 1024;
/// A mailbox up to this size is kept for good.
const KEPT_MAILBOX: usize = 64 << 10;

thread_local! {
    static GUEST: RefCell<Guest> = const { RefCell::new(Guest::new()) };
}

/// Where the caller's bytes come in.
#[derive(Debug)]
pub(crate) struct Mailbox(Vec<u8>);

impl Mailbox {
    /// The address of at least `size` bytes, or 0.
    pub(crate) fn ensure(&mut self, size: usize) -> u32 {
        if size == 0 && self.0.len() > KEPT_MAILBOX {
            self.0 = Vec::new();
        }
        let size = size.max(4096);
        if self.0.len() < size {
            self.0 = Vec::new();
            if self.0.try_reserve_exact(size).is_err() {
                return 0;
            }
            self.0.resize(size, 0);
        }
        u32::try_from(self.0.as_ptr().addr()).unwrap_or(0)
    }

    fn read(&self, lengths: [usize; 2]) -> Result<(&[u8], &[u8]), Error> {
        let [first, second] = lengths;
        let bytes = first.checked_add(second).and_then(|end| self.0.get(..end));
        match bytes {
            Some(bytes) if first < LENGTH_LIMIT && second < LENGTH_LIMIT => Ok(bytes.split_at(first)),
            _ => Err(Error::malformed("the lengths run beyond the mailbox, or are 2^30 or more")),
        }
    }
}

/// One way in and out; what is under way on one is not disturbed by calls on another.
struct Lane {
    mailbox: Mailbox,
    /// Until the next call.
    kept: Kept,
    error: Cow<'static, str>,
}

impl Lane {
    const fn new() -> Self {
        Self { mailbox: Mailbox(Vec::new()), kept: Kept::NOTHING, error: Cow::Borrowed("") }
    }

    #[inline]
    fn reply(&mut self, outcome: impl Outcome, removals_wait: bool) -> u64 {
        self.kept.let_go();
        outcome.keep(&mut self.kept, removals_wait)
    }

    #[cold]
    fn fail(&mut self, error: Error, removals_wait: bool) -> u64 {
        let answer = error.encode(removals_wait);
        self.error = error.text;
        answer
    }
}

/// One open cache.
pub(crate) struct Slot {
    pub(crate) cache: Cache,
    pub(crate) cursors: BTreeMap<u32, KeyCursor>,
    last_cursor: u32,
}

impl Slot {
    pub(crate) fn open_cursor(&mut self) -> Result<u32, Error> {
        if self.cursors.len() >= CURSORS {
            return Err(Error::too_many("cursors", CURSORS));
        }
        if !self.cache.can_walk() {
            return Err(SetError::OutOfMemory.into());
        }
        loop {
            self.last_cursor = self.last_cursor.wrapping_add(1);
            if !self.cursors.contains_key(&self.last_cursor) {
                break;
            }
        }
        let keys = self.cache.keys();
        self.cursors.insert(self.last_cursor, keys);
        Ok(self.last_cursor)
    }
}

/// A place in the table; its generation tells a closed cache's handle from that of its successor.
struct Place {
    generation: u16,
    slot: Option<Slot>,
}

/// All of it.
pub(crate) struct Guest {
    lanes: Vec<Lane>,
    places: Vec<Place>,
}

impl Guest {
    const fn new() -> Self {
        Self { lanes: Vec::new(), places: Vec::new() }
    }

    fn lane(&mut self, lane: u32) -> &mut Lane {
        lane_of(&mut self.lanes, lane)
    }

    /// The address of at least `size` bytes, or 0.
    pub(crate) fn mailbox(&mut self, lane: u32, size: usize) -> u32 {
        let missing = (lane as usize + 1).saturating_sub(self.lanes.len());
        if lane as usize >= LANES || self.lanes.try_reserve(missing).is_err() {
            return 0;
        }
        self.lane(lane).mailbox.ensure(size)
    }

    /// Puts a new cache into a free place, and answers its handle.
    pub(crate) fn open(&mut self, lane: u32, config: usize, open: impl FnOnce(&[u8]) -> Result<Cache, Error>) -> u64 {
        let index = self.places.iter().position(|place| place.slot.is_none()).unwrap_or(self.places.len());
        let opened = self.lane(lane).mailbox.read([config, 0]).and_then(|(config, _)| {
            if index >= CACHES {
                return Err(Error::too_many("caches", CACHES));
            }
            open(config)
        });
        match opened {
            Ok(cache) => {
                if index == self.places.len() {
                    self.places.push(Place { generation: 0, slot: None });
                }
                let place = &mut self.places[index];
                place.slot = Some(Slot { cache, cursors: BTreeMap::new(), last_cursor: 0 });
                let handle = u32::from(place.generation) << 16 | u32::try_from(index + 1).unwrap_or(0);
                self.lane(lane).reply(Reply::Yes(handle), false)
            }
            Err(error) => self.lane(lane).fail(error, false),
        }
    }

    pub(crate) fn close(&mut self, lane: u32, handle: u32) -> u64 {
        match self.places.get_mut(index(handle)) {
            Some(place) if generation(handle) == place.generation && place.slot.is_some() => {
                place.slot = None;
                place.generation = place.generation.wrapping_add(1);
                self.lane(lane).reply(Reply::Yes(0), false)
            }
            _ => self.lane(lane).fail(Error::handle("cache", handle), false),
        }
    }

    #[cfg(feature = "fuzz")]
    pub(crate) fn write(&mut self, lane: u32, bytes: &[u8]) {
        if let Some(mailbox) = self.lane(lane).mailbox.0.get_mut(..bytes.len()) {
            mailbox.copy_from_slice(bytes);
        }
    }

    #[cfg(feature = "fuzz")]
    pub(crate) fn kept(&mut self, lane: u32) -> &Kept {
        &self.lane(lane).kept
    }

    pub(crate) fn error_text(&mut self, lane: u32) -> u64 {
        let lane = self.lane(lane);
        let text = match std::mem::take(&mut lane.error) {
            Cow::Borrowed(text) => Reply::Text(text),
            Cow::Owned(text) => Reply::Bytes(text.into_bytes()),
        };
        lane.reply(text, false)
    }
}

/// The lane of that number; the last there may be if the number is too high, so that every call has one.
#[inline]
fn lane_of(lanes: &mut Vec<Lane>, lane: u32) -> &mut Lane {
    let mut index = lane as usize;
    if index >= lanes.len() {
        index = make_lane(lanes, index);
    }
    &mut lanes[index]
}

#[cold]
#[inline(never)]
fn make_lane(lanes: &mut Vec<Lane>, index: usize) -> usize {
    let index = index.min(LANES - 1);
    lanes.resize_with(index + 1, Lane::new);
    index
}

fn index(handle: u32) -> usize {
    ((handle & 0xffff) as usize).wrapping_sub(1)
}

fn generation(handle: u32) -> u16 {
    (handle >> 16) as u16
}

pub(crate) fn with_guest<T>(work: impl FnOnce(&mut Guest) -> T) -> T {
    GUEST.with_borrow_mut(work)
}

/// Runs an operation of a cache with the bytes that the lane's mailbox holds for it, and keeps its answer there.
#[inline]
pub(crate) fn with_slot<T: Outcome>(
    lane: u32,
    handle: u32,
    lengths: [u32; 2],
    operation: impl FnOnce(&mut Slot, &[u8], &[u8]) -> Result<T, Error>,
) -> u64 {
    with_guest(|guest| {
        let Guest { lanes, places } = guest;
        let lane = lane_of(lanes, lane);
        // A value that nobody else has can be set anew where it lies.
        lane.kept.let_go();
        let slot = match places.get_mut(index(handle)) {
            Some(Place { generation: g, slot: Some(slot) }) if *g == generation(handle) => slot,
            _ => return lane.fail(Error::handle("cache", handle), false),
        };
        let result = lane
            .mailbox
            .read(lengths.map(|length| length as usize))
            .and_then(|(first, second)| operation(slot, first, second));
        let removals_wait = slot.cache.removals_wait();
        match result {
            Ok(outcome) => outcome.keep(&mut lane.kept, removals_wait),
            Err(error) => lane.fail(error, removals_wait),
        }
    })
}
