//! The local cache of opened sessions: bounded by number and by bytes, and told of changes by key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};

use super::open::Open;
use super::ticket::Handle;
use crate::config::settings;
use crate::primitives::clock::Timestamp;
use crate::store::record::SessionKey;

/// Changes that are remembered; each only matters for the length of one store call.
const RECENT: usize = 16_384;
const SHARDS: usize = 64;

/// The version of a session that has ended.
const ENDED: u64 = u64::MAX;

/// The room of one place in the cache: filling it is one caller's part.
pub(super) type Place<'c> = PlaceholderGuard<
    'c,
    Handle,
    Arc<Open>,
    Weight,
    quick_cache::DefaultHashBuilder,
    DefaultLifecycle<Handle, Arc<Open>>,
>;

/// One part of the way from a session's key to the copy there is of it.
type Index = HashMap<SessionKey, Weak<Open>>;

/// Opened sessions by handle.
///
/// A change names a session by its key, and a request by its handle: the index leads from the one to the other, also to
/// copies that have left the cache and are still in a request's hands.
pub(super) struct LocalCache {
    entries: Cache<Handle, Arc<Open>, Weight>,
    index: Box<[Mutex<Index>]>,
    /// The version that a session had when a change was last told: what was read before must not pass for current.
    recent: Cache<SessionKey, u64>,
    /// When changes were last missed, in milliseconds since the epoch.
    missed: AtomicU64,
}

/// Weighs an entry so that both bounds hold: none weighs less than its share of the memory.
#[derive(Clone)]
pub(super) struct Weight {
    least: u64,
}

impl Weighter<Handle, Arc<Open>> for Weight {
    fn weight(&self, _: &Handle, open: &Arc<Open>) -> u64 {
        open.bytes().max(self.least)
    }
}

impl LocalCache {
    pub(super) fn new(settings: &settings::Cache) -> Self {
        let capacity = settings.capacity.max(1);
        let least = settings.memory / u64::try_from(capacity).unwrap_or(u64::MAX);
        Self {
            entries: Cache::with_weighter(capacity, settings.memory, Weight { least: least.max(1) }),
            index: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            recent: Cache::new(RECENT),
            missed: AtomicU64::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the entries weigh; a little more than the bytes they take if the number is the tighter bound.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Lets go of every copy; those in a request's hands live as long as it holds them, and are told of changes until
    /// another copy is loaded; whoever must hear of all of them watches by the session's key. A place that is being filled
    /// stays, for others wait for it.
    pub(super) fn clear(&self) {
        self.entries.retain(|_, _| false);
        for shard in &self.index {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // What the index knows a copy by keeps a part of its memory.
            shard.retain(|_, known| known.strong_count() > 0);
            shard.shrink_to_fit();
        }
    }

    pub(super) fn get(&self, handle: &Handle) -> Option<Arc<Open>> {
        self.entries.get(handle)
    }

    /// The copy there is of a session, in the cache or in a request's hands.
    pub(super) fn find(&self, key: &SessionKey) -> Option<Arc<Open>> {
        self.shard(key)?.get(key)?.upgrade()
    }

    /// Takes exactly this copy out.
    pub(super) fn take(&self, open: &Arc<Open>) -> Option<Arc<Open>> {
        self.entries.remove_if(open.id().handle(), |cached| Arc::ptr_eq(cached, open)).map(|(_, open)| open)
    }

    /// The entry, or the room for it; while one caller fills it all others wait.
    pub(super) async fn place(&self, handle: &Handle) -> Result<Arc<Open>, Place<'_>> {
        self.entries.get_value_or_guard_async(handle).await
    }

    /// Fills a place; `None` if the session ended meanwhile.
    pub(super) fn fill(&self, place: Place<'_>, open: Arc<Open>) -> Option<Arc<Open>> {
        self.note(&open);
        // An error means that somebody else filled the place meanwhile.
        let _ = place.insert(open.clone());
        self.still_true(open)
    }

    /// Puts a session in; `None` if it ended meanwhile.
    pub(super) fn insert(&self, open: Arc<Open>) -> Option<Arc<Open>> {
        self.note(&open);
        self.entries.insert(*open.id().handle(), open.clone());
        self.still_true(open)
    }

    /// A session now has this version: copies of older ones are to be checked before they are used again.
    pub(super) fn replaced(&self, key: &SessionKey, version: u64) {
        // Before the look at the index: whoever puts a copy in afterwards sees the mark.
        let newest = self.recent.get(key).unwrap_or_default().max(version);
        self.recent.insert(*key, newest);
        if let Some(open) = self.find(key).filter(|open| open.version() < version) {
            open.doubt();
        }
    }

    /// A session has ended.
    pub(super) fn ended(&self, key: &SessionKey) {
        self.recent.insert(*key, ENDED);
        if let Some(open) = self.find(key) {
            open.end();
            self.entries.remove(open.id().handle());
        }
    }

    /// Changes may have been missed: every copy is to be checked before it is used again, as far as the store can be
    /// asked.
    pub(super) fn missed(&self, now: Timestamp) {
        self.missed.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// Whether a copy was checked since changes were last missed.
    pub(super) fn has_heard_all(&self, open: &Open) -> bool {
        open.checked().as_millis() > self.missed.load(Ordering::Relaxed)
    }

    /// An answer that was under way while the session changed is put right.
    pub(super) fn still_true(&self, open: Arc<Open>) -> Option<Arc<Open>> {
        match self.recent.get(open.key()) {
            Some(ENDED) => {
                open.end();
                self.entries.remove(open.id().handle());
                None
            }
            Some(version) if version > open.version() => {
                open.doubt();
                Some(open)
            }
            _ => Some(open),
        }
    }

    fn note(&self, open: &Arc<Open>) {
        let Some(mut shard) = self.shard(open.key()) else { return };
        // Each insertion that finds the map full looks for dead entries; they are at least half of a map that has room
        // again, so this costs a constant on average.
        if shard.len() == shard.capacity() {
            shard.retain(|_, known| known.strong_count() > 0);
            let room = shard.len().max(16);
            shard.reserve(room);
        }
        shard.insert(*open.key(), Arc::downgrade(open));
    }

    fn shard(&self, key: &SessionKey) -> Option<MutexGuard<'_, Index>> {
        let [first, ..] = key.as_bytes();
        let shard = self.index.get(usize::from(*first) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
