//! Large answers that do not move, a connection at a time.
//!
//! Some hundred kilobytes of an answer are read ahead of a slow client. That does no harm by itself; who takes nothing of it while
//! memory runs out is in everybody's way.
//!
//! Over HTTP/2 a piece of an answer is held until its last copy is dropped. Over HTTP/1 Pingora copies pieces together before it
//! writes them, so that there the last one counts as held until the next one comes or the answer ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Connection;

/// Shorter pieces fill no memory, and are not worth counting.
const LARGE: usize = 16 << 10;
/// An answer that does not move for so long is stuck. Over HTTP/1 up to ten pieces of 64 KiB are written before the next one is
/// seen, so that a client needs 128 KB a second while memory runs out; at other times it may take as long as it likes.
const STUCK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Large pieces of answers on their way to one client.
#[derive(Debug)]
pub(super) struct Held {
    bytes: AtomicUsize,
    since: Instant,
    /// When they last moved: one was taken, or the first one came; milliseconds after `since`.
    moved: AtomicU64,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), since: Instant::now(), moved: AtomicU64::new(0) }
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether they have not moved for some time.
    pub(super) fn is_stuck(&self) -> bool {
        self.any() && self.now().saturating_sub(self.moved.load(Ordering::Relaxed)) >= millis(STUCK)
    }

    /// A piece of the only answer there is; the one before has been taken.
    fn passed(&self, length: usize) {
        if length >= LARGE {
            self.moved.store(self.now(), Ordering::Relaxed);
            self.bytes.store(length, Ordering::Relaxed);
        } else if self.any() {
            self.forget();
        }
    }

    /// The only answer there is has ended.
    pub(super) fn forget(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.since.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts `piece`, if it is large, until it is on the wire or never will be.
pub(super) fn hold(connection: &Arc<Connection>, piece: &mut Bytes) {
    let held = connection.held();
    if !connection.is_http2() {
        held.passed(piece.len());
        return;
    }
    if piece.len() < LARGE {
        return;
    }
    if held.bytes.fetch_add(piece.len(), Ordering::Relaxed) == 0 {
        held.moved.store(held.now(), Ordering::Relaxed);
    }
    *piece = Bytes::from_owner(Piece { bytes: std::mem::take(piece), connection: Arc::clone(connection) });
}

struct Piece {
    bytes: Bytes,
    connection: Arc<Connection>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let held = self.connection.held();
        held.moved.store(held.now(), Ordering::Relaxed);
        held.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
