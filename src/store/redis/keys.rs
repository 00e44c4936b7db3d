//! What lies where. All that belongs to one session lies in one of 64 partitions, and all keys of a partition carry the
//! same hash tag: a script touches one partition, so that it runs in a cluster as well, on one node.

use std::collections::BTreeMap;

use super::super::record::{Owner, Record, SessionKey};
use super::super::{LoginKey, MarkKey};
use crate::primitives::random::base64url;

/// Parts that a cluster may spread over its nodes. Changing it makes all sessions unfindable.
pub(super) const PARTITIONS: u8 = 64;

/// Names all keys.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn session(&self, key: &SessionKey) -> String {
        self.within(of_session(key), "s:", &key.to_text())
    }

    /// When which sessions of a partition are due.
    pub(super) fn due(&self, partition: u8) -> String {
        self.within(partition, "due", "")
    }

    /// Sessions of a partition that belong to an owner.
    pub(super) fn owner(&self, partition: u8, owner: &OwnerName) -> String {
        self.within(partition, "o:", &owner.0)
    }

    /// Logins of a browser.
    pub(super) fn browser(&self, key: &LoginKey) -> String {
        self.within(of(&key.browser), "l:", &base64url(&key.browser))
    }

    pub(super) fn mark(&self, key: &MarkKey) -> String {
        self.within(of(&key.0), "m:", &base64url(&key.0))
    }

    /// Keys that a script may write to see whether it can.
    pub(super) fn probes(&self, partition: u8, name: &str) -> Vec<String> {
        (0..4).map(|n| self.within(partition, "probe:", &format!("{name}:{n}"))).collect()
    }

    /// All that a script about one session needs: the session, the list of the due, and the sets of its owners.
    pub(super) fn whole(&self, key: &SessionKey, owners: &[OwnerName]) -> Vec<String> {
        let partition = of_session(key);
        let mut keys = vec![self.session(key), self.due(partition)];
        keys.extend(owners.iter().map(|owner| self.owner(partition, owner)));
        keys
    }

    /// Where changes are told.
    pub(super) fn channel(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// A pattern, for `SCAN`, of all sessions.
    pub(super) fn sessions(&self) -> String {
        let mut pattern = String::new();
        for sign in self.prefix.chars() {
            if matches!(sign, '\\' | '*' | '?' | '[' | ']') {
                pattern.push('\\');
            }
            pattern.push(sign);
        }
        pattern + "{??}:s:*"
    }

    /// The session that a key of [`Keys::session`] names.
    pub(super) fn session_of(&self, key: &[u8]) -> Option<SessionKey> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        SessionKey::from_text(rest.get("{00}:s:".len()..)?)
    }

    fn within(&self, partition: u8, kind: &str, name: &str) -> String {
        format!("{}{{{partition:02}}}:{kind}{name}", self.prefix)
    }
}

/// Names an owner within a partition: base64url of a SHA-256 that no other owner has.
pub(super) struct OwnerName(String);

impl OwnerName {
    pub(super) fn new(owner: &Owner<'_>) -> Self {
        let parts = match *owner {
            Owner::Subject { provider, subject } => ["sub", provider, subject],
            Owner::ProviderSession { provider, sid } => ["sid", provider, sid],
        };
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(base64url(hash.finish().as_ref()))
    }

    /// All owners of a record.
    pub(super) fn of(record: &Record) -> Vec<Self> {
        let provider = record.provider.as_str();
        let session = record.provider_session.as_deref().map(|sid| Owner::ProviderSession { provider, sid });
        std::iter::once(Owner::Subject { provider, subject: &record.subject })
            .chain(session)
            .map(|owner| Self::new(&owner))
            .collect()
    }
}

/// The partition of a session.
pub(super) fn of_session(key: &SessionKey) -> u8 {
    of(key.as_bytes())
}

/// The partition of any other hash.
pub(super) fn of(hash: &[u8; 32]) -> u8 {
    let [first, ..] = hash;
    first % PARTITIONS
}

/// The same, by partition.
pub(super) fn by_partition<T: Copy>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> SessionKey,
) -> BTreeMap<u8, Vec<T>> {
    let mut parts: BTreeMap<u8, Vec<T>> = BTreeMap::new();
    for item in items {
        parts.entry(of_session(&key(&item))).or_default().push(item);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_session_carry_one_hash_tag() {
        let keys = Keys::new("p:");
        let key = SessionKey::from_bytes([71; 32]);
        let names =
            [Owner::Subject { provider: "a", subject: "b" }, Owner::ProviderSession { provider: "a", sid: "b" }]
                .map(|owner| OwnerName::new(&owner));
        let whole = keys.whole(&key, &names);
        assert_eq!(whole.len(), 4);
        assert!(whole.iter().all(|key| key.starts_with("p:{07}:")), "{whole:?}");
        assert_eq!(keys.session_of(whole[0].as_bytes()), Some(key));
        assert_eq!(keys.session_of(b"p:{07}"), None);
        assert_eq!(keys.session_of(b"other:{07}:s:x"), None);
    }

    #[test]
    fn no_two_owners_share_a_name() {
        let name = |owner| OwnerName::new(&owner).0;
        let one = name(Owner::Subject { provider: "a", subject: "bc" });
        assert_eq!(one.len(), 43);
        assert_ne!(one, name(Owner::Subject { provider: "ab", subject: "c" }));
        assert_ne!(one, name(Owner::ProviderSession { provider: "a", sid: "bc" }));
    }

    #[test]
    fn a_pattern_takes_the_prefix_by_the_letter() {
        assert_eq!(Keys::new(r"a[b]?\:").sessions(), r"a\[b\]\?\\:{??}:s:*");
    }
}
