//! The logins under way of one shard.

use std::collections::{BTreeSet, HashMap};

use super::super::{LOGINS_PER_BROWSER, LoginKey};
use crate::primitives::clock::Timestamp;

#[derive(Default)]
pub(super) struct Logins {
    /// By browser, oldest first.
    by_browser: HashMap<[u8; 32], Vec<Login>>,
    /// When, which browser, which state: exactly the entries of `by_browser`.
    ends: BTreeSet<(Timestamp, [u8; 32], [u8; 32])>,
}

struct Login {
    state: [u8; 32],
    sealed: Vec<u8>,
    expires: Timestamp,
}

impl Logins {
    /// Adds a login and returns the one it takes the place of; drops the one that ends first if there are `most` already.
    pub(super) fn put(
        &mut self,
        key: &LoginKey,
        sealed: &[u8],
        expires: Timestamp,
        most: usize,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let before = self.take(key, now);
        while self.ends.len() >= most && self.drop_first() {}
        self.make_room(key.browser, now);
        let login = Login { state: key.state, sealed: sealed.to_vec(), expires };
        self.by_browser.entry(key.browser).or_default().push(login);
        self.ends.insert((expires, key.browser, key.state));
        before
    }

    pub(super) fn take(&mut self, key: &LoginKey, now: Timestamp) -> Option<Vec<u8>> {
        self.remove(key).filter(|login| login.expires > now).map(|login| login.sealed)
    }

    /// `false` if none has ended.
    pub(super) fn drop_first_ended(&mut self, now: Timestamp) -> bool {
        self.ends.first().is_some_and(|(end, ..)| *end <= now) && self.drop_first()
    }

    fn remove(&mut self, key: &LoginKey) -> Option<Login> {
        let logins = self.by_browser.get_mut(&key.browser)?;
        let at = logins.iter().position(|login| login.state == key.state)?;
        let login = logins.remove(at);
        if logins.is_empty() {
            self.by_browser.remove(&key.browser);
        }
        self.ends.remove(&(login.expires, key.browser, key.state));
        Some(login)
    }

    /// Drops the browser's expired logins and, if that is not enough, its oldest one.
    fn make_room(&mut self, browser: [u8; 32], now: Timestamp) {
        let Some(logins) = self.by_browser.get(&browser).filter(|logins| logins.len() >= LOGINS_PER_BROWSER) else {
            return;
        };
        let expired: Vec<_> = logins.iter().filter(|login| login.expires <= now).map(|login| login.state).collect();
        let oldest = logins.first().map(|login| login.state).filter(|_| expired.is_empty());
        for state in expired.into_iter().chain(oldest) {
            self.remove(&LoginKey { browser, state });
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(&(_, browser, state)) = self.ends.first() else { return false };
        self.remove(&LoginKey { browser, state }).is_some()
    }

    /// Logins and ends.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.by_browser.values().map(Vec::len).sum(), self.ends.len()]
    }
}
