//! A client and a browser in one, for the tests of the provider.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use crate::demo::provider::{Provider, ProviderConfig};
use crate::demo::support::base64url;
use crate::demo::{CLIENT_ID, CLIENT_SECRET};

pub(super) const CALLBACK: &str = "http://127.0.0.1:8080/auth/callback";
pub(super) const VERIFIER: &str = "a-verifier-that-is-long-enough-for-rfc-7636-and-then-some";

/// A clock that stands still until it is told to move.
#[derive(Clone)]
pub(super) struct Hands(Arc<Mutex<SystemTime>>);

impl Hands {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }

    pub(super) fn advance(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }

    pub(super) fn config(&self) -> ProviderConfig {
        let hands = self.clone();
        ProviderConfig { clock: Arc::new(move || *hands.0.lock().unwrap()), ..ProviderConfig::default() }
    }
}

/// Whoever asks the provider something.
pub(super) struct Guest {
    pub(super) http: reqwest::Client,
    base: String,
}

pub(super) fn start() -> (Provider, Guest) {
    start_with(ProviderConfig::default())
}

pub(super) fn start_with(config: ProviderConfig) -> (Provider, Guest) {
    // Somebody else may have installed it; both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = Provider::start(config).unwrap();
    let http = reqwest::Client::builder().redirect(Policy::none()).cookie_store(true).build().unwrap();
    let base = format!("http://{}", provider.address());
    (provider, Guest { http, base })
}

pub(super) async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Where a redirect leads, as its parameters.
pub(super) fn location(response: &Response) -> Vec<(String, String)> {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let target = response.headers()["location"].to_str().unwrap();
    Url::parse(target).unwrap().query_pairs().into_owned().collect()
}

pub(super) fn parameter(pairs: &[(String, String)], name: &str) -> Option<String> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

/// The parameters of a good authorization request.
pub(super) fn request() -> Vec<(&'static str, String)> {
    vec![
        ("response_type", "code".to_owned()),
        ("client_id", CLIENT_ID.to_owned()),
        ("redirect_uri", CALLBACK.to_owned()),
        ("scope", "openid profile email".to_owned()),
        ("state", "the state/ü".to_owned()),
        ("nonce", "the-nonce".to_owned()),
        ("code_challenge", base64url(Sha256::digest(VERIFIER))),
        ("code_challenge_method", "S256".to_owned()),
    ]
}

/// The good request with one parameter changed, added or (with an empty value) as good as absent.
pub(super) fn request_with(name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    let mut pairs = request();
    pairs.retain(|(known, _)| *known != name);
    pairs.push((name, value.to_owned()));
    pairs
}

fn encoded<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

impl Guest {
    pub(super) async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub(super) async fn authorize(&self, pairs: &[(&str, String)]) -> Response {
        self.get(&format!("/oauth/authorize?{}", encoded(pairs))).await
    }

    /// Clicks on the login page.
    pub(super) async fn click(&self, pairs: &[(&str, String)], body: &str) -> Response {
        let url = format!("{}/oauth/authorize?{}", self.base, encoded(pairs));
        let form = "application/x-www-form-urlencoded";
        self.http.post(url).header("content-type", form).body(body.to_owned()).send().await.unwrap()
    }

    /// Posts a form as the demo's client.
    pub(super) async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Response {
        self.try_post(path, pairs).await.unwrap()
    }

    pub(super) async fn try_post(&self, path: &str, pairs: &[(&str, &str)]) -> reqwest::Result<Response> {
        let request = self.http.post(format!("{}{path}", self.base)).basic_auth(CLIENT_ID, Some(CLIENT_SECRET));
        request.header("content-type", "application/x-www-form-urlencoded").body(encoded(pairs)).send().await
    }

    /// Posts a form without Basic credentials.
    pub(super) async fn post_bare(&self, path: &str, pairs: &[(&str, &str)]) -> Response {
        let request = self.http.post(format!("{}{path}", self.base));
        request.header("content-type", "application/x-www-form-urlencoded").body(encoded(pairs)).send().await.unwrap()
    }

    pub(super) async fn redeem(&self, code: &str) -> Response {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        self.post("/oauth/token", &form).await
    }

    pub(super) async fn refresh(&self, refresh_token: &str) -> Response {
        self.post("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }

    /// A code for alice, by a click.
    pub(super) async fn code(&self) -> String {
        let response = self.click(&request(), "login=alice").await;
        parameter(&location(&response), "code").unwrap()
    }

    /// Tokens for alice.
    pub(super) async fn log_in(&self) -> Value {
        json(self.redeem(&self.code().await).await).await
    }
}
