//! A backend with a login of its own, as apps have that grew up without an OpenID provider: credentials in, JSON with
//! tokens out. It rotates refresh tokens strictly: one that was shown before is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::faults::Faults;
use super::server::Server;
use super::support::{locked, random_value};

/// The password of each of its users, `alice` and `bob`.
pub const PASSWORD: &str = "a password that nobody would guess";

/// How it answers.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Life of an access token; `None` = it does not say.
    pub access_lifetime: Option<Duration>,
    /// Life of a refresh token; `None` = it does not say.
    pub refresh_lifetime: Option<Duration>,
    /// Whether an answer to a refresh holds the user, and the roles then.
    pub roles: Vec<String>,
    /// Whether the user is said to be somebody else at the next refresh.
    pub other_user: bool,
    /// Whether tokens stand in the user as well, old and new.
    pub careless: bool,
    /// `sub` of access tokens, which are JWTs then.
    pub token_subject: Option<String>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            access_lifetime: Some(Duration::from_secs(60)),
            refresh_lifetime: Some(Duration::from_secs(24 * 3600)),
            roles: vec!["user".to_owned()],
            other_user: false,
            careless: false,
            token_subject: None,
        }
    }
}

/// Which of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendEndpoint {
    /// `POST /login`
    Login,
    /// `POST /refresh`
    Refresh,
    /// `POST /logout`
    Logout,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Where to.
    pub endpoint: BackendEndpoint,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cookie`.
    pub cookie: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// The backend on one address. It stops when it is dropped.
pub struct Backend {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    books: Mutex<Books>,
    faults: BTreeMap<BackendEndpoint, Faults>,
}

#[derive(Default)]
struct Books {
    manners: Manners,
    posted: Vec<Posted>,
    /// Refresh tokens that are good, and whose they are.
    good: BTreeMap<String, String>,
    shown: Vec<String>,
    revoked: BTreeSet<String>,
    last: Option<(String, String)>,
}

impl Backend {
    /// Binds `address` (port 0 picks a free one) and serves on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let endpoints = [BackendEndpoint::Login, BackendEndpoint::Refresh, BackendEndpoint::Logout];
        let faults = endpoints.map(|endpoint| (endpoint, Faults::default())).into_iter().collect();
        let shared = Arc::new(Shared { faults, ..Shared::default() });
        let server = Server::start(address, |_| router(&shared))?;
        Ok(Self { server, shared })
    }

    /// The address of an endpoint.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// Goes down: the listener closes, open connections are reset.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Comes back on the same port.
    ///
    /// # Errors
    /// If somebody took the port meanwhile.
    pub fn restart(&self) -> io::Result<()> {
        self.server.restart()
    }

    /// Changes how it answers.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut locked(&self.shared.books).manners);
    }

    /// The bad manners of an endpoint.
    pub fn faults(&self, endpoint: BackendEndpoint) -> Faults {
        self.shared.faults.get(&endpoint).cloned().unwrap_or_default()
    }

    /// What was posted to an endpoint, oldest first.
    pub fn posted(&self, endpoint: BackendEndpoint) -> Vec<Posted> {
        locked(&self.shared.books).posted.iter().filter(|posted| posted.endpoint == endpoint).cloned().collect()
    }

    /// Every refresh token that was shown to it, as often as it was.
    pub fn shown(&self) -> Vec<String> {
        locked(&self.shared.books).shown.clone()
    }

    /// Whether it was told that a refresh token is done with.
    pub fn is_revoked(&self, token: &str) -> bool {
        locked(&self.shared.books).revoked.contains(token)
    }

    /// Access and refresh token that it gave out last.
    pub fn last_issued(&self) -> Option<(String, String)> {
        locked(&self.shared.books).last.clone()
    }

    /// Refresh tokens of all its users are worth nothing from now on.
    pub fn forget_tokens(&self) {
        locked(&self.shared.books).good.clear();
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let at = |endpoint, handler: MethodRouter<Arc<Shared>>| {
        let faults = shared.faults.get(&endpoint).cloned().unwrap_or_default();
        handler.layer(from_fn(move |request: Request, next: Next| faults.clone().strike(request, next)))
    };
    Router::new()
        .route("/login", at(BackendEndpoint::Login, post(login)))
        .route("/refresh", at(BackendEndpoint::Refresh, post(refresh)))
        .route("/logout", at(BackendEndpoint::Logout, post(logout)))
        .with_state(Arc::clone(shared))
}

async fn login(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut books = locked(&shared.books);
    books.note(BackendEndpoint::Login, &headers, &body);
    let form: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("username") {
        user @ ("alice" | "bob") if text("password") == PASSWORD => {
            let user = user.to_owned();
            books.issue(&user, true, None)
        }
        "" => error(StatusCode::UNPROCESSABLE_ENTITY, "username is missing"),
        _ => error(StatusCode::UNAUTHORIZED, "bad credentials"),
    }
}

async fn refresh(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut books = locked(&shared.books);
    books.note(BackendEndpoint::Refresh, &headers, &body);
    let Some(token) = token_of(&headers, &body) else { return error(StatusCode::BAD_REQUEST, "no token") };
    books.shown.push(token.clone());
    match books.good.remove(&token) {
        Some(user) => {
            let with_user = !books.manners.roles.is_empty();
            books.issue(&user, with_user, Some(&token))
        }
        None => error(StatusCode::UNAUTHORIZED, "bad refresh token"),
    }
}

async fn logout(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut books = locked(&shared.books);
    books.note(BackendEndpoint::Logout, &headers, &body);
    if let Some(token) = token_of(&headers, &body) {
        books.good.remove(&token);
        books.revoked.insert(token);
    }
    StatusCode::NO_CONTENT.into_response()
}

/// In the body or in the header, whichever there is.
fn token_of(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match header {
        Some(token) => Some(token.to_owned()),
        None => Some(serde_json::from_slice::<Value>(body).ok()?.get("refreshToken")?.as_str()?.to_owned()),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

impl Books {
    fn note(&mut self, endpoint: BackendEndpoint, headers: &HeaderMap, body: &Bytes) {
        let text = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let (authorization, content_type) = (text(header::AUTHORIZATION), text(header::CONTENT_TYPE));
        let cookie = text(header::COOKIE);
        self.posted.push(Posted { endpoint, authorization, content_type, cookie, body: body.clone() });
    }

    /// Tokens for a user, `shown` for another one.
    fn issue(&mut self, user: &str, with_user: bool, shown: Option<&str>) -> Response {
        let access = match &self.manners.token_subject {
            Some(sub) => {
                let claims = json!({ "sub": sub, "jti": random_value() }).to_string();
                format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
            }
            None => format!("access-{}", random_value()),
        };
        let refresh = format!("refresh-{}", random_value());
        self.good.insert(refresh.clone(), user.to_owned());
        self.last = Some((access.clone(), refresh.clone()));
        let mut answer = json!({ "accessToken": access, "refreshToken": refresh });
        if let Some(object) = answer.as_object_mut() {
            let lives = [
                ("accessTokenExpiresIn", self.manners.access_lifetime),
                ("refreshTokenExpiresIn", self.manners.refresh_lifetime),
            ];
            for (name, life) in lives {
                if let Some(life) = life {
                    object.insert(name.to_owned(), life.as_secs().into());
                }
            }
            if with_user {
                let id =
                    if self.manners.other_user { "id-of-somebody-else".to_owned() } else { format!("id-of-{user}") };
                let mut person = json!({ "id": id, "name": user, "roles": self.manners.roles });
                if let (true, Some(person)) = (self.manners.careless, person.as_object_mut()) {
                    person.insert("token".to_owned(), access.into());
                    person.extend(shown.map(|shown| ("before".to_owned(), shown.into())));
                    person.insert("links".to_owned(), json!([format!("https://x.example/?t={refresh}")]));
                }
                object.insert("user".to_owned(), person);
            }
        }
        Json(answer).into_response()
    }
}
