//! The real proxy on real parts. One module a subject; `harness` builds the world they live in.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod harness;
mod login;
mod login_callback;
mod login_id_token;
mod login_info;
mod login_kit;
mod login_provider;
mod login_return;
mod login_session;
mod login_start;
mod login_tabs;
mod logout;
#[path = "../support/redis_server.rs"]
mod redis_server;
