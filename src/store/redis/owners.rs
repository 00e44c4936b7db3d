//! Finding the sessions of an owner. The sets may name some that are dead, for Redis expires sessions by itself: the
//! records have the last word, and whoever looks strikes the dead ones off.

use bytes::Bytes;
use fred::clients::Client;
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

/// What the sets of an owner name.
#[derive(Default)]
pub(super) struct Named {
    /// The owner's living sessions.
    pub(super) alive: Vec<(SessionKey, Record)>,
    /// Sessions that this version cannot read. A newer one, on another replica, perhaps can.
    pub(super) unreadable: Vec<SessionKey>,
}

impl RedisStore {
    /// One record that cannot be read must not hide the others.
    pub(super) async fn look_up(&self, owner: &Owner<'_>) -> Result<Named, StoreError> {
        let name = OwnerName::new(owner);
        let partitions: Vec<u8> = (0..PARTITIONS).collect();
        let calls = partitions.chunks(self.nodes.partitions_at_a_time()).map(|some| {
            let sets = some.iter().map(|partition| self.keys.owner(*partition, &name)).collect();
            let first = some.first().copied().unwrap_or_default();
            self.scripts.members.run::<Vec<Bytes>>(&self.nodes, first, sets, vec![])
        });
        let members = futures::future::try_join_all(calls).await?.concat();
        let keys: Vec<_> = members.iter().filter_map(|member| SessionKey::from_text(member)).collect();
        let mut named = Named::default();
        let now = self.clock.now();
        for some in keys.chunks(AT_A_TIME) {
            let mut stale = Vec::new();
            for (key, values) in some.iter().zip(self.fetch(some, &fields::NAMES).await?) {
                let meta = values.get(2).cloned().flatten();
                match fields::read(&values) {
                    Err(error) => {
                        tracing::warn!(%error, "a session of an owner cannot be read");
                        named.unreadable.push(*key);
                    }
                    Ok(Some(record)) if owner.owns(&record) => {
                        if record.end() > now {
                            named.alive.push((*key, record));
                        }
                    }
                    Ok(_) => stale.push((*key, meta)),
                }
            }
            self.prune(&name, stale).await?;
        }
        Ok(named)
    }

    /// Looks through some of the sets of a new session's owners, if they are large.
    pub(super) async fn tidy(&self, key: &SessionKey, owners: &[OwnerName], largest: i64) -> Result<(), StoreError> {
        if largest <= LARGE {
            return Ok(());
        }
        for name in owners {
            let partition = keys::of_session(key);
            let sample = |client: Client, _| {
                let set = self.keys.owner(partition, name);
                async move { client.srandmember(set, Some(SAMPLE)).await }
            };
            let members: Vec<Bytes> = self.nodes.run(partition, sample).await?;
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
        futures::future::try_join_all(keys.iter().map(|key| self.fetch_one(key, names))).await
    }

    /// Some fields of a session.
    pub(super) async fn fetch_one(
        &self,
        key: &SessionKey,
        names: &'static [&'static str],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let get = |client: Client, _| {
            let name = self.keys.session(key);
            async move { client.hmget(name, names.to_vec()).await }
        };
        self.nodes.run(keys::of_session(key), get).await
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
            self.scripts.prune.run::<i64>(&self.nodes, partition, keys, values)
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }
}
