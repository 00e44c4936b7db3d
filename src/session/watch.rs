//! Who wants to hear of a session while it is open: event streams and tunnels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::store::record::SessionKey;

/// Events that may wait for a slow listener; what it misses it learns as [`Event::Unsure`].
const WAITING: usize = 8;

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its tokens or its ticket are new.
    Changed,
    /// It was ended before its time.
    Ended,
    /// Something may have happened: ask the store.
    Unsure,
}

type Senders = HashMap<SessionKey, broadcast::Sender<Event>>;

/// All who listen, by session.
#[derive(Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<Senders>>);

/// One listener; dropping it ends the listening.
pub struct Watch {
    key: SessionKey,
    events: broadcast::Receiver<Event>,
    watchers: Watchers,
}

impl Watchers {
    pub(super) fn watch(&self, key: SessionKey) -> Watch {
        let mut senders = self.lock();
        let events = senders.entry(key).or_insert_with(|| broadcast::Sender::new(WAITING)).subscribe();
        Watch { key, events, watchers: self.clone() }
    }

    pub(super) fn tell(&self, key: &SessionKey, event: Event) {
        if let Some(sender) = self.lock().get(key) {
            let _ = sender.send(event);
        }
    }

    pub(super) fn tell_all(&self, event: Event) {
        for sender in self.lock().values() {
            let _ = sender.send(event);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The next event. Waits as long as there is none.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => Event::Unsure,
            // The sender is there as long as this listener is.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut senders = self.watchers.lock();
        // This listener is still counted.
        if senders.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            senders.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listeners_hear_of_their_own_session_and_leave_nothing_behind() {
        let watchers = Watchers::default();
        let [one, other] = [1, 2].map(|n| SessionKey::from_bytes([n; 32]));
        let mut first = watchers.watch(one);
        let mut second = watchers.watch(one);
        let mut stranger = watchers.watch(other);
        watchers.tell(&one, Event::Changed);
        watchers.tell(&one, Event::Ended);
        watchers.tell_all(Event::Unsure);
        for watch in [&mut first, &mut second] {
            assert_eq!(
                [watch.next().await, watch.next().await, watch.next().await],
                [Event::Changed, Event::Ended, Event::Unsure]
            );
        }
        assert_eq!(stranger.next().await, Event::Unsure);
        for _ in 0..100 {
            watchers.tell(&other, Event::Changed);
        }
        assert_eq!(stranger.next().await, Event::Unsure, "who is too slow asks the store");
        drop(first);
        assert_eq!(watchers.lock().len(), 2);
        drop((second, stranger));
        assert!(watchers.lock().is_empty());
    }
}
