//! The guest's allocator. What is small lies in slots of its size, side by side in pages, with no header of its own: an
//! entry is seven such pieces, and libc's allocator, which serves everything else, would add up to 15 bytes to each.
//!
//! A page that holds nothing any more can serve any size: some wait for that, in proportion to those in use, as libc's
//! allocator finds no room for an aligned page in the gap that a single one leaves; the others go back to it, and when it
//! has no memory left, all of them do.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

/// Bytes of a page, and its alignment: a slot's address tells its page's.
const PAGE: usize = 4096;

/// What a page is asked for: with its own header of 8 bytes, libc's allocator then lays pages end to end.
const ASKED: usize = PAGE - 8;

/// The largest slot, in bytes.
const LARGEST: usize = 128;

/// All slots are a multiple of this many bytes, and aligned to it.
const GRAIN: usize = 8;

const CLASSES: usize = LARGEST / GRAIN;

/// A slot that is free, in the list of its page.
struct Free {
    next: *mut Free,
}

/// What stands at the beginning of a page.
struct Page {
    /// Slots that were given back.
    free: *mut Free,
    /// Neighbours in the list of the pages of this class that have a free slot.
    next: *mut Page,
    previous: *mut Page,
    /// How many slots are in use.
    used: u16,
    /// Where the first slot begins that was never used, in grains.
    fresh: u16,
    /// That of its slots.
    class: u8,
}

/// How many pages may wait however few are in use.
const WAITING: usize = 8;

const FIRST: usize = size_of::<Page>().next_multiple_of(GRAIN);

const _: () = assert!(ASKED / GRAIN <= u16::MAX as usize && CLASSES <= u8::MAX as usize);

impl Page {
    fn is_full(&self) -> bool {
        self.free.is_null() && (usize::from(self.fresh) + usize::from(self.class) + 1) * GRAIN > ASKED
    }
}

/// Slots over another allocator, for one thread.
pub(crate) struct Slots<A> {
    base: A,
    pages: UnsafeCell<Pages>,
}

struct Pages {
    /// By class, a list of the pages that have a free slot.
    open: [*mut Page; CLASSES],
    /// A list, by `next` alone, of pages that hold nothing.
    waiting: *mut Page,
    waiting_count: usize,
    /// Pages that do not wait.
    in_use: usize,
    /// Bytes that came from the base, ever, for pages and for what is not small.
    taken: u64,
}

/// The class of a layout, if it is small.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= GRAIN).then(|| layout.size().saturating_sub(1) / GRAIN)
}

