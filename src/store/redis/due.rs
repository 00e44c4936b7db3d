//! The list of the due. Looking is one step and claiming another: the first only reads, so that asking while nothing is
//! due costs little; the second has all its keys declared, and decides.

use bytes::Bytes;
use fred::types::Value;

use super::super::record::SessionKey;
use super::super::{Claim, StoreError};
use super::RedisStore;
use super::fields::millis;
use super::keys::{self, PARTITIONS};
use crate::primitives::clock::Timestamp;

/// Looks at the lists so often in one call, should others be faster or some of the due be dead.
const ROUNDS: usize = 4;

/// Fewest sessions that are asked of each list.
const FEWEST: usize = 4;

/// Most sessions that one script claims.
const MOST: usize = 256;

impl RedisStore {
    pub(super) async fn claim(&self, claim: &Claim) -> Result<Vec<SessionKey>, StoreError> {
        let mut claimed = Vec::new();
        for _ in 0..ROUNDS {
            let room = claim.limit.saturating_sub(claimed.len());
            if room == 0 {
                break;
            }
            let due = self.peek(claim.due, room).await?;
            if due.is_empty() {
                break;
            }
            claimed.extend(self.claim_these(claim, &due).await?);
        }
        Ok(claimed)
    }

    /// The earliest of those that are due, not all if they are spread unevenly.
    async fn peek(&self, due: Timestamp, most: usize) -> Result<Vec<SessionKey>, StoreError> {
        let partitions: Vec<u8> = (0..PARTITIONS).collect();
        let each = (most * 2 / usize::from(PARTITIONS)).max(FEWEST).min(most).to_string();
        let calls = partitions.chunks(self.nodes.partitions_at_a_time()).map(|some| {
            let lists = some.iter().map(|partition| self.keys.due(*partition)).collect();
            let first = some.first().copied().unwrap_or_default();
            let values = vec![millis(due), each.as_str().into()];
            self.scripts.peek.run::<Vec<Bytes>>(&self.nodes, first, lists, values)
        });
        let answers = futures::future::try_join_all(calls).await?.concat();
        let mut due: Vec<_> = answers
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [member, moment] => {
                    let moment: f64 = std::str::from_utf8(moment).ok()?.parse().ok()?;
                    Some((moment, SessionKey::from_text(member)?))
                }
                _ => None,
            })
            .collect();
        due.sort_by(|one, other| one.0.total_cmp(&other.0));
        due.truncate(most);
        Ok(due.into_iter().map(|(_, key)| key).collect())
    }

    async fn claim_these(&self, claim: &Claim, due: &[SessionKey]) -> Result<Vec<SessionKey>, StoreError> {
        let parts = keys::by_partition(due.iter().copied(), |key| *key);
        let calls = parts.iter().flat_map(|(partition, some)| some.chunks(MOST).map(move |some| (*partition, some)));
        let calls = calls.map(|(partition, some)| {
            let mut keys = vec![self.keys.due(partition)];
            keys.extend(some.iter().map(|key| self.keys.session(key)));
            let mut values = vec![self.now(), millis(claim.due), millis(claim.active_since), millis(claim.lease)];
            values.extend(some.iter().map(|key| Value::from(key.to_text())));
            self.scripts.claim.run::<Vec<Bytes>>(&self.nodes, partition, keys, values)
        });
        // A claim whose answer was lost is not handed out before its lease ends; the others are not lost with it.
        let mut claimed = Vec::new();
        let mut failed = None;
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(members) => claimed.extend(members.iter().filter_map(|member| SessionKey::from_text(member))),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if claimed.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }

    pub(super) async fn reschedule_these(&self, due: &[(SessionKey, Timestamp)]) -> Result<(), StoreError> {
        let parts = keys::by_partition(due.iter().copied(), |(key, _)| *key);
        let calls = parts.iter().flat_map(|(partition, some)| some.chunks(MOST).map(move |some| (*partition, some)));
        let calls = calls.map(|(partition, some)| {
            let mut keys = vec![self.keys.due(partition)];
            keys.extend(some.iter().map(|(key, _)| self.keys.session(key)));
            let mut values = vec![self.now()];
            values.extend(some.iter().flat_map(|(key, due)| [key.to_text().into(), millis(*due)]));
            self.scripts.reschedule.run::<i64>(&self.nodes, partition, keys, values)
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }
}
