//! Lua scripts: sent by hash, and in full to a Redis that has not seen them or has restarted since.

use std::fmt::Write as _;

use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface as _;
use fred::types::{FromValue, Value};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::StoreError;
use super::nodes::{Manner, Nodes};

/// All scripts of the store, each on keys of one partition. All their keys are declared.
pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) replace: Script,
    pub(super) touch: Script,
    pub(super) extend: Script,
    pub(super) delete: Script,
    pub(super) members: Script,
    pub(super) prune: Script,
    pub(super) peek: Script,
    pub(super) claim: Script,
    pub(super) reschedule: Script,
    pub(super) mark: Script,
    pub(super) put_login: Script,
    pub(super) take_login: Script,
    pub(super) probe: Script,
}

/// A script with what it shares with others.
macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $name, ".lua"))))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: script!("create"),
            replace: script!("replace"),
            touch: script!("touch"),
            extend: script!("extend"),
            delete: script!("delete"),
            members: Script::new(include_str!("scripts/members.lua")),
            prune: Script::new(include_str!("scripts/prune.lua")),
            peek: Script::new(include_str!("scripts/peek.lua")),
            claim: script!("claim"),
            reschedule: script!("reschedule"),
            mark: Script::new(include_str!("scripts/mark.lua")),
            put_login: Script::new(include_str!("scripts/put_login.lua")),
            take_login: Script::new(include_str!("scripts/take_login.lua")),
            probe: script!("probe"),
        }
    }
}

/// One script.
pub(super) struct Script {
    source: &'static str,
    hash: Str,
}

impl Script {
    fn new(source: &'static str) -> Self {
        // Redis names scripts by SHA-1; nothing secret rests on it.
        let mut hash = String::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes()).as_ref() {
            // Writing to a string does not fail.
            let _ = write!(hash, "{byte:02x}");
        }
        Self { source, hash: hash.into() }
    }

    /// Runs the script on some keys of a partition, or of several where one server has them all.
    pub(super) async fn run<T>(
        &self,
        nodes: &Nodes,
        partition: u8,
        keys: Vec<String>,
        values: Vec<Value>,
    ) -> Result<T, StoreError>
    where
        T: FromValue + Send,
    {
        nodes.run(partition, |client, manner| self.send(client, manner, keys.clone(), values.clone())).await
    }

    /// `EVAL` leaves the script with Redis, so the next call finds it. It was not run when the answer is NOSCRIPT, so this
    /// is no second attempt.
    async fn send<T>(&self, client: Client, manner: Manner, keys: Vec<String>, values: Vec<Value>) -> Result<T, Error>
    where
        T: FromValue + Send,
    {
        if manner == Manner::Plain {
            match client.evalsha(self.hash.clone(), keys.clone(), values.clone()).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {}
                answer => return answer,
            }
        }
        client.eval(self.source, keys, values).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_its_sha1() {
        // As `SCRIPT LOAD "return ARGV[1]"` answers.
        assert_eq!(&*Script::new("return ARGV[1]").hash, "098e0f0d1448c0a81dafe820f66d460eb09263da");
    }
}