const PAGE_LAYOUT: Layout = match Layout::from_size_align(ASKED, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

impl Pages {
    /// A slot of this class, or of a larger one if there is no memory for another page; null if there is none either.
    #[inline]
    fn take(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut u8 {
        let mut page = self.open[class];
        if page.is_null() {
            page = self.page(class, base);
            if page.is_null() {
                return ptr::null_mut();
            }
        }
        // SAFETY: pages in the list are alive and have a free slot. Slots that were given back are in nobody's hands and
        // large enough for a pointer; a fresh one ends within the page.
        unsafe {
            let slot = (*page).free;
            let slot = if slot.is_null() {
                let fresh = (*page).fresh;
                (*page).fresh = fresh + u16::from((*page).class) + 1;
                page.cast::<u8>().add(usize::from(fresh) * GRAIN)
            } else {
                (*page).free = (*slot).next;
                slot.cast()
            };
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
    /// It came from [`Self::take`] with the same base, and is used no more.
    #[inline]
    unsafe fn give_back(&mut self, slot: *mut u8, base: &impl GlobalAlloc) {
        let page = slot.map_addr(|address| address & !(PAGE - 1)).cast::<Page>();
        let slot = slot.cast::<Free>();
        // SAFETY: the page is alive as long as one of its slots is in use, and aligned to its size.
        unsafe {
            let was_full = (*page).is_full();
            (*slot).next = (*page).free;
            (*page).free = slot;
            (*page).used -= 1;
            if was_full {
                self.link(page);
            } else if (*page).used == 0 && !((*page).next.is_null() && (*page).previous.is_null()) {
                // Not the last one of its class, which would soon be asked for again.
                self.unlink(page);
                self.let_go(page, base);
            }
        }
    }

    /// A page that has a free slot for this class, in the list of its own; null if there is no memory.
    #[cold]
    fn page(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut Page {
        let mut page = self.waiting;
        // SAFETY: pages that wait are alive. The layout is not empty; a new page is written before it is read.
        unsafe {
            if page.is_null() {
                page = base.alloc(PAGE_LAYOUT).cast();
                if page.is_null() {
                    return self.open[class..].iter().copied().find(|page| !page.is_null()).unwrap_or(page);
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
                fresh: (FIRST / GRAIN) as u16,
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
    fn free_one(&mut self, base: &impl GlobalAlloc) -> bool {
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

impl<A: GlobalAlloc> Slots<A> {
    pub(crate) const fn new(base: A) -> Self {
        let none = ptr::null_mut();
        let pages = Pages { open: [none; CLASSES], waiting: none, waiting_count: 0, in_use: 0, taken: 0 };
        Self { base, pages: UnsafeCell::new(pages) }
    }

    /// Does not count what `work` takes from the base.
    fn uncounted<T>(&self, work: impl FnOnce() -> T) -> T {
        let taken = self.taken();
        let result = work();
        // SAFETY: as in `take`.
        unsafe { (*self.pages.get()).taken = taken };
        result
    }

    /// Bytes that came from the base, ever.
    fn taken(&self) -> u64 {
        // SAFETY: as in `take`.
        unsafe { (*self.pages.get()).taken }
    }

    #[inline]
    fn take(&self, class: usize) -> *mut u8 {
        // SAFETY: one thread uses these slots, and nobody calls back meanwhile.
        unsafe { &mut *self.pages.get() }.take(class, &self.base)
    }

    /// Asks the base for so many bytes, and once more when the pages that wait are free.
    fn large(&self, size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
        // SAFETY: as in `take`.
        let pages = unsafe { &mut *self.pages.get() };
        pages.taken += size as u64;
        let memory = ask();
        if !memory.is_null() {
            return memory;
        }
        if !pages.free_one(&self.base) {
            return memory;
        }
        while pages.free_one(&self.base) {}
        ask()
    }
}

// SAFETY: what is small, which the layout alone decides, comes from `take` and goes to `give_back`, and everything else
// from and to the base. The caller keeps the rules of this trait, and is one thread.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Slots<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.take(class),
            None => self.large(layout.size(), || unsafe { self.base.alloc(layout) }),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: as in `take`.
            Some(_) => unsafe { (*self.pages.get()).give_back(memory, &self.base) },
            None => unsafe { self.base.dealloc(memory, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => {
                let slot = self.take(class);
                if !slot.is_null() {
                    unsafe { slot.write_bytes(0, layout.size()) };
                }
                slot
            }
            None => self.large(layout.size(), || unsafe { self.base.alloc_zeroed(layout) }),
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the size does not overflow when it is rounded up to the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(new)) {
            (None, None) => self.large(size, || unsafe { self.base.realloc(memory, layout, size) }),
            (old_class, new_class) if old_class == new_class => memory,
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(memory, layout.size().min(size));
                    self.dealloc(memory, layout);
                }
                moved
            },
        }
    }
}

/// What all of the guest's Rust code allocates with.
#[cfg(all(target_family = "wasm", feature = "guest"))]
mod global {
    use super::{GlobalAlloc, Layout, Slots};
    use std::alloc::System;

    struct OneThread(Slots<System>);

    const _: () = assert!(!cfg!(target_feature = "atomics"), "the allocator is for guests of one thread");

    // SAFETY: without the atomics feature, wasm has one thread.
    unsafe impl Sync for OneThread {}

    // SAFETY: as that of what it holds.
    unsafe impl GlobalAlloc for OneThread {
        #[inline]
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            unsafe { self.0.alloc(layout) }
        }

        #[inline]
        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            unsafe { self.0.dealloc(memory, layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            unsafe { self.0.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            unsafe { self.0.realloc(memory, layout, size) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: OneThread = OneThread(Slots::new(System));

    /// Bytes that came from libc's allocator, ever, whatever was given back since.
    #[inline]
    pub(crate) fn taken() -> u64 {
        ALLOCATOR.0.taken()
    }

    /// Does not count what `work` takes, as it gives all of it back.
    pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
        ALLOCATOR.0.uncounted(work)
    }
}

#[cfg(all(target_family = "wasm", feature = "guest"))]
pub(crate) use global::{taken, uncounted};

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::Cell;

    use super::*;

    /// The system's allocator, with a limit on the bytes that it hands out.
    struct Limited {
        left: Cell<usize>,
        handed_out: Cell<usize>,
    }

    impl Limited {
        fn new(left: usize) -> Self {
            Self { left: Cell::new(left), handed_out: Cell::new(0) }
        }
    }

    // SAFETY: as the system's, which does all but the counting.
    unsafe impl GlobalAlloc for Limited {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let Some(left) = self.left.get().checked_sub(layout.size()) else { return ptr::null_mut() };
            self.left.set(left);
            self.handed_out.set(self.handed_out.get() + layout.size());
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            self.left.set(self.left.get() + layout.size());
            self.handed_out.set(self.handed_out.get() - layout.size());
            unsafe { System.dealloc(memory, layout) }
        }
    }

    /// Memory in use, filled with a mark of its own.
    struct Piece {
        memory: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Piece {
        fn fill(&self) {
            unsafe { self.memory.write_bytes(self.mark, self.layout.size()) };
        }

        fn bytes(&self) -> &[u8] {
            unsafe { std::slice::from_raw_parts(self.memory, self.layout.size()) }
        }

        fn check(&self) {
            assert!(self.memory.addr().is_multiple_of(self.layout.align()), "{:?}", self.layout);
            assert!(self.bytes().iter().all(|byte| *byte == self.mark), "{:?} was overwritten", self.layout);
        }
    }

    struct Numbers(u64);

    impl Numbers {
        /// An xorshift generator: Marsaglia, "Xorshift RNGs", 2003.
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    fn layout(numbers: &mut Numbers) -> Layout {
        let bound = [24, LARGEST + 2, 5000][numbers.below(3)];
        let size = 1 + numbers.below(bound);
        Layout::from_size_align(size, [1, 2, 4, 8, 8, 8, 16, 64][numbers.below(8)]).unwrap()
    }

    fn free(slots: &Slots<Limited>, piece: &Piece) {
        piece.check();
        unsafe { slots.dealloc(piece.memory, piece.layout) };
    }

    #[test]
    fn no_two_pieces_overlap_whatever_comes_and_goes() {
        for seed in 1..=20 {
            let mut numbers = Numbers(seed);
            // Often refused, as each seed has another limit.
            let slots = Slots::new(Limited::new(seed as usize * 40_000));
            let mut pieces: Vec<Piece> = Vec::new();
            for step in 0..20_000 {
                let mark = step as u8;
                let growing = step / 2000 % 2 == 0;
                match numbers.below(if growing { 4 } else { 8 }) {
                    0 | 1 => {
                        let layout = layout(&mut numbers);
                        let memory = unsafe { slots.alloc(layout) };
                        if !memory.is_null() {
                            let piece = Piece { memory, layout, mark };
                            piece.fill();
                            pieces.push(piece);
                        }
                    }
                    2 => {
                        let layout = layout(&mut numbers);
                        let memory = unsafe { slots.alloc_zeroed(layout) };
                        if !memory.is_null() {
                            Piece { memory, layout, mark: 0 }.check();
                            let piece = Piece { memory, layout, mark };
                            piece.fill();
                            pieces.push(piece);
                        }
                    }
                    3 if !pieces.is_empty() => {
                        let at = numbers.below(pieces.len());
                        let piece = &mut pieces[at];
                        piece.check();
                        let size = 1 + numbers.below(3 * LARGEST);
                        let memory = unsafe { slots.realloc(piece.memory, piece.layout, size) };
                        if !memory.is_null() {
                            let kept = piece.layout.size().min(size);
                            piece.memory = memory;
                            piece.layout = Layout::from_size_align(size, piece.layout.align()).unwrap();
                            assert!(piece.bytes()[..kept].iter().all(|byte| *byte == piece.mark));
                            piece.fill();
                        }
                    }
                    _ if !pieces.is_empty() => {
                        let piece = pieces.swap_remove(numbers.below(pieces.len()));
                        free(&slots, &piece);
                    }
                    _ => {}
                }
            }
            pieces.iter().for_each(|piece| free(&slots, piece));
            let left = slots.base.handed_out.get() / ASKED;
            assert!(left <= CLASSES + WAITING + CLASSES / 8, "{left} pages are left of nothing");
        }
    }

    #[test]
    fn slots_have_no_headers() {
        let slots = Slots::new(Limited::new(usize::MAX));
        let layout = Layout::from_size_align(40, 8).unwrap();
        let pieces: Vec<_> = (0..10_000).map(|_| unsafe { slots.alloc(layout) }).collect();
        assert!(slots.base.handed_out.get() < 10_000 * 41);
        pieces.into_iter().for_each(|memory| unsafe { slots.dealloc(memory, layout) });
    }

    #[test]
    fn what_comes_from_the_base_is_counted() {
        let slots = Slots::new(Limited::new(64 * PAGE));
        let (small, large) = (Layout::from_size_align(8, 8).unwrap(), Layout::from_size_align(1000, 8).unwrap());
        let pieces: Vec<_> = (0..100).map(|_| unsafe { slots.alloc(small) }).collect();
        assert_eq!(slots.taken(), ASKED as u64, "a page serves many");
        let piece = unsafe { slots.alloc(large) };
        let piece = unsafe { slots.realloc(piece, large, 2000) };
        assert_eq!(slots.taken(), (ASKED + 1000 + 2000) as u64);
        unsafe { slots.dealloc(piece, Layout::from_size_align(2000, 8).unwrap()) };
        slots.uncounted(|| unsafe { slots.dealloc(slots.alloc(large), large) });
        pieces.into_iter().for_each(|memory| unsafe { slots.dealloc(memory, small) });
        assert_eq!(slots.taken(), (ASKED + 1000 + 2000) as u64, "what is given back stays counted");
    }

    #[test]
    fn a_page_serves_another_size_when_memory_is_short() {
        let slots = Slots::new(Limited::new(64 * PAGE));
        let fill = |layout: Layout| -> Vec<_> {
            std::iter::repeat_with(|| unsafe { slots.alloc(layout) }).take_while(|memory| !memory.is_null()).collect()
        };
        for size in [8, 128, 40, 3 * PAGE, 16, 20 * PAGE] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let pieces = fill(layout);
            assert!(pieces.len() * size > 40 * PAGE, "{} of {size} bytes", pieces.len());
            pieces.into_iter().for_each(|memory| unsafe { slots.dealloc(memory, layout) });
        }
    }
}
