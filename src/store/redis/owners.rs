//! Finding the sessions of an owner. The sets may name some that are dead, for Redis expires sessions by itself: the
//! records have the last word, and whoever looks strikes the dead ones off.

use bytes::Bytes;
use fred::interfaces::{HashesInterface as _, SetsInterface as _};
use fred::types::Value;

use super::super::StoreError;
use super::super::record::{Owner, Record, SessionKey};
use super::keys::{self, OwnerName, PARTITIONS};
use super::{AT_A_TIME, RedisStore, fields};

/// A set larger than this is looked through when another session comes into it.
const LARGE: i64 = 16;

/// So many of a large set, taken at random, are looked at: each new session makes room for more than itself unless
/// nearly all live.
const SAMPLE: usize = 16;

impl RedisStore {
    pub(super) async fn find_sessions(&self, owner: &Owner<'_>) -> Result<Vec<(SessionKey, Record)>, StoreError> {
        let name = OwnerName::new(owner);
        let sets: Vec<_> = (0..PARTITIONS).map(|partition| self.keys.owner(partition, &name)).collect();
        let calls = sets
            .chunks(self.link.partitions_at_a_time())
            .map(|keys| self.scripts.members.run::<Vec<Bytes>>(&self.link, keys.to_vec(), vec![]));
        let members = futures::future::try_join_all(calls).await?.concat();
        let keys: Vec<_> = members.iter().filter_map(|member| SessionKey::from_text(member)).collect();
        let mut found = Vec::new();
        let now = self.clock.now();
        for some in keys.chunks(AT_A_TIME) {
            let mut stale = Vec::new();
            for (key, values) in some.iter().zip(self.fetch(some, &fields::NAMES).await?) {
                let meta = values.get(2).cloned().flatten();
                match fields::read(&values)? {
                    Some(record) if owner.owns(&record) => {
                        if record.end() > now {
                            found.push((*key, record));
                        }
                    }
                    _ => stale.push((*key, meta)),
                }
            }
            self.prune(&name, stale).await?;
        }
        Ok(found)
    }

    /// Looks through some of the sets of a new session's owners, if they are large.
    pub(super) async fn tidy(&self, key: &SessionKey, owners: &[OwnerName], largest: i64) -> Result<(), StoreError> {
        if largest <= LARGE {
            return Ok(());
        }
        for name in owners {
            let set = self.keys.owner(keys::of_session(key), name);
            let members: Vec<Bytes> =
                self.link.run(|client| async move { client.srandmember(set, Some(SAMPLE)).await }).await?;
            let keys: Vec<_> = members.iter().filter_map(|member| SessionKey::from_text(member)).collect();
            let metas = self.fetch(&keys, &["meta"]).await?;
            let dead = keys.into_iter().zip(metas).filter(|(_, meta)| meta.iter().all(Option::is_none));
            self.prune(name, dead.map(|(key, _)| (key, None)).collect()).await?;
        }
        Ok(())
    }

    /// Some fields of some sessions.
    pub(super) async fn fetch(
        &self,
        keys: &[SessionKey],
        names: &'static [&'static str],
    ) -> Result<Vec<Vec<Option<Bytes>>>, StoreError> {
        let calls = keys.iter().map(|key| {
            let key = self.keys.session(key);
            self.link.run(|client| async move { client.hmget(key, names.to_vec()).await })
        });
        futures::future::try_join_all(calls).await
    }

    /// Strikes sessions off an owner's sets, unless they are not what they were found to be: `None` = gone.
    async fn prune(&self, owner: &OwnerName, stale: Vec<(SessionKey, Option<Bytes>)>) -> Result<(), StoreError> {
        let calls = keys::by_partition(&stale, |(key, _)| *key).into_iter().map(|(partition, stale)| {
            let mut keys = vec![self.keys.owner(partition, owner)];
            let mut values: Vec<Value> = Vec::new();
            for (key, meta) in stale {
                keys.push(self.keys.session(key));
                values.extend([key.to_text().into(), meta.clone().unwrap_or_default().into()]);
            }
            self.scripts.prune.run::<i64>(&self.link, keys, values)
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }
}
