//! Those changes of a session that take more than one script: its owners must be known before their sets can be named.

use bytes::Bytes;
use fred::interfaces::HashesInterface as _;
use fred::types::Value;

use super::super::record::SessionKey;
use super::super::{Change, StoreError, Touch};
use super::fields::{self, millis};
use super::keys;
use super::{ATTEMPTS, RedisStore, changes};
use crate::primitives::random;

/// Sessions that one script touches.
const MOST: usize = 64;

impl RedisStore {
    pub(super) async fn touch_all(&self, touches: &[Touch]) -> Result<(), StoreError> {
        let mut left = touches.to_vec();
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                break;
            }
            let parts = keys::by_partition(left, |touch| touch.key);
            let calls = parts.values().flat_map(|some| some.chunks(MOST)).map(|some| self.touch_some(some));
            let outgrown = futures::future::try_join_all(calls).await?.concat();
            let calls = outgrown.iter().map(|(touch, meta)| self.extend(touch, meta));
            left = futures::future::try_join_all(calls).await?.into_iter().flatten().collect();
        }
        Ok(())
    }

    /// Touches sessions of one partition. Answers those that would outlive their indexes, and their meta.
    async fn touch_some(&self, touches: &[Touch]) -> Result<Vec<(Touch, Bytes)>, StoreError> {
        let keys = touches.iter().map(|touch| self.keys.session(&touch.key)).collect();
        let mut values = vec![self.now()];
        values.extend(touches.iter().flat_map(times));
        let metas: Vec<Bytes> = self.scripts.touch.run(&self.link, keys, values).await?;
        Ok(touches.iter().copied().zip(metas).filter(|(_, meta)| !meta.is_empty()).collect())
    }

    /// Touches a session and its indexes. Answers the touch if the meta is out of date.
    async fn extend(&self, touch: &Touch, meta: &Bytes) -> Result<Option<Touch>, StoreError> {
        let keys = self.keys.whole(&touch.key, &fields::owners(meta));
        let mut values = vec![self.now()];
        values.extend(times(touch));
        values.extend([touch.key.to_text().into(), meta.clone().into()]);
        let done = self.scripts.extend.run::<i64>(&self.link, keys, values).await? == 1;
        Ok((!done).then_some(*touch))
    }

    /// Ends a session with its indexes and answers its fields.
    pub(super) async fn end(&self, key: &SessionKey) -> Result<Vec<Option<Bytes>>, StoreError> {
        let name = self.keys.session(key);
        let meta: Option<Bytes> = self.link.run(|client| async move { client.hget(name, "meta").await }).await?;
        let mut meta = meta.unwrap_or_default();
        loop {
            let values = vec![
                self.now(),
                key.to_text().into(),
                meta.clone().into(),
                self.link.channel().into(),
                changes::message(&Change::Ended(*key)).into(),
            ];
            let keys = self.keys.whole(key, &fields::owners(&meta));
            let answer: Vec<Option<Bytes>> = self.scripts.delete.run(&self.link, keys, values).await?;
            match answer.as_slice() {
                // Somebody else wrote it: once more, and for ever, for a logout must not give way.
                [now] => meta = now.clone().unwrap_or_default(),
                _ => return Ok(answer),
            }
        }
    }

    /// Whether Redis does all that the store needs of it, on each node.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let name = random::bytes::<8>().map(|bytes| random::base64url(&bytes));
        let name = name.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let soon = millis(self.clock.now().plus(std::time::Duration::from_secs(10)));
        let calls = self.link.a_partition_of_each_node().into_iter().map(|partition| {
            self.scripts.probe.run::<i64>(&self.link, self.keys.probes(partition, &name), vec![soon.clone()])
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }
}

/// Last seen, idle and returning end.
fn times(touch: &Touch) -> [Value; 3] {
    [millis(touch.last_seen), millis(touch.idle_end), millis(touch.returning_end)]
}
