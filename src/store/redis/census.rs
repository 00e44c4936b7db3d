//! The count of sessions by sealing key.

use std::collections::BTreeMap;

use bytes::Bytes;
use fred::interfaces::KeysInterface as _;
use fred::types::scan::ScanType;

use super::super::StoreError;
use super::super::record::SessionKey;
use super::{AT_A_TIME, RedisStore, fields};

/// Keys that one `SCAN` looks at; Redis does nothing else meanwhile. While its table grows a key may be named twice, and
/// is then counted twice.
const STEP: u32 = 512;

impl RedisStore {
    pub(super) async fn count_by_key(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        let mut cursor = String::from("0");
        loop {
            let (next, names): (String, Vec<Bytes>) = self
                .link
                .run(|client| {
                    let pattern = self.keys.sessions();
                    async move { client.scan_page(cursor, pattern, Some(STEP), Some(ScanType::Hash)).await }
                })
                .await?;
            let keys: Vec<_> = names.iter().filter_map(|name| self.keys.session_of(name)).collect();
            self.count(&keys, &mut counts).await?;
            if next == "0" {
                return Ok(counts);
            }
            cursor = next;
        }
    }

    async fn count(&self, keys: &[SessionKey], counts: &mut BTreeMap<String, u64>) -> Result<(), StoreError> {
        for some in keys.chunks(AT_A_TIME) {
            for values in self.fetch(some, &["v", "t", "meta"]).await? {
                // What cannot be read was sealed by no key that is known.
                let Ok(Some(record)) = fields::read_open(&values) else { continue };
                if record.end() > self.clock.now() {
                    *counts.entry(record.sealing_key).or_default() += 1;
                }
            }
        }
        Ok(())
    }
}
