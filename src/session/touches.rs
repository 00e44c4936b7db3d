//! "Last seen", told to the store in batches that no request waits for.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::store::{SessionStore, Touch};

/// Touches waiting for the store; beyond that uses are simply not told, and the next use tells again.
const QUEUE: usize = 8_192;
/// Most touches in one batch.
const BATCH: usize = 512;

/// Where uses are told.
pub(super) type Touches = mpsc::Sender<Touch>;

/// The batch writer of "last seen"; run [`TouchWriter::run`] in the background.
pub struct TouchWriter {
    store: Arc<dyn SessionStore>,
    queue: mpsc::Receiver<Touch>,
}

pub(super) fn touches(store: Arc<dyn SessionStore>) -> (Touches, TouchWriter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (sender, TouchWriter { store, queue })
}

impl TouchWriter {
    /// Writes touches in batches until nobody is left to tell any. A store that is down costs the batch, nothing more:
    /// the next use tells again.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(error) = self.store.touch(&batch).await {
                tracing::warn!(%error, lost = batch.len(), "last-seen times could not be stored");
            }
            batch.clear();
        }
    }
}
