//! Bytes that are shared by counting, in one allocation with a header and their length, and that their owner may overwrite
//! where they lie. Reference-counted slices of the libraries are either immutable for good or take two allocations.

#![expect(unsafe_code, reason = "a slice whose length is known at run time, behind a thin pointer")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::process::abort;
use std::ptr::{NonNull, drop_in_place};
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

/// All allocations are a multiple of this many bytes, as the slots of the guest's allocator are.
const GRAIN: usize = 8;

#[repr(C, align(8))]
struct Head<H> {
    owners: AtomicU32,
    length: AtomicU32,
    header: H,
}

/// Shared bytes; a clone is one more owner of the same ones. There are fewer than 2^32 of them.
#[derive(Debug)]
pub(crate) struct SharedBytes<H>(NonNull<Head<H>>);

// SAFETY: the owners are counted by an atomic number; what they share is `H` and bytes, which `overwrite` alone changes.
unsafe impl<H: Send + Sync> Send for SharedBytes<H> {}
// SAFETY: as above.
unsafe impl<H: Send + Sync> Sync for SharedBytes<H> {}

impl<H> SharedBytes<H> {
    const START: usize = size_of::<Head<H>>();

    /// Bytes that an allocation for so many has room for, the head included.
    fn room(length: usize) -> usize {
        (Self::START + length).next_multiple_of(GRAIN)
    }

    /// # Panics
    /// There are 2^32 bytes or more.
    #[expect(clippy::expect_used, reason = "the direct ABI takes fewer than 2^30 bytes, and a wasm memory has fewer")]
    pub(crate) fn new(header: H, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("fewer than 2^32 bytes");
        let layout = Self::layout(bytes.len());
        // SAFETY: the layout is not empty. The memory holds the head, and behind it room for the bytes.
        unsafe {
            let memory = alloc(layout);
            let Some(head) = NonNull::new(memory.cast::<Head<H>>()) else { handle_alloc_error(layout) };
            head.write(Head { owners: AtomicU32::new(1), length: AtomicU32::new(length), header });
            memory.add(Self::START).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Self(head)
        }
    }

    #[expect(clippy::expect_used, reason = "as in `new`, which has been there first")]
    fn layout(length: usize) -> Layout {
        Layout::from_size_align(Self::room(length), align_of::<Head<H>>()).expect("fewer than 2^32 bytes")
    }

    fn head(&self) -> &Head<H> {
        // SAFETY: it lives as long as it has an owner.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn header(&self) -> &H {
        &self.head().header
    }

    fn length(&self) -> usize {
        self.head().length.load(Relaxed) as usize
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: behind the head, in the same allocation.
        unsafe { self.0.cast::<u8>().add(Self::START).as_ptr() }
    }

    /// Whether an allocation for so many bytes is as large as this one, and nobody but so many owners has this one.
    pub(crate) fn can_become(&self, length: usize, owners: u32) -> bool {
        self.head().owners.load(Acquire) == owners && Self::room(self.length()) == Self::room(length)
    }

    /// Puts other bytes in the place of these.
    ///
    /// # Safety
    /// [`Self::can_become`] said so, and meanwhile nobody looks at the bytes of this or of another owner.
    pub(crate) unsafe fn overwrite(&self, bytes: &[u8]) {
        // SAFETY: there is room for them. They lie elsewhere, as nobody can look at those that lie here.
        unsafe { self.start().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.head().length.store(bytes.len() as u32, Relaxed);
    }
}

impl<H> Deref for SharedBytes<H> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes were written there, and nobody changes them while they are looked at.
        unsafe { std::slice::from_raw_parts(self.start(), self.length()) }
    }
}

impl<H> Clone for SharedBytes<H> {
    #[inline]
    fn clone(&self) -> Self {
        if self.head().owners.fetch_add(1, Relaxed) >= u32::MAX / 2 {
            abort();
        }
        Self(self.0)
    }
}

impl<H> Drop for SharedBytes<H> {
    #[inline]
    fn drop(&mut self) {
        if self.head().owners.fetch_sub(1, Release) != 1 {
            return;
        }
        fence(Acquire);
        let layout = Self::layout(self.length());
        // SAFETY: this was the last owner. `overwrite` keeps the room, and so the layout, as it was.
        unsafe {
            drop_in_place(&raw mut (*self.0.as_ptr()).header);
            dealloc(self.0.cast::<u8>().as_ptr(), layout);
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
            let shared = SharedBytes::new((), &bytes);
            assert_eq!(*shared, bytes);
            assert_eq!(*shared.clone(), bytes);
        }
    }

    #[test]
    fn they_become_others_that_take_as_much_room() {
        let shared = SharedBytes::new(1_u32, &[1; 20]);
        for length in 0..60 {
            let fits = (SharedBytes::<u32>::START + length).div_ceil(GRAIN) == (SharedBytes::<u32>::START + 20).div_ceil(GRAIN);
            assert_eq!(shared.can_become(length, 1), fits, "{length}");
            if fits {
                let bytes = vec![length as u8; length];
                unsafe { shared.overwrite(&bytes) };
                assert_eq!(*shared, bytes);
            }
        }
        assert_eq!(*shared.header(), 1);
    }

    #[test]
    fn they_stay_while_others_have_them() {
        let shared = SharedBytes::new((), b"bytes");
        let other = shared.clone();
        assert!(!shared.can_become(5, 1));
        assert!(shared.can_become(5, 2));
        drop(other);
        assert!(shared.can_become(5, 1));
    }

    #[test]
    fn the_last_owner_drops_the_header() {
        let counted = Arc::new(());
        let shared = SharedBytes::new(Arc::clone(&counted), b"bytes");
        let other = shared.clone();
        drop(shared);
        assert_eq!(Arc::strong_count(&counted), 2);
        drop(other);
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}
