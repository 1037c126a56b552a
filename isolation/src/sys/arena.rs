//! Memory for a program that runs for a millisecond: the first of it is handed out in a row and not taken back.
//!
//! A command allocates some thousand small pieces and ends. Keeping account of them, to give back what nobody will ask
//! for again, was a third of all its instructions. What stays longer (a supervisor, a foreground `run`) soon has used
//! the arena up, and then has the system's allocator, which does keep account.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough for `create` with a profile of the size of Docker's. Pages that are never touched cost nothing.
const SIZE: usize = 512 * 1024;

/// The allocator: to be the program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Arena {
    memory: Memory,
    /// How much of it is in use.
    used: AtomicUsize,
}

#[derive(Debug)]
#[repr(align(64))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: each part of the memory belongs to whom `take` gave it, and to nobody twice: `used` only changes by
// compare-and-exchange.
unsafe impl Sync for Memory {}

impl Arena {
    /// An arena nothing of which is in use.
    pub const fn new() -> Self {
        Arena { memory: Memory(UnsafeCell::new([0; SIZE])), used: AtomicUsize::new(0) }
    }

    fn base(&self) -> usize {
        self.memory.0.get() as usize
    }

    /// Where in the arena `pointer` is, if it is one of ours.
    fn place(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.base()).filter(|place| *place < SIZE)
    }

    /// A part of the arena; none when it is used up.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = (self.base() + used).next_multiple_of(layout.align()) - self.base();
            let end = start.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
            match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(self.memory.0.get().cast::<u8>().wrapping_add(start)),
                Err(now) => used = now,
            }
        }
    }

    /// Whether the part that ended at `end` was the last one, and now ends at `new`.
    fn move_end(&self, end: usize, new: usize) -> bool {
        new <= SIZE && self.used.compare_exchange(end, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Default for Arena {
    fn default() -> Self {
        Arena::new()
    }
}

// SAFETY: what `take` returns is aligned, lies in the arena, and is given to nobody else until it is given back as the
// last part; all else is the system's, told apart by its address.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(pointer) => pointer,
            // SAFETY: the caller's promises are those the system's allocator asks for.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.place(pointer) {
            // Only the last part can be used again.
            Some(place) => _ = self.move_end(place + layout.size(), place),
            // SAFETY: it came from the system's allocator, with this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(place) = self.place(pointer) else {
            // SAFETY: it came from the system's allocator, with this layout.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        if self.move_end(place + layout.size(), place + size) || size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller vouches that `size`, rounded up to the alignment, does not overflow.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: the old part has `layout.size()` bytes, the new one more, and they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn parts_are_aligned_apart_and_the_last_one_grows_in_place() {
        let arena = Box::new(Arena::new());
        let (small, wide) = (layout(3, 1), layout(16, 64));
        // SAFETY: the layouts are sound and what is given back came from here.
        unsafe {
            let (a, b) = (arena.alloc(small), arena.alloc(wide));
            assert_eq!(b as usize % 64, 0);
            assert!(b as usize >= a as usize + 3);
            let grown = arena.realloc(b, wide, 4096);
            assert_eq!(grown, b);
            *a = 7;
            let moved = arena.realloc(a, small, 100);
            assert_ne!(moved, a);
            assert_eq!(*moved, 7);
            arena.dealloc(moved, layout(100, 1));
            assert_eq!(arena.alloc(layout(1, 1)), moved, "the last part is used again");
        }
    }

    #[test]
    fn what_does_not_fit_is_the_system_s() {
        let arena = Box::new(Arena::new());
        let (half, large) = (layout(SIZE / 2, 8), layout(SIZE, 8));
        // SAFETY: as above.
        unsafe {
            let inside = arena.alloc(half);
            *inside = 1;
            let outside = arena.alloc(large);
            assert!(arena.place(inside).is_some() && arena.place(outside).is_none());
            arena.dealloc(outside, large);
            let moved = arena.realloc(inside, half, SIZE * 2);
            assert!(arena.place(moved).is_none());
            assert_eq!(*moved, 1);
            arena.dealloc(moved, layout(SIZE * 2, 8));
        }
    }
}
