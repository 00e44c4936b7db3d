//! Freed memory goes back to the system, also while nothing else happens.
//!
//! The allocator keeps what is freed for a second, and looks whether that is over only as some thread frees a page. A server that
//! has just been left by those who filled its memory may free none for a long time, least of all if it refuses work because
//! its memory is full.

use std::hint::black_box;
use std::time::Duration;

/// Pause between two nudges: the allocator's own delay.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// An allocation of this size gets pages of its own, which are freed with it.
const LARGE: usize = 1 << 20;

/// Frees a page, which nobody has touched, so that the allocator looks. Takes some microseconds beside what it gives back.
pub(super) fn nudge() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE)));
}
