//! Pages of slots: each of slots of one size, side by side, with no header of their own.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

use super::{CLASSES, Free, GRAIN, ODD, ODD_SIZE, slot_size};

/// Bytes of a page, and its alignment: a slot's address tells its page's.
pub(super) const PAGE: usize = 4096;

/// What a page is asked for: with its own header of 8 bytes, libc's allocator then lays pages end to end.
pub(super) const ASKED: usize = PAGE - 8;

/// What stands at the beginning of a page.
struct Page {
    /// Slots that were given back.
    free: *mut Free,
    /// Neighbours in the list of the pages of this class that have a free slot.
    next: *mut Page,
    previous: *mut Page,
    /// How many slots are in use, or in magazines.
    used: u16,
    /// Where the first slot begins that was never used, in bytes.
    fresh: u16,
    /// That of its slots.
    class: u8,
}

/// How many pages may wait however few are in use.
pub(super) const WAITING: usize = 8;

const FIRST: usize = size_of::<Page>().next_multiple_of(GRAIN);

const _: () = assert!(ASKED <= u16::MAX as usize && CLASSES <= u8::MAX as usize);

impl Page {
    fn is_full(&self) -> bool {
        self.free.is_null() && usize::from(self.fresh) + slot_size(self.class.into()) > ASKED
    }
}

/// All pages, by the class of their slots.
pub(super) struct Pages {
    /// By class, a list of the pages that have a free slot: one that holds nothing, or any number that do.
    open: [*mut Page; CLASSES],
    /// A list, by `next` alone, of pages that hold nothing.
    waiting: *mut Page,
    waiting_count: usize,
    /// Pages that do not wait.
    in_use: usize,
    /// Bytes that came from the base for pages, ever.
    pub(super) taken: u64,
}

const PAGE_LAYOUT: Layout = match Layout::from_size_align(ASKED, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

impl Pages {
    pub(super) const fn new() -> Self {
        let open = [ptr::null_mut(); CLASSES];
        Self { open, waiting: ptr::null_mut(), waiting_count: 0, in_use: 0, taken: 0 }
    }

    /// A slot of this class; null if all are in use and there is no memory for another page.
    pub(super) fn take(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut Free {
        let mut page = self.open[class];
        if page.is_null() {
            page = self.page(class, base);
        }
        self.take_from(page)
    }

    /// A slot of this class or of a larger one, of the pages that there are; null if all are in use.
    #[cold]
    pub(super) fn take_any(&mut self, class: usize) -> *mut Free {
        let from = if class == ODD { ODD_SIZE / GRAIN } else { class };
        let larger = self.open[from..ODD].iter().copied().find(|page| !page.is_null());
        self.take_from(larger.unwrap_or_default())
    }

    /// A slot of a page that is in a list; null if there is none.
    fn take_from(&mut self, page: *mut Page) -> *mut Free {
        if page.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: pages in the list are alive and have a free slot. Slots that were given back are in nobody's hands and
        // large enough for a pointer; a fresh one ends within the page.
        unsafe {
            let mut slot = (*page).free;
            if slot.is_null() {
                let fresh = (*page).fresh;
                (*page).fresh = fresh + slot_size((*page).class.into()) as u16;
                slot = page.cast::<u8>().add(fresh.into()).cast();
            } else {
                (*page).free = (*slot).next;
            }
            (*page).used += 1;
            if (*page).is_full() {
                self.unlink(page);
            }
            slot
        }
    }

    /// Gives a slot back.
    ///
    /// # Safety
    /// It came from [`Self::take`] with the same base, or from [`Self::take_any`], and is in nobody's hands.
    pub(super) unsafe fn give_back(&mut self, slot: *mut Free, base: &impl GlobalAlloc) {
        let page = slot.map_addr(|address| address & !(PAGE - 1)).cast::<Page>();
        // SAFETY: the page is alive as long as one of its slots is in use, and aligned to its size.
        unsafe {
            let was_full = (*page).is_full();
            (*slot).next = (*page).free;
            (*page).free = slot;
            (*page).used -= 1;
            if was_full {
                self.link(page);
                let next = (*page).next;
                if !next.is_null() && (*next).used == 0 {
                    self.unlink(next);
                    self.let_go(next, base);
                }
            } else if (*page).used == 0 && !((*page).next.is_null() && (*page).previous.is_null()) {
                // Not the only one in its list, which would soon be asked for again.
                self.unlink(page);
                self.let_go(page, base);
            }
        }
    }

    /// A page of this class that holds nothing, in its list; null if there is no memory.
    #[cold]
    fn page(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut Page {
        let mut page = self.waiting;
        // SAFETY: pages that wait are alive. The layout is not empty; a new page is written before it is read.
        unsafe {
            if page.is_null() {
                page = base.alloc(PAGE_LAYOUT).cast();
                if page.is_null() {
                    return page;
                }
                self.taken += ASKED as u64;
            } else {
                self.waiting = (*page).next;
                self.waiting_count -= 1;
            }
            self.in_use += 1;
            page.write(Page {
                free: ptr::null_mut(),
                next: ptr::null_mut(),
                previous: ptr::null_mut(),
                used: 0,
                fresh: FIRST as u16,
                class: class as u8,
            });
            self.link(page);
        }
        page
    }

    /// Has a page wait that is in no list and holds nothing.
    #[cold]
    unsafe fn let_go(&mut self, page: *mut Page, base: &impl GlobalAlloc) {
        // SAFETY: the page is alive.
        unsafe { (*page).next = self.waiting };
        self.waiting = page;
        self.waiting_count += 1;
        self.in_use -= 1;
        // One more than came, so that fewer wait where fewer are in use.
        for _ in 0..2 {
            if self.waiting_count > WAITING + self.in_use / 8 {
                self.free_one(base);
            }
        }
    }

    /// Gives a page that waits back to libc's allocator; whether there was one.
    pub(super) fn free_one(&mut self, base: &impl GlobalAlloc) -> bool {
        let page = self.waiting;
        if page.is_null() {
            return false;
        }
        // SAFETY: pages that wait are alive, hold nothing and came from there.
        unsafe {
            self.waiting = (*page).next;
            base.dealloc(page.cast(), PAGE_LAYOUT);
        }
        self.waiting_count -= 1;
        true
    }

    /// Gives all pages that hold nothing back to the base, the only ones of their class too; whether there were any.
    #[cold]
    pub(super) fn trim(&mut self, base: &impl GlobalAlloc) -> bool {
        for page in self.open {
            // SAFETY: pages in the list are alive. One that holds nothing is the only one in its list.
            unsafe {
                if !page.is_null() && (*page).used == 0 {
                    self.unlink(page);
                    self.let_go(page, base);
                }
            }
        }
        let any = !self.waiting.is_null();
        while self.free_one(base) {}
        any
    }

    /// Takes a page out of its list.
    unsafe fn unlink(&mut self, page: *mut Page) {
        // SAFETY: neighbours in the list are alive, and other pages than this one.
        unsafe {
            let (next, previous) = ((*page).next, (*page).previous);
            if previous.is_null() {
                self.open[usize::from((*page).class)] = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            (*page).next = ptr::null_mut();
            (*page).previous = ptr::null_mut();
        }
    }

    /// Puts a page that is in no list at the beginning of one.
    unsafe fn link(&mut self, page: *mut Page) {
        // SAFETY: the page is alive; so are those in the list, which are other pages than this one.
        unsafe {
            let head = &mut self.open[usize::from((*page).class)];
            let next = *head;
            *head = page;
            (*page).next = next;
            if !next.is_null() {
                (*next).previous = page;
            }
        }
    }
}
