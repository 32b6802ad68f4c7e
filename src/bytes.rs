//! Bytes that are shared by counting, in one allocation with their length and perhaps a header, behind a pointer of one
//! word, and that their owner may overwrite where they lie. What the libraries have is immutable for good, or larger.

#![expect(unsafe_code, reason = "a slice whose length is known at run time, behind a pointer of one word")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::Deref;
use std::process::abort;
use std::ptr::{NonNull, drop_in_place};
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

/// All allocations are a multiple of this many bytes, as the slots of the guest's allocator are.
const GRAIN: usize = 8;

/// In the length of bytes that have a header.
const HEADED: u32 = 1 << 31;

#[repr(C, align(8))]
struct Head {
    owners: AtomicU32,
    length: AtomicU32,
}

/// Shared bytes, fewer than 2^31 of them, perhaps with a header; a clone is one more owner of the same ones. In one
/// allocation lie the head, the header if there is one, and the bytes.
#[derive(Debug)]
pub(crate) struct SharedBytes<H>(NonNull<Head>, PhantomData<H>);

// SAFETY: the owners are counted by an atomic number; what they share is `H` and bytes, which `overwrite` alone changes.
unsafe impl<H: Send + Sync> Send for SharedBytes<H> {}
// SAFETY: as above.
unsafe impl<H: Send + Sync> Sync for SharedBytes<H> {}

impl<H> SharedBytes<H> {
    const HEADER: usize = {
        assert!(align_of::<H>() <= align_of::<Head>(), "the header would not be aligned behind the head");
        size_of::<Head>()
    };
    const BEHIND_HEADER: usize = Self::HEADER + size_of::<H>();

    fn start(headed: bool) -> usize {
        if headed { Self::BEHIND_HEADER } else { Self::HEADER }
    }

    /// # Panics
    /// There are 2^31 bytes or more.
    pub(crate) fn new(header: Option<H>, bytes: &[u8]) -> Self {
        let mark = if header.is_some() { HEADED } else { 0 };
        let length = u32::try_from(bytes.len()).ok().filter(|length| length & HEADED == 0);
        let length = length.expect("fewer than 2^31 bytes");
        let start = Self::start(header.is_some());
        let layout = layout(start + bytes.len());
        // SAFETY: the layout is not empty. The memory holds the head, the header and then the bytes.
        unsafe {
            let memory = alloc(layout);
            let Some(head) = NonNull::new(memory.cast::<Head>()) else { handle_alloc_error(layout) };
            head.write(Head { owners: AtomicU32::new(1), length: AtomicU32::new(length | mark) });
            if let Some(header) = header {
                memory.add(Self::HEADER).cast::<H>().write(header);
            }
            memory.add(start).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Self(head, PhantomData)
        }
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: it lives as long as it has an owner.
        unsafe { self.0.as_ref() }
    }

    /// Where the bytes begin, counted from the head, and how many there are.
    #[inline]
    fn place(&self) -> (usize, usize) {
        let length = self.head().length.load(Relaxed);
        (Self::start(length & HEADED != 0), (length & !HEADED) as usize)
    }

    #[inline]
    fn at(&self, place: usize) -> *mut u8 {
        // SAFETY: all places are within the allocation.
        unsafe { self.0.cast::<u8>().add(place).as_ptr() }
    }

    #[inline]
    pub(crate) fn header(&self) -> Option<&H> {
        let headed = self.head().length.load(Relaxed) & HEADED != 0;
        // SAFETY: it was written there.
        headed.then(|| unsafe { &*self.at(Self::HEADER).cast::<H>() })
    }

    /// Whether an allocation for so many bytes is as large as this one, and nobody but so many owners has this one.
    pub(crate) fn can_become(&self, length: usize, owners: u32) -> bool {
        let (start, old) = self.place();
        self.head().owners.load(Acquire) == owners && room(start + old) == room(start + length)
    }

    /// Puts other bytes in the place of these.
    ///
    /// # Safety
    /// [`Self::can_become`] said so, and meanwhile nobody looks at the bytes of this or of another owner.
    pub(crate) unsafe fn overwrite(&self, bytes: &[u8]) {
        let (start, _) = self.place();
        let mark = self.head().length.load(Relaxed) & HEADED;
        // SAFETY: there is room for them. They lie elsewhere, as nobody can look at those that lie here.
        unsafe { self.at(start).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.head().length.store(bytes.len() as u32 | mark, Relaxed);
    }
}

/// What an allocation takes that holds so many bytes.
fn room(size: usize) -> usize {
    size.next_multiple_of(GRAIN)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(room(size), align_of::<Head>()).expect("fewer than 2^31 bytes")
}

impl<H> Deref for SharedBytes<H> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let (start, length) = self.place();
        // SAFETY: so many bytes were written there, and nobody changes them while they are looked at.
        unsafe { std::slice::from_raw_parts(self.at(start), length) }
    }
}

impl<H> Clone for SharedBytes<H> {
    #[inline]
    fn clone(&self) -> Self {
        if self.head().owners.fetch_add(1, Relaxed) >= u32::MAX / 2 {
            abort();
        }
        Self(self.0, PhantomData)
    }
}

impl<H> Drop for SharedBytes<H> {
    #[inline]
    fn drop(&mut self) {
        if self.head().owners.fetch_sub(1, Release) != 1 {
            return;
        }
        fence(Acquire);
        let (start, length) = self.place();
        // SAFETY: this was the last owner. `overwrite` keeps the room, and so the layout, as it was.
        unsafe {
            if start == Self::BEHIND_HEADER {
                drop_in_place(self.at(Self::HEADER).cast::<H>());
            }
            dealloc(self.at(0), layout(start + length));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn bytes_of_every_length_come_back() {
        for length in 0..100 {
            let bytes = vec![7; length];
            for header in [None, Some(1_u64)] {
                let shared = SharedBytes::new(header, &bytes);
                assert_eq!(*shared, bytes);
                assert_eq!(*shared.clone(), bytes);
                assert_eq!(shared.clone().header().copied(), header);
            }
        }
    }

    #[test]
    fn they_become_others_that_take_as_much_room() {
        for header in [None, Some(1_u32)] {
            let start = size_of::<Head>() + if header.is_some() { 4 } else { 0 };
            let shared = SharedBytes::new(header, &[1; 20]);
            for length in 0..60 {
                let fits = (start + length).div_ceil(8) == (start + 20).div_ceil(8);
                assert_eq!(shared.can_become(length, 1), fits, "{length}");
                if fits {
                    let bytes = vec![length as u8; length];
                    unsafe { shared.overwrite(&bytes) };
                    assert_eq!(*shared, bytes);
                }
            }
            assert_eq!(shared.header().copied(), header);
        }
    }

    #[test]
    fn they_stay_while_others_have_them() {
        let shared = SharedBytes::<()>::new(None, b"bytes");
        let other = shared.clone();
        assert!(!shared.can_become(5, 1));
        assert!(shared.can_become(5, 2));
        drop(other);
        assert!(shared.can_become(5, 1));
    }

    #[test]
    fn the_last_owner_drops_the_header() {
        let counted = Arc::new(());
        let shared = SharedBytes::new(Some(Arc::clone(&counted)), b"bytes");
        let other = shared.clone();
        drop(shared);
        assert_eq!(Arc::strong_count(&counted), 2);
        drop(other);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn they_take_one_word() {
        assert_eq!(size_of::<Option<SharedBytes<u64>>>(), size_of::<usize>());
    }
}
