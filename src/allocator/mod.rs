//! The guest's allocator. What is small lies in slots of its size, side by side in pages, with no header of its own: an
//! entry is seven such pieces, and libc's allocator, which serves everything else, would add up to 15 bytes to each.
//!
//! A page that holds nothing any more can serve any size: some wait for that, in proportion to those in use, as libc's
//! allocator finds no room for an aligned page in the gap that a single one leaves; the others go back to it, and when it
//! has no memory left, all of them do, as when [`trim`](Slots::trim) is called. Slots that were given back lately keep their
//! pages from that, until [`tidy`](Slots::tidy) is called or memory is short.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

mod magazines;
mod pages;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

use magazines::Magazines;
use pages::Pages;

use crate::memory::linear_memory;

/// The largest slot, in bytes.
const LARGEST: usize = 128;

/// All slots but the odd ones are a multiple of this many bytes, and aligned to it.
const GRAIN: usize = 8;

/// A class of its own for what takes a grain and a half, as moka's node of its access order does: 4 bytes of each entry are
/// saved. Where pointers have 8 bytes there is no such thing.
const ODD: usize = LARGEST / GRAIN;
const ODD_SIZE: usize = GRAIN + GRAIN / 2;

const CLASSES: usize = ODD + 1;

/// Bytes of a slot of this class.
const fn slot_size(class: usize) -> usize {
    if class == ODD { ODD_SIZE } else { (class + 1) * GRAIN }
}

/// A slot that is free, in a list.
struct Free {
    next: *mut Free,
}

/// A piece of memory that is taken for a moment, in a list.
struct Taken {
    next: *mut Taken,
    layout: Layout,
}

/// The smallest piece that [`State::grow`] takes, in bytes: no page of linear memory is left to be had then.
const LEAST_GROWTH: usize = 32 << 10;

/// Slots over another allocator, for one thread.
pub(crate) struct Slots<A> {
    base: A,
    state: UnsafeCell<State>,
}

struct State {
    magazines: Magazines,
    pages: Pages,
    /// Bytes that came from the base for what is not small, ever.
    large: u64,
    /// Bytes of linear memory when no more were to be had.
    grown: Option<u64>,
}

/// The class of a layout, if it is small.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    if layout.size() == ODD_SIZE && layout.align() <= GRAIN / 2 && align_of::<Free>() <= GRAIN / 2 {
        return Some(ODD);
    }
    (layout.size() <= LARGEST && layout.align() <= GRAIN).then(|| layout.size().saturating_sub(1) / GRAIN)
}

impl State {
    /// A slot of this class, or of a larger one if there is no memory for another page; null if there is none either.
    #[inline]
    fn take(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut Free {
        let slot = self.magazines.take(class);
        if slot.is_null() { self.take_elsewhere(class, base) } else { slot }
    }

    #[inline(never)]
    fn take_elsewhere(&mut self, class: usize, base: &impl GlobalAlloc) -> *mut Free {
        let mut slot = self.magazines.reload(class);
        if slot.is_null() {
            slot = self.pages.take(class, base);
        }
        if slot.is_null() {
            self.tidy(base);
            slot = self.pages.take(class, base);
        }
        if slot.is_null() { self.pages.take_any(class) } else { slot }
    }

    /// # Safety
    /// The slot came from [`Self::take`] with this class and the same base, and is used no more.
    #[inline]
    unsafe fn give_back(&mut self, class: usize, slot: *mut Free, base: &impl GlobalAlloc) {
        if self.magazines.is_full(class) {
            self.unload(class, base);
        }
        // SAFETY: the caller's promise.
        unsafe { self.magazines.give_back(class, slot) };
    }

    #[inline(never)]
    fn unload(&mut self, class: usize, base: &impl GlobalAlloc) {
        let Self { magazines, pages, .. } = self;
        // SAFETY: what is in a magazine came from a page, and is in nobody's hands.
        magazines.unload(class, |slot| unsafe { pages.give_back(slot, base) });
    }

    /// Gives the slots in the magazines back to their pages; whether there were any.
    #[cold]
    fn tidy(&mut self, base: &impl GlobalAlloc) -> bool {
        let Self { magazines, pages, .. } = self;
        // SAFETY: as above.
        magazines.empty(|slot| unsafe { pages.give_back(slot, base) })
    }

    /// Gives all pages that hold nothing back to the base; whether there were any.
    #[cold]
    #[inline(never)]
    fn trim(&mut self, base: &impl GlobalAlloc) -> bool {
        self.tidy(base);
        self.pages.trim(base)
    }

    /// Has the base take all the linear memory that it may have; whether it took any. libc's allocator, once it was refused
    /// some, asks for a whole piece at the end of its memory, though less would do beside what is free there: when it is
    /// full, in small pieces, it gets what is left, and all of it is one piece again where it is given back.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, size: usize, base: &impl GlobalAlloc) -> bool {
        let before = linear_memory();
        if self.grown == Some(before) {
            return false;
        }
        let mut taken = ptr::null_mut::<Taken>();
        let mut size = size / 2;
        while size >= LEAST_GROWTH {
            while let Ok(layout) = Layout::from_size_align(size, align_of::<Taken>()) {
                // SAFETY: the layout is not empty, and large enough for what is written there.
                let piece = unsafe { base.alloc(layout) }.cast::<Taken>();
                if piece.is_null() {
                    break;
                }
                unsafe { piece.write(Taken { next: taken, layout }) };
                taken = piece;
            }
            size /= 2;
        }
        while !taken.is_null() {
            // SAFETY: it was written above, and came from the base with this layout.
            unsafe {
                let Taken { next, layout } = taken.read();
                base.dealloc(taken.cast(), layout);
                taken = next;
            }
        }
        self.grown = Some(linear_memory());
        self.grown != Some(before)
    }
}

