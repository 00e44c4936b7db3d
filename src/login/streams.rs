//! How many event streams are open: in all, and of each session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::store::record::SessionKey;

/// Most streams of one session: a browser opens one a tab, and over HTTP/1.1 at most six to a host.
pub(super) const OF_ONE_SESSION: usize = 16;
/// Most streams of all sessions. Each holds a connection's task and a listener, some ten KiB.
const OF_ALL: usize = 20_000;

/// The streams that are open.
#[derive(Clone)]
pub(super) struct Streams {
    counts: Arc<Mutex<Counts>>,
    gauge: IntGauge,
    most: usize,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_session: HashMap<SessionKey, usize>,
}

/// The place of one stream; free again when dropped.
pub(super) struct Place {
    key: SessionKey,
    streams: Streams,
}

impl Streams {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self { counts: Arc::default(), gauge, most: OF_ALL }
    }

    /// A place for one more stream of a session, unless there are too many.
    pub(super) fn take(&self, key: &SessionKey) -> Option<Place> {
        let mut counts = self.lock();
        let of_session = counts.by_session.get(key).copied().unwrap_or_default();
        if counts.all >= self.most || of_session >= OF_ONE_SESSION {
            return None;
        }
        counts.all += 1;
        counts.by_session.insert(*key, of_session + 1);
        self.gauge.inc();
        Some(Place { key: *key, streams: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.streams.lock();
        counts.all -= 1;
        match counts.by_session.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.by_session.remove(&self.key);
            }
        }
        self.streams.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let mut streams = Streams::new(gauge.clone());
        let key = |n| SessionKey::from_bytes([n; 32]);
        let mut places: Vec<_> = (0..OF_ONE_SESSION).map(|_| streams.take(&key(1)).unwrap()).collect();
        assert!(streams.take(&key(1)).is_none());
        let other = streams.take(&key(2)).unwrap();
        streams.most = OF_ONE_SESSION + 1;
        assert!(streams.take(&key(3)).is_none(), "all places are taken");
        places.pop();
        assert!(streams.take(&key(3)).is_some());
        places.push(streams.take(&key(1)).unwrap());
        drop((places, other));
        let counts = streams.lock();
        assert_eq!((gauge.get(), counts.all, counts.by_session.len()), (0, 0, 0));
    }
}
