//! A model of the refresh protocol, explored to the end by a model checker.
//!
//! Every order of events is tried: who reads, writes, asks and answers when, with crashes, lost answers, lost replies
//! and lost leases wherever they can strike. `docs/explanation/refresh-protocol.md` tells the protocol in prose and
//! what this proves.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod properties;
mod protocol;
mod provider;
mod runs;
mod settings;
mod state;
mod world;
