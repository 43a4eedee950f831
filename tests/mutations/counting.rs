//! The system allocator, counting what the current thread holds.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    /// Bytes held and the most held, by this thread: tests run side by side.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees after its counters are gone; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed to `System` with the arguments as they came, and its answer is returned as it
// is; counting touches only thread-local cells without destructors and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is `System`'s.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `System` through this allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new block may exist side by side for a moment.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `System` through this allocator, with this layout; the caller keeps
        // `realloc`'s contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `f` and returns its result and the most bytes that it held at once beyond those held before.
pub(crate) fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

#[test]
fn the_counter_counts() {
    let (_, peak) = peak(|| {
        drop(std::hint::black_box(vec![0u8; 1000]));
        let mut grown = Vec::<u8>::with_capacity(300);
        grown.resize(std::hint::black_box(500), 1);
        grown.len()
    });
    assert!((1000..1100).contains(&peak), "{peak}");
}
