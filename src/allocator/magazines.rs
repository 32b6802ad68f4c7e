//! Slots that were given back lately, to be taken again without a look at their pages: Bonwick and Adams, "Magazines and
//! Vmem", 2001.

use std::mem::{swap, take};
use std::ptr;

use super::{CLASSES, Free};

/// How many slots a magazine takes. moka works off 64 writes at a time, and then gives back what they replaced.
const ROUNDS: usize = 32;

/// Free slots of one class, of whichever pages. To those they count as in use.
struct Magazine {
    first: *mut Free,
    count: usize,
}

impl Default for Magazine {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Magazine {
    const EMPTY: Self = Self { first: ptr::null_mut(), count: 0 };

    /// The slot that was put in last; null if it is empty.
    #[inline]
    fn pop(&mut self) -> *mut Free {
        let slot = self.first;
        if !slot.is_null() {
            // SAFETY: it is alive and in nobody's hands, as who put it in promised.
            self.first = unsafe { (*slot).next };
            self.count -= 1;
        }
        slot
    }

    /// # Safety
    /// The slot is alive, and in nobody's hands.
    #[inline]
    unsafe fn push(&mut self, slot: *mut Free) {
        // SAFETY: it is large enough for a pointer.
        unsafe { (*slot).next = self.first };
        self.first = slot;
        self.count += 1;
    }
}

/// Two magazines of each class: whoever takes or gives back a few more than one holds, over and over, still sees no page.
pub(super) struct Magazines {
    /// Those that slots come from and go to.
    loaded: [Magazine; CLASSES],
    /// Those that were loaded before: full or empty.
    previous: [Magazine; CLASSES],
}

impl Magazines {
    pub(super) const fn new() -> Self {
        Self { loaded: [Magazine::EMPTY; CLASSES], previous: [Magazine::EMPTY; CLASSES] }
    }

    /// A slot of this class; null if there may be one in the previous magazine only: see [`Self::reload`].
    #[inline]
    pub(super) fn take(&mut self, class: usize) -> *mut Free {
        self.loaded[class].pop()
    }

    /// A slot of this class, where the loaded magazine is empty; null if both are.
    pub(super) fn reload(&mut self, class: usize) -> *mut Free {
        swap(&mut self.loaded[class], &mut self.previous[class]);
        self.loaded[class].pop()
    }

    /// Whether nothing can be given back before [`Self::unload`].
    #[inline]
    pub(super) fn is_full(&self, class: usize) -> bool {
        self.loaded[class].count == ROUNDS
    }

    /// # Safety
    /// The slot is of this class or of a larger one, alive, and in nobody's hands.
    #[inline]
    pub(super) unsafe fn give_back(&mut self, class: usize, slot: *mut Free) {
        // SAFETY: the caller's promise.
        unsafe { self.loaded[class].push(slot) };
    }

    /// Makes room in the loaded magazine, which is full: `discard` gets what was in the previous one.
    pub(super) fn unload(&mut self, class: usize, discard: impl FnMut(*mut Free)) {
        swap(&mut self.loaded[class], &mut self.previous[class]);
        empty(&mut self.loaded[class], discard);
    }

    /// `discard` gets all there is; whether there was anything.
    pub(super) fn empty(&mut self, mut discard: impl FnMut(*mut Free)) -> bool {
        let mut any = false;
        for magazine in self.loaded.iter_mut().chain(&mut self.previous) {
            any |= magazine.count > 0;
            empty(magazine, &mut discard);
        }
        any
    }
}

fn empty(magazine: &mut Magazine, mut discard: impl FnMut(*mut Free)) {
    let mut magazine = take(magazine);
    loop {
        let slot = magazine.pop();
        if slot.is_null() {
            return;
        }
        discard(slot);
    }
}