impl<A: GlobalAlloc> Slots<A> {
    pub(crate) const fn new(base: A) -> Self {
        Self {
            base,
            state: UnsafeCell::new(State { magazines: Magazines::new(), pages: Pages::new(), large: 0, grown: None }),
        }
    }

    #[expect(clippy::mut_from_ref, reason = "one thread uses these slots, and nobody calls back meanwhile")]
    #[inline]
    fn state(&self) -> &mut State {
        // SAFETY: no two such references are alive at once.
        unsafe { &mut *self.state.get() }
    }

    /// Gives the slots that were given back lately back to their pages, so that those can go back to the base.
    pub(crate) fn tidy(&self) {
        self.state().tidy(&self.base);
    }

    /// Gives all pages that hold nothing back to the base.
    pub(crate) fn trim(&self) {
        self.state().trim(&self.base);
    }

    /// Does not count what `work` takes from the base.
    fn uncounted<T>(&self, work: impl FnOnce() -> T) -> T {
        let State { pages: Pages { taken, .. }, large, .. } = self.state();
        let (before, large_before) = (*taken, *large);
        let result = work();
        let state = self.state();
        (state.pages.taken, state.large) = (before, large_before);
        result
    }

    /// Bytes that came from the base, ever.
    fn taken(&self) -> u64 {
        let state = self.state();
        state.pages.taken + state.large
    }

    #[inline]
    fn take(&self, class: usize) -> *mut u8 {
        self.state().take(class, &self.base).cast()
    }

    /// Asks the base for so many bytes, and once more when all pages that hold nothing are free.
    fn large(&self, size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
        let state = self.state();
        state.large += size as u64;
        let memory = ask();
        if !memory.is_null() {
            return memory;
        }
        if state.trim(&self.base) {
            let memory = ask();
            if !memory.is_null() {
                return memory;
            }
        }
        if state.grow(size, &self.base) { ask() } else { memory }
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
            // SAFETY: it came from `take`, for the same layout.
            Some(class) => unsafe { self.state().give_back(class, memory.cast(), &self.base) },
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

    /// Has pages that hold nothing go back to libc's allocator, but for those that wait.
    pub(crate) fn tidy() {
        ALLOCATOR.0.tidy();
    }

    /// Has all pages that hold nothing go back to libc's allocator.
    pub(crate) fn trim() {
        ALLOCATOR.0.trim();
    }

    /// Does not count what `work` takes, as it gives all of it back.
    pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
        ALLOCATOR.0.uncounted(work)
    }
}

#[cfg(all(target_family = "wasm", feature = "guest"))]
pub(crate) use global::{taken, tidy, trim, uncounted};

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::Cell;

    use super::pages::{ASKED, PAGE, WAITING};
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
            slots.tidy();
            let left = slots.base.handed_out.get() / ASKED;
            assert!(left <= CLASSES + WAITING + CLASSES / 8, "{left} pages are left of nothing");
            slots.trim();
            assert_eq!(slots.base.handed_out.get(), 0);
        }
    }

    #[test]
    fn slots_have_no_headers() {
        let odd = if size_of::<usize>() == 4 { 12 } else { 16 };
        for (size, alignment, slot) in [(40, 8, 40), (33, 1, 40), (12, 4, odd), (12, 8, 16), (16, 4, 16), (1, 1, 8)] {
            let slots = Slots::new(Limited::new(usize::MAX));
            let layout = Layout::from_size_align(size, alignment).unwrap();
            let pieces: Vec<_> = (0..10_000).map(|_| unsafe { slots.alloc(layout) }).collect();
            let taken = slots.base.handed_out.get();
            assert!((10_000 * slot..10_000 * slot + 10_000).contains(&taken), "{layout:?}: {taken}");
            assert!(pieces.iter().all(|memory| memory.addr().is_multiple_of(alignment)), "{layout:?}");
            pieces.into_iter().for_each(|memory| unsafe { slots.dealloc(memory, layout) });
        }
    }

    #[test]
    fn what_was_given_back_last_is_taken_first() {
        let slots = Slots::new(Limited::new(usize::MAX));
        let layout = Layout::from_size_align(40, 8).unwrap();
        let pieces: Vec<_> = (0..1000).map(|_| unsafe { slots.alloc(layout) }).collect();
        let mut some: Vec<_> = pieces.iter().copied().step_by(20).collect();
        for _ in 0..3 {
            some.iter().for_each(|&memory| unsafe { slots.dealloc(memory, layout) });
            some.reverse();
            assert!(some.iter().all(|&memory| memory == unsafe { slots.alloc(layout) }));
        }
        slots.tidy();
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
