//! The sessions of one shard, by key, by end and by the moment that they are due.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::record::{Record, SessionKey};
use super::super::{Claim, Touch};
use crate::primitives::clock::Timestamp;

/// `ends` and `dues` hold exactly the entries of `entries`, by the times that stand there.
#[derive(Default)]
pub(super) struct Sessions {
    entries: HashMap<SessionKey, Entry>,
    ends: BTreeSet<(Timestamp, SessionKey)>,
    dues: BTreeSet<(Timestamp, SessionKey)>,
}

struct Entry {
    record: Box<Record>,
    /// When it is to be claimed; a claim moves it, the record keeps its own.
    due: Option<Timestamp>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, key: &SessionKey) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn living(&self, key: &SessionKey, now: Timestamp) -> Option<&Record> {
        self.entries.get(key).map(|entry| &*entry.record).filter(|record| record.end() > now)
    }

    /// Stores a record and returns the one that was there.
    pub(super) fn put(&mut self, key: SessionKey, record: Record) -> Option<Record> {
        let old = self.remove(&key);
        self.ends.insert((record.end(), key));
        if let Some(due) = record.due {
            self.dues.insert((due, key));
        }
        let due = record.due;
        self.entries.insert(key, Entry { record: Box::new(record), due });
        old
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Option<Record> {
        let Entry { record, due } = self.entries.remove(key)?;
        self.ends.remove(&(record.end(), *key));
        if let Some(due) = due {
            self.dues.remove(&(due, *key));
        }
        Some(*record)
    }

    pub(super) fn remove_first_ended(&mut self, now: Timestamp) -> Option<(SessionKey, Record)> {
        let (_, key) = *self.ends.first().filter(|(end, _)| *end <= now)?;
        self.remove(&key).map(|record| (key, record))
    }

    pub(super) fn touch(&mut self, touch: &Touch, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&touch.key) else { return };
        let record = &mut entry.record;
        let old_end = record.end();
        if old_end <= now {
            return;
        }
        record.last_seen = record.last_seen.max(touch.last_seen);
        record.idle_end = record.idle_end.max(touch.idle_end);
        record.returning_end = record.returning_end.max(touch.returning_end);
        let end = record.end();
        if end != old_end {
            self.ends.remove(&(old_end, touch.key));
            self.ends.insert((end, touch.key));
        }
    }

    pub(super) fn claim_due(&mut self, claim: &Claim, limit: usize, now: Timestamp) -> Vec<SessionKey> {
        let due: Vec<_> = self.dues.range(..=(claim.due, LAST)).map(|(_, key)| *key).collect();
        let mut claimed = Vec::new();
        for key in due {
            if claimed.len() >= limit {
                break;
            }
            let active = self.living(&key, now).is_some_and(|record| record.last_seen >= claim.active_since);
            self.reschedule(&key, active.then_some(claim.lease));
            if active {
                claimed.push(key);
            }
        }
        claimed
    }

    pub(super) fn reschedule(&mut self, key: &SessionKey, due: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut entry.due, due) {
            self.dues.remove(&(old, *key));
        }
        if let Some(due) = due {
            self.dues.insert((due, *key));
        }
    }

    pub(super) fn count_by_key(&self, counts: &mut BTreeMap<String, u64>, now: Timestamp) {
        for entry in self.entries.values().filter(|entry| entry.record.end() > now) {
            match counts.get_mut(&entry.record.sealing_key) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(entry.record.sealing_key.clone(), 1);
                }
            }
        }
    }

    /// Sessions, ends and dues.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.entries.len(), self.ends.len(), self.dues.len()]
    }
}

/// Behind every other key.
const LAST: SessionKey = SessionKey::from_bytes([0xff; 32]);
