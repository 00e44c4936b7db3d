//! The count of sessions by sealing key.

use std::collections::BTreeMap;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::KeysInterface as _;
use fred::types::scan::ScanType;

use super::super::StoreError;
use super::super::record::SessionKey;
use super::link::Link;
use super::{AT_A_TIME, RedisStore, fields};

/// Keys that one `SCAN` looks at; Redis does nothing else meanwhile. While its table grows a key may be named twice, and
/// is then counted twice.
const STEP: u32 = 512;

impl RedisStore {
    pub(super) async fn count_by_key(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for (_, link) in self.nodes.each().await? {
            self.count_on(&link, &mut counts).await?;
        }
        Ok(counts)
    }

    async fn count_on(&self, link: &Link, counts: &mut BTreeMap<String, u64>) -> Result<(), StoreError> {
        let mut cursor = String::from("0");
        loop {
            let pattern = self.keys.sessions();
            let page = |client: Client| async move {
                client.scan_page(cursor, pattern, Some(STEP), Some(ScanType::Hash)).await
            };
            let (next, names): (String, Vec<Bytes>) = self.nodes.run_on(link, page).await?;
            let keys: Vec<_> = names.iter().filter_map(|name| self.keys.session_of(name)).collect();
            self.count(&keys, counts).await?;
            if next == "0" {
                return Ok(());
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
