//! Those changes of a session that take more than one script: its owners must be known before their sets can be named.

use bytes::Bytes;
use fred::types::Value;

use super::super::record::SessionKey;
use super::super::{Change, StoreError, Touch};
use super::fields::{self, millis};
use super::keys;
use super::{ATTEMPTS, RedisStore, changes};

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
            let calls = parts.iter().flat_map(|(partition, some)| some.chunks(MOST).map(|some| (*partition, some)));
            let calls = calls.map(|(partition, some)| self.touch_some(partition, some));
            let outgrown = futures::future::try_join_all(calls).await?.concat();
            let calls = outgrown.iter().map(|(touch, meta)| self.extend(touch, meta));
            left = futures::future::try_join_all(calls).await?.into_iter().flatten().collect();
        }
        Ok(())
    }

    /// Touches sessions of one partition. Answers those that would outlive their indexes, and their meta.
    async fn touch_some(&self, partition: u8, touches: &[Touch]) -> Result<Vec<(Touch, Bytes)>, StoreError> {
        let keys = touches.iter().map(|touch| self.keys.session(&touch.key)).collect();
        let mut values = vec![self.now()];
        values.extend(touches.iter().flat_map(times));
        let metas: Vec<Bytes> = self.scripts.touch.run(&self.nodes, partition, keys, values).await?;
        Ok(touches.iter().copied().zip(metas).filter(|(_, meta)| !meta.is_empty()).collect())
    }

    /// Touches a session and its indexes. Answers the touch if the meta is out of date.
    async fn extend(&self, touch: &Touch, meta: &Bytes) -> Result<Option<Touch>, StoreError> {
        let keys = self.keys.whole(&touch.key, &fields::owners(meta));
        let mut values = vec![self.now()];
        values.extend(times(touch));
        values.extend([touch.key.to_text().into(), meta.clone().into()]);
        let done = self.scripts.extend.run::<i64>(&self.nodes, keys::of_session(&touch.key), keys, values).await? == 1;
        Ok((!done).then_some(*touch))
    }

    /// Ends a session with its indexes and answers its fields.
    pub(super) async fn end(&self, key: &SessionKey) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut meta = self.fetch_one(key, &["meta"]).await?.pop().flatten().unwrap_or_default();
        loop {
            let values = vec![
                self.now(),
                key.to_text().into(),
                meta.clone().into(),
                self.nodes.channel().into(),
                changes::message(&Change::Ended(*key)).into(),
            ];
            let keys = self.keys.whole(key, &fields::owners(&meta));
            let answer: Vec<Option<Bytes>> =
                self.scripts.delete.run(&self.nodes, keys::of_session(key), keys, values).await?;
            match answer.as_slice() {
                // Somebody else wrote it: once more, and for ever, for a logout must not give way.
                [now] => meta = now.clone().unwrap_or_default(),
                _ => return Ok(answer),
            }
        }
    }
}

/// Last seen, idle and returning end.
fn times(touch: &Touch) -> [Value; 3] {
    [millis(touch.last_seen), millis(touch.idle_end), millis(touch.returning_end)]
}
