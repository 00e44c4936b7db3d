//! A site whose users log in with what they type, over a backend that remembers what it was asked.

use std::net::Ipv4Addr;

use cloakroom::demo::Backend;
use cloakroom::demo::backend::{BackendEndpoint, PASSWORD};
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Draft, SESSION, Seen, Wishes, World, XSRF};
use crate::kit::ticking;

/// The world, and the backend `legacy` in it.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) backend: Backend,
}

/// A route for the page with the form beside one that needs a session.
pub(crate) const ROUTES: &str = r#"
      - { path: /api/, upstream: demo, identity_headers: { X-User-Id: sub, X-User-Roles: roles } }
      - { path: /login-page, upstream: demo, access: public }
      - { path: /maybe/, upstream: demo, access: optional }
      - { path: /, upstream: demo }
"#;

pub(crate) fn start_backend() -> Backend {
    Backend::start((Ipv4Addr::LOCALHOST, 0).into()).expect("the backend starts")
}

/// YAML of the provider `legacy`, with more lines of it, indented by four.
pub(crate) fn legacy(backend: &Backend, send: &str, more: &str) -> String {
    let (login, refresh, logout) = (backend.url("/login"), backend.url("/refresh"), backend.url("/logout"));
    format!(
        r#"  - name: legacy
    kind: credentials
    login_url: {login}
    login_page: /login-page
    refresh: {{ url: "{refresh}", send: {send} }}
    logout_url: {logout}
{more}"#
    )
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with("body", "", ticking()).await
    }

    pub(crate) async fn with(send: &str, more: &str, wishes: Wishes) -> Self {
        let backend = start_backend();
        let (providers, site_providers) = (legacy(&backend, send, more), "provider: legacy".to_owned());
        let world = World::with(Wishes { providers, site_providers, routes: ROUTES.into(), ..wishes }).await;
        Self { world, backend }
    }

    pub(crate) fn browser(&self) -> Browser {
        self.world.browser()
    }

    pub(crate) async fn logged_in(&self) -> Browser {
        let mut browser = self.browser();
        let seen = log_in(&mut browser, "alice", PASSWORD).await;
        assert_eq!(seen.status, StatusCode::OK, "{seen:?}");
        assert!(browser.cookie(SESSION).is_some() && browser.cookie(XSRF).is_some(), "{seen:?}");
        browser
    }

    /// How often an endpoint of the backend was called.
    pub(crate) fn calls(&self, endpoint: BackendEndpoint) -> usize {
        self.backend.posted(endpoint).len()
    }

    /// The access token that the backend gave out last.
    pub(crate) fn access_token(&self) -> String {
        self.backend.last_issued().expect("tokens").0
    }

    /// The refresh token that the backend gave out last.
    pub(crate) fn refresh_token(&self) -> String {
        self.backend.last_issued().expect("tokens").1
    }

    /// No refresh token was shown twice.
    pub(crate) fn assert_shown_once(&self) {
        let mut shown = self.backend.shown();
        let all = shown.len();
        shown.sort();
        shown.dedup();
        assert_eq!(shown.len(), all, "a refresh token was shown twice");
    }
}

pub(crate) fn form(username: &str, password: &str) -> String {
    serde_json::json!({ "username": username, "password": password }).to_string()
}

/// What the page of the app posts, as a browser sends it.
pub(crate) fn post(browser: &Browser, target: &str, body: &str) -> Draft {
    let origin = browser.origin();
    let draft = browser.draft(Method::POST, target).body(body).header("origin", &origin);
    draft.header("content-type", "application/json").header("sec-fetch-mode", "cors")
}

pub(crate) async fn log_in(browser: &mut Browser, username: &str, password: &str) -> Seen {
    let draft = post(browser, "/auth/login", &form(username, password));
    browser.send(draft).await
}
