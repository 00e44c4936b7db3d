//! The real proxy on real parts. One module a subject; `harness` builds the world they live in.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod admin;
mod admin_sessions;
mod audit;
mod backchannel;
mod backchannel_kit;
mod backchannel_races;
mod bearer;
mod client_auth;
mod client_certificates;
mod cookies;
mod cors;
mod counters;
mod credentials;
mod credentials_kit;
mod credentials_limits;
mod credentials_refresh;
mod csrf;
mod d3_logs;
mod damaged_records;
mod dpop;
mod drain;
mod events;
mod grpc;
mod h1_identity;
mod h2_floods;
mod h2_forwarded;
mod h2_peer;
mod h4_paths;
mod h6_hosts;
mod h9_framing;
mod hand_over;
#[path = "../support/harness.rs"]
mod harness;
mod key_ring;
#[path = "../support/kit.rs"]
mod kit;
mod lasting;
mod leaks;
mod levels;
mod limits;
mod limits_set;
mod login;
mod login_callback;
mod login_id_token;
mod login_info;
mod login_kit;
mod login_parameters;
mod login_provider;
mod login_return;
mod login_session;
mod login_start;
mod login_tabs;
mod login_userinfo;
mod logout;
mod logout_wide;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[path = "../support/process.rs"]
mod process;
mod proxy_protocol;
mod proxy_tokens;
mod rate_limits;
mod redirect_to_https;
#[path = "../support/redis_server.rs"]
mod redis_server;
mod refresh_background;
mod refresh_clocks;
mod refresh_errors;
mod refresh_in_doubt;
mod refresh_on_demand;
mod refresh_races;
mod reload;
mod replicas;
mod rotation;
mod route_timeouts;
mod routes;
mod rules;
mod secrets_found;
#[path = "../support/secure_upstream.rs"]
mod secure_upstream;
mod session_times;
mod several_providers;
#[path = "../support/shared_store.rs"]
mod shared_store;
mod signals;
mod static_files;
mod step_up;
mod store_file;
mod store_outage;
mod store_postgres;
mod streaming;
mod tls;
mod tls_kit;
mod tls_reload;
mod tokens;
mod unauthorized_matrix;
mod upstream_failures;
mod upstream_h2;
mod upstream_health;
mod upstream_retries;
mod upstream_tls;
mod upstream_unauthorized;
mod user_context;
mod websocket;
mod wire;
