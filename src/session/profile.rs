//! What the routes of a site need of a session, found out once for all its sessions.

use std::sync::Arc;

use crate::config::settings::{ClaimCondition, ClaimPath, Target};

/// What a site wants prepared in each of its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Name of the site.
    pub site: Arc<str>,
    /// Names of its providers; sessions of another one are none here (behaviour S11).
    pub providers: Vec<Arc<str>>,
    /// Claims that go into identity headers; [`Open::identity`](super::open::Open::identity) takes an index into this list.
    pub claims: Vec<ClaimPath>,
    /// Conditions that rules of its routes ask for; [`Open::meets`](super::open::Open::meets) takes an index into this list.
    pub conditions: Vec<ClaimCondition>,
    /// Claims in the user context; `None` = no route tells it.
    pub context: Option<Vec<ClaimPath>>,
    /// Whether a route sends a proxy token.
    pub proxy_token: bool,
    /// Whether a route sends the ID token.
    pub id_token: bool,
    /// What its routes exchange tokens for; [`Open::exchanged`](super::open::Open::exchanged) takes an index into this list.
    pub exchanges: Vec<Target>,
}
