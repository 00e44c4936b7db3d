//! Whether Redis does what the store needs of it, and what its operator should know.

use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::InfoKind;

use super::super::StoreError;
use super::RedisStore;
use super::fields::millis;
use crate::primitives::random;

/// Life of what a probe writes, should it fail midway.
const PROBE_LIFE: Duration = Duration::from_secs(10);

/// Major and minor number of the oldest version that is supported.
const OLDEST: (u64, u64) = (6, 2);

impl RedisStore {
    /// Writes and reads as the scripts do, on each node.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let name = random::bytes::<8>().map(|bytes| random::base64url(&bytes));
        let name = name.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let soon = millis(self.clock.now().plus(PROBE_LIFE));
        let calls = self.nodes.each().await?.into_iter().map(|(partition, _)| {
            let keys = self.keys.probes(partition, &name);
            let values = vec![soon.clone(), self.nodes.channel().into()];
            self.scripts.probe.run::<i64>(&self.nodes, partition, keys, values)
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }

    /// Of the memory policy (behaviour K5) and the version, of each node.
    ///
    /// Asks `INFO` rather than `CONFIG`: managed servers forbid that one, and both know the policy.
    pub(super) async fn memory_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let unknown = |error| format!("could not learn whether Redis' maxmemory-policy is noeviction: {error}");
        let nodes = match self.nodes.each().await {
            Ok(nodes) => nodes,
            Err(error) => return vec![unknown(error)],
        };
        for (_, link) in nodes {
            let info = self.nodes.run_on(&link, |client| async move {
                Ok((client.server_version(), client.info::<String>(Some(InfoKind::Memory)).await?))
            });
            match info.await {
                Ok((version, text)) => {
                    if let Some(version) = version.filter(|version| (version.major, version.minor) < OLDEST) {
                        warnings.push(format!("Redis {version} is older than 6.2, the oldest that is supported"));
                    }
                    warnings.extend(about_policy(&text));
                }
                Err(error) => warnings.push(unknown(error)),
            }
        }
        warnings.dedup();
        warnings
    }
}

fn about_policy(info: &str) -> Option<String> {
    match info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim) {
        Some("noeviction") => None,
        Some(policy) => Some(format!(
            "Redis may drop sessions when its memory is full: maxmemory-policy is {policy}, not noeviction"
        )),
        None => Some("Redis does not say its maxmemory-policy; it should be noeviction".to_owned()),
    }
}
