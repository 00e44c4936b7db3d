//! The remembered facts of one shard.

use std::collections::{BTreeSet, HashMap};

use super::super::MarkKey;
use crate::primitives::clock::Timestamp;

#[derive(Default)]
pub(super) struct Marks {
    /// What is remembered, and until when.
    marks: HashMap<[u8; 32], (Timestamp, Timestamp)>,
    ends: BTreeSet<(Timestamp, [u8; 32])>,
}

impl Marks {
    /// `false` if there is one already.
    pub(super) fn put(&mut self, key: &MarkKey, at: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
        if self.get(key, now).is_some() {
            return false;
        }
        if let Some((_, old)) = self.marks.insert(key.0, (at, expires)) {
            self.ends.remove(&(old, key.0));
        }
        self.ends.insert((expires, key.0));
        true
    }

    pub(super) fn get(&self, key: &MarkKey, now: Timestamp) -> Option<Timestamp> {
        self.marks.get(&key.0).filter(|(_, expires)| *expires > now).map(|(at, _)| *at)
    }

    /// How many there are, ended ones among them.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// `false` if none has ended.
    pub(super) fn drop_first_ended(&mut self, now: Timestamp) -> bool {
        let Some(&(end, key)) = self.ends.first().filter(|(end, _)| *end <= now) else { return false };
        self.ends.remove(&(end, key));
        self.marks.remove(&key);
        true
    }

    /// Marks and ends.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.marks.len(), self.ends.len()]
    }
}
